"""The methods that benchmarks/evidence.py compares, as options of the real command line."""

import runpy
from pathlib import Path

import pytest
import yaml
from helpers import processes
from helpers.sampling import every

from smmix_pl.cli.main import main

ROOT = Path(__file__).parents[2]
LISTS = [
    yaml.safe_load(path.read_text()) for path in sorted((ROOT / "configs/evidence").glob("*.yaml"))
]
METHODS = {
    str(options): options
    for content in LISTS
    for options in (content["methods"] | content["experiments"]).values()
}
"""Each list of options once."""


@pytest.mark.parametrize("method", every(8, METHODS))
def test_options_of_a_method_are_valid(method, capsys):
    words = [f"--{option}={value}" for option, value in METHODS[method].items()]
    with pytest.raises(SystemExit) as status:
        main(["fit", "--config", "digits.yaml", *words, "--print_config"])
    assert status.value.code in (0, None)
    assert "class_path: smmix_pl." in capsys.readouterr().out


def test_a_figure_is_drawn_from_the_table():
    """Methods are sorted by accuracy, and a row without deviation has no error bar."""
    evidence = runpy.run_path(str(ROOT / "benchmarks/evidence_tables.py"))
    columns = evidence["MEASURES"]
    measured = {
        method: {seed: dict.fromkeys(columns, top1 + seed) for seed in seeds}
        for method, top1, seeds in (
            ("none", 50, (0, 2)),
            ("SMMix", 60, (0,)),
            ("CutMix", 70, (0, 1)),
        )
    }
    rows = evidence["read_table"](evidence["table"](measured))
    assert rows["none"] == dict.fromkeys(columns.values(), (51.0, 1.41))
    assert rows["SMMix"]["top-1"] == (60.0, 0.0)
    left, right = evidence["figure"](rows, "note").axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["CutMix", "SMMix", "none"]
    for axes in (left, right):
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [51.0]


def test_listed_runs_give_the_same_differences(tmp_path):
    """Pairs within seeds: +2 and +4 are +3 with a 95% interval of t(1 degree) = 12.71 times 1."""
    evidence = runpy.run_path(str(ROOT / "benchmarks/evidence_tables.py"))
    runs = {"CutMix": {0: 70.0, 1: 50.0}, "SMMix": {0: 72.0, 1: 54.0}}
    measured = {
        method: {seed: {"top1": value} for seed, value in seeds.items()}
        for method, seeds in runs.items()
    }
    for method, seeds in measured.items():  # in parts, as seeds are added to a method
        for seed, values in seeds.items():
            evidence["add_runs"](tmp_path / "runs.csv", {method: {seed: values}})
    assert evidence["read_runs"](tmp_path / "runs.csv") == measured
    last = evidence["differences"](measured, "CutMix").splitlines()[-1]
    assert last == "| SMMix | +3.00 ± 12.71 |"


@pytest.mark.slow
def test_evidence_trains_and_tabulates(tmp_path):
    """One epoch of two steps, with one seed, and a second call that only reads the results.

    Checkpoints are deleted, because a study of many runs would fill the disk.
    """
    flags = (
        "--trainer.max_epochs=1 --trainer.limit_train_batches=2 --trainer.log_every_n_steps=1 "
        "--trainer.check_val_every_n_epoch=1"
    )
    command = [
        *(ROOT / "benchmarks/evidence.py", "digits", "--seeds", "0"),
        *("--methods", "none", "--flags", flags),
    ]
    for _ in range(2):
        result = processes.run(*command, cwd=tmp_path)
        assert result.returncode == 0, result.stderr[-2000:]
    cells = [cell.strip() for cell in result.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "none"
    assert 0 <= float(cells[1]) <= 100
    assert "done" not in result.stderr  # nothing was trained
    assert (tmp_path / "runs/evidence/evidence_digits.png").is_file()
    assert not list(tmp_path.rglob("*.ckpt"))
