"""W&B dashboards, as far as they go without an account."""

import json

import pytest
from helpers.programs import refusal, run_cli
from smmix_pl.reporting.logged_keys import METRICS
from smmix_pl.reporting.logged_keys import PICTURES as LOGGED_PICTURES

from smmix_pl import Mixer
from smmix_pl.reporting.wandb_dashboard import COMPARED, MACHINE, PICTURES, SECTIONS, main

KEY = "0" * 40
"""Of the right length, and nobody's."""


def dashboard(folder, *words, **env):
    nobody = {"WANDB_MODE": None, "HOME": str(folder), "NETRC": str(folder / "none")}
    return run_cli(
        *("-m", "smmix_pl.reporting.wandb_dashboard", *words),
        cwd=folder,
        env=nobody | env,
        program="python",
    )


def every(tree, key):
    """All values of a key in nested JSON."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key:
                yield value
            yield from every(value, key)
    elif isinstance(tree, list):
        for value in tree:
            yield from every(value, key)


@pytest.fixture(scope="module")
def definition(tmp_path_factory):
    """What would be sent to W&B."""
    folder = tmp_path_factory.mktemp("dashboard")
    result = dashboard(folder, "me/smmix_pl", "--dry_run", "out.json")
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads((folder / "out.json").read_text())


def plots(part):
    """The settings of every line plot and bar plot."""
    configs = [config for config in every(part, "config") if isinstance(config, dict)]
    return [config for config in configs if config.get("metrics")]


def test_every_panel_shows_a_documented_key(definition):
    for part in (definition["workspace"], definition["report"]):
        numbers = {key for plot in plots(part) for key in plot["metrics"]}
        media = {key for keys in every(part, "mediaKeys") for key in keys}
        assert numbers | media == {key for section in SECTIONS.values() for key in section.keys}
        assert numbers - set(MACHINE) <= METRICS.keys()
        assert media == set(PICTURES)
    assert set(PICTURES) == LOGGED_PICTURES.keys()


def test_lines_run_over_steps_and_the_machine_over_time(definition):
    for part in (definition["workspace"], definition["report"]):
        over = {plot["metrics"][0]: plot["xAxis"] for plot in plots(part) if plot.get("xAxis")}
        assert {over.pop(key) for key in MACHINE} == {"_runtime"}
        assert set(over.values()) == {"trainer/global_step"}
        assert {"train/loss", "val/top1"} <= over.keys()


def test_the_workspace_has_the_sections_in_order(definition):
    assert definition["workspace"]["entity"] == "me"
    assert definition["workspace"]["project"] == "smmix_pl"
    [sections] = every(definition["workspace"]["spec"]["section"]["panelBankConfig"], "sections")
    assert [section["name"] for section in sections] == list(SECTIONS)
    for section, ours in zip(sections, SECTIONS.values(), strict=True):
        assert len(section["panels"]) == len(ours.keys)


def test_the_report_compares_groups_by_mean_and_deviation(definition):
    text = json.dumps(definition["report"])
    for section in SECTIONS.values():
        assert section.question in text
        assert section.reading in text
    compared = plots(definition["report"])
    assert {plot["metrics"][0] for plot in compared[: len(COMPARED)]} == set(COMPARED)
    assert {(plot["groupAgg"], plot["groupArea"]) for plot in compared} == {("mean", "stddev")}
    groups = [name for group in every(definition["report"], "grouping") for name in group]
    assert len(groups) == 1 + len(SECTIONS)
    assert all(group["name"] == "group" for group in groups)


def test_every_mixer_over_some_seeds_finds_room_in_a_panel(definition):
    enough = 4 * len(Mixer.__subclasses__())
    for part in (definition["workspace"], definition["report"]):
        for plot in plots(part):
            assert plot["limit"] >= enough, plot["metrics"]


def told_in_a_sentence(result):
    """The one sentence of a refusal."""
    assert result.returncode == 2, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    [sentence] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return sentence


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("smmix_pl",), "'smmix_pl' names no W&B project; give ENTITY/PROJECT"),
        (("me/mixers/SMMix",), "'me/mixers/SMMix' names no W&B project"),
        (("me/ ",), "'me/ ' names no W&B project"),
        ((), "ENTITY/PROJECT"),
        (("me/smmix_pl", "--dry_run", "none/out.json"), "none/out.json"),
    ],
)
def test_what_is_missing_is_told_in_a_sentence(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told in refusal(main, words, capsys)


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({}, "W&B knows no account here; run `wandb login`"),
        ({"WANDB_API_KEY": "short"}, "WANDB_API_KEY invalid: API key must have 40+ characters"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "W&B's mode is offline here"),
        ({"WANDB_MODE": "later"}, "W&B does not accept WANDB_MODE=later"),
        (
            {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "has to be reachable",
        ),
    ],
)
def test_a_login_that_cannot_work_is_told_in_a_sentence(tmp_path, env, told):
    assert told in told_in_a_sentence(dashboard(tmp_path, "me/smmix_pl", **env))


def test_without_the_library_the_extra_is_named(tmp_path):
    (tmp_path / "wandb_workspaces.py").touch()  # of the working directory, so it comes first
    result = dashboard(tmp_path, "me/smmix_pl", "--dry_run", "out.json")
    assert "pip install 'smmix_pl[dashboard]'" in told_in_a_sentence(result)
    assert not (tmp_path / "out.json").exists()


def test_a_project_may_have_spaces(tmp_path):
    result = dashboard(tmp_path, "me/my mixers", "--dry_run", "out.json")
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads((tmp_path / "out.json").read_text())["report"]["project"]["name"] == (
        "my mixers"
    )
