"""W&B dashboards, as far as they go without an account."""

import json

import pytest
from helpers import processes
from helpers.programs import refusal, run_here

from smmix_pl import Mixer
from smmix_pl.cli.main import main
from smmix_pl.reporting.metric_names import metric_spec
from smmix_pl.reporting.panels import OF_TASKS, PANELS, PICTURES
from smmix_pl.reporting.wandb_dashboard import COMPARED, MACHINE, section_keys

KEY = "0" * 40
"""An API key of the right length without an account."""


def dashboard(folder, *words, **env):
    """Run the command in a process of its own, because W&B reads its settings once."""
    no_account = {"WANDB_MODE": None, "HOME": str(folder), "NETRC": str(folder / "none")}
    return processes.run("dashboard", *words, cwd=folder, env=no_account | env)


def every(tree, key):
    """Yield all values of a key in nested JSON."""
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
    """Return what would be sent to W&B."""
    folder = tmp_path_factory.mktemp("dashboard")
    run_here("dashboard", "me/my mixers", "--output", "out.json", cwd=folder)
    return json.loads((folder / "out.json").read_text())


def plots(part):
    """Return the settings of every line plot and bar plot."""
    configs = [config for config in every(part, "config") if isinstance(config, dict)]
    return [config for config in configs if config.get("metrics")]


def test_every_panel_shows_a_documented_key(definition):
    for part in (definition["workspace"], definition["report"]):
        numbers = {key for plot in plots(part) for key in plot["metrics"]}
        media = {key for keys in every(part, "mediaKeys") for key in keys}
        assert numbers | media == {key for name in PANELS for key in section_keys(name)}
        assert all(metric_spec(key) for key in numbers - set(MACHINE))
        assert media == {p.key for p in PICTURES if p.source in OF_TASKS}


def test_lines_are_drawn_over_steps_and_machine_metrics_over_time(definition):
    for part in (definition["workspace"], definition["report"]):
        over = {plot["metrics"][0]: plot["xAxis"] for plot in plots(part) if plot.get("xAxis")}
        assert {over.pop(key) for key in MACHINE} == {"_runtime"}
        assert set(over.values()) == {"trainer/global_step"}
        assert {"train/loss", "val/top1"} <= over.keys()


def test_the_workspace_has_the_sections_in_order(definition):
    assert definition["workspace"]["entity"] == "me"
    assert definition["workspace"]["project"] == "my mixers"  # with a space
    [sections] = every(definition["workspace"]["spec"]["section"]["panelBankConfig"], "sections")
    assert [section["name"] for section in sections] == list(PANELS)
    for section in sections:
        assert len(section["panels"]) == len(section_keys(section["name"]))


def test_the_report_compares_groups_by_mean_and_deviation(definition):
    text = json.dumps(definition["report"])
    assert definition["report"]["project"]["name"] == "my mixers"
    for panel in PANELS.values():
        assert panel.question in text
        assert panel.reading in text
    compared = plots(definition["report"])
    assert {plot["metrics"][0] for plot in compared[: len(COMPARED)]} == set(COMPARED)
    assert {(plot["groupAgg"], plot["groupArea"]) for plot in compared} == {("mean", "stddev")}
    groups = [name for group in every(definition["report"], "grouping") for name in group]
    assert len(groups) == 1 + len(PANELS)
    assert all(group["name"] == "group" for group in groups)


def test_panels_show_enough_runs_for_every_mixer_with_several_seeds(definition):
    enough = 4 * len(Mixer.__subclasses__())
    for part in (definition["workspace"], definition["report"]):
        for plot in plots(part):
            assert plot["limit"] >= enough, plot["metrics"]


def error_line(result):
    """Return the error of a command that ended with status 2."""
    assert result.returncode == 2, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("smmix_pl",), "smmix_pl"),
        (("me/mixers/SMMix",), "me/mixers/SMMix"),
        (("me/ ",), "'me/ '"),
        ((), "project"),
        (("me/smmix_pl", "--output", "none/out.json"), "none/out.json"),
    ],
)
def test_invalid_project_or_output_is_reported(words, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert named in refusal(main, ["dashboard", *words], capsys)


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "WANDB_API_KEY"),
        pytest.param(
            {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"},
            "workspace",
            marks=pytest.mark.slow,
        ),
        pytest.param({"WANDB_API_KEY": "short"}, "API key", marks=pytest.mark.slow),
        pytest.param(
            {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"},
            "WANDB_MODE=offline",
            marks=pytest.mark.slow,
        ),
        pytest.param({"WANDB_MODE": "later"}, "WANDB_MODE=later", marks=pytest.mark.slow),
    ],
)
def test_a_login_that_cannot_work_is_reported(tmp_path, env, named):
    assert named in error_line(dashboard(tmp_path, "me/smmix_pl", **env))


def test_without_the_library_the_extra_is_named(tmp_path):
    (tmp_path / "wandb_workspaces.py").touch()  # found first, in the working directory
    result = dashboard(tmp_path, "me/smmix_pl", "--output", "out.json")
    assert "smmix-pl[dashboard]" in error_line(result)
    assert not (tmp_path / "out.json").exists()
