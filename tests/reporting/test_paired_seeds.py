"""`smmix compare` of methods that were run with several seeds."""

import csv
import json
import statistics

import pytest
from scipy.stats import ttest_rel

from smmix_pl.cli.main import main

CUTMIX = {0: (0.80, 0.70), 1: (0.82, 0.65), 2: (0.79, 0.71), 3: (0.83, 0.69)}
SMMIX = {0: (0.82, 0.69), 1: (0.845, 0.70), 2: (0.81, 0.66), 3: (0.85, 0.70), 9: (0.99, 0.1)}
"""Accuracy and NLL by seed."""


def write_run(folder, seed, top1, nll):
    folder.mkdir(parents=True)
    how = {"images": 100, "protocol": {"split": "test"}}
    content = {
        "run": {
            **{"model": "vit", "mixer": "CutMix", "data": "Digits", "image_size": [16, 16]},
            **{"seed": seed, "git_commit": None},
        },
        "metrics": {"top1": {"value": top1, **how}, "nll": {"value": nll, **how}},
        "curves": {},
        "reliability": {},
    }
    (folder / "results.json").write_text(json.dumps(content))


@pytest.fixture
def methods(tmp_path):
    for name, seeds in {"cutmix": CUTMIX, "smmix": SMMIX}.items():
        for seed, values in seeds.items():
            write_run(tmp_path / name / f"version_{seed}", seed, *values)
    return tmp_path


def compare(folder, *words):
    main(["compare", *words, "--output", str(folder / "out")])
    with (folder / "out/table.csv").open() as file:
        return {(row["metric"], row["method"]): row for row in csv.DictReader(file)}


def test_differences_are_paired_by_shared_seeds(methods, capsys):
    rows = compare(methods, f"CutMix={methods / 'cutmix'}", f"SMMix={methods / 'smmix'}")
    for index, metric in enumerate(("top1", "nll")):
        ours, theirs = ([runs[seed][index] for seed in CUTMIX] for runs in (SMMIX, CUTMIX))
        interval = ttest_rel(ours, theirs).confidence_interval(0.95)
        row = rows[metric, "SMMix"]
        mean, margin = float(row["difference"]), float(row["margin"])
        assert (mean - margin, mean + margin) == pytest.approx(tuple(interval))
        assert row["seeds"] == "4"
    assert float(rows["top1", "SMMix"]["mean"]) == pytest.approx(0.863)
    lines = capsys.readouterr().out.splitlines()
    [accuracy] = [line for line in lines if line.startswith("| top-1 |")]
    [nll] = [line for line in lines if line.startswith("| NLL |")]
    assert accuracy.endswith("**86.30% ± 7.29%** (+2.12% ± 0.40%)\\* |")
    assert float(rows["top1", "SMMix"]["deviation"]) == pytest.approx(
        statistics.stdev(top1 for top1, _ in SMMIX.values())
    )
    assert "\\*" not in nll


def test_one_shared_seed_has_a_difference_without_interval(methods, capsys):
    rows = compare(methods, str(methods / "cutmix"), f"one={methods / 'smmix/version_0'}")
    assert rows["top1", "one"]["margin"] == "nan"
    assert "(+2.00%) |" in capsys.readouterr().out


def test_methods_without_a_shared_seed_and_repeated_seeds_are_errors(methods, capsys):
    other = methods / "smmix/version_9"
    with pytest.raises(SystemExit) as stop:
        compare(methods, str(methods / "cutmix"), f"other={other}")
    assert stop.value.code == 2
    assert "other" in capsys.readouterr().err
    write_run(methods / "cutmix/again", 0, 0.8, 0.7)
    with pytest.raises(SystemExit):
        compare(methods, f"CutMix={methods / 'cutmix'}")
    assert "seed 0" in capsys.readouterr().err
