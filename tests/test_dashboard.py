"""W&B dashboards, as far as they go without an account."""

import json

import pytest
from conftest import run_cli

from smmix_pl.dashboard import COMPARED, PICTURES, SECTIONS
from smmix_pl.logged import METRICS
from smmix_pl.logged import PICTURES as LOGGED_PICTURES


def dashboard(folder, *words):
    nobody = {"WANDB_MODE": None, "HOME": str(folder), "NETRC": str(folder / "none")}
    return run_cli("-m", "smmix_pl.dashboard", *words, cwd=folder, env=nobody, program="python")


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


def test_every_panel_shows_a_documented_key(definition):
    for part in ("workspace", "report"):
        lines = {key for keys in every(definition[part], "metrics") for key in keys}
        media = {key for keys in every(definition[part], "mediaKeys") for key in keys}
        assert lines | media >= {key for _, *keys in SECTIONS.values() for key in keys}
        assert lines <= METRICS.keys()
        assert media == set(PICTURES)
    assert set(PICTURES) == LOGGED_PICTURES.keys()


def test_the_workspace_has_the_sections_in_order(definition):
    assert definition["workspace"]["entity"] == "me"
    assert definition["workspace"]["project"] == "smmix_pl"
    [sections] = every(definition["workspace"]["spec"]["section"]["panelBankConfig"], "sections")
    assert [section["name"] for section in sections] == list(SECTIONS)
    for section, (_, *keys) in zip(sections, SECTIONS.values(), strict=True):
        assert len(section["panels"]) == len(keys)


def test_the_report_compares_groups_by_mean_and_deviation(definition):
    text = json.dumps(definition["report"])
    for question, *_ in SECTIONS.values():
        assert question in text
    configs = every(definition["report"], "config")
    bars = [one for one in configs if isinstance(one, dict) and one.get("metrics")]
    compared = [bar for bar in bars if bar["metrics"][0] in COMPARED and bar.get("groupAgg")]
    assert {bar["metrics"][0] for bar in compared} == set(COMPARED)
    assert {(bar["groupAgg"], bar["groupArea"]) for bar in compared} == {("mean", "stddev")}
    groups = [name for group in every(definition["report"], "grouping") for name in group]
    assert groups
    assert all(group["name"] == "group" for group in groups)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("me/smmix_pl",), "W&B knows no account here; run `wandb login`"),
        (("smmix_pl",), "'smmix_pl' names no W&B project; give ENTITY/PROJECT"),
        ((), "ENTITY/PROJECT"),
        (("me/smmix_pl", "--dry_run", "none/out.json"), "none/out.json"),
    ],
)
def test_what_is_missing_is_told_in_a_sentence(tmp_path, words, told):
    result = dashboard(tmp_path, *words)
    assert result.returncode == 2
    [sentence] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert told in sentence
    assert "Traceback" not in result.stderr
