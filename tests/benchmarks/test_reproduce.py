"""Targets of the published results table on generated data, from the command to the row."""

import subprocess
from pathlib import Path

import pytest
from helpers import processes

ROOT = Path(__file__).parents[2]
OTHER_TARGETS = ["cifar100", "cifar100-occlusion", "cifar100-ece", "cars", "aircraft", "imagenet"]


def reproduce(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    return processes.run(ROOT / "benchmarks/reproduce.py", *words, cwd=cwd)


def row_of(target: str, *words: str, cwd: Path) -> list[str]:
    result = reproduce(target, "--smoke", *words, cwd=cwd)
    assert result.returncode == 0, result.stderr[-2000:]
    return [cell.strip() for cell in result.stdout.splitlines()[-1].strip("|").split("|")]


@pytest.mark.slow
def test_target_prints_its_row(tmp_path):
    row = row_of("cub", cwd=tmp_path)
    target, variant, metric, published, measured, seeds, differences, config, runs = row
    assert (target, variant, metric, published) == ("cub", "authors", "top-1", "88.35")
    assert 0 <= float(measured) <= 100
    assert seeds == "0"
    assert "reduced" in differences  # the variant that was published
    assert "cub" in config
    assert runs.endswith("runs/cub-authors")


@pytest.mark.slow
@pytest.mark.parametrize("target", OTHER_TARGETS)
def test_every_target_prints_its_row(target, tmp_path):
    row = row_of(target, "--variant", "reduced", "--seeds", "0", "1", cwd=tmp_path)
    assert row[:2] == [target, "reduced"]
    assert row[5] == "0 1"
    assert "±" in row[4]
    assert "reduced" not in row[6]


def test_make_lists_every_target():
    listed = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    for target in ["cub", *OTHER_TARGETS, "table"]:
        assert f"make bench-{target} " in listed


def test_missing_data_names_the_option(tmp_path):
    result = reproduce("cars", cwd=tmp_path)
    assert result.returncode == 2
    assert "--data=None" in result.stderr
