"""The targets of the published results table, on generated data: from make to the row."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHERS = ["cifar100", "cifar100-occlusion", "cifar100-ece", "cars", "aircraft", "imagenet"]


def reproduce(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks/reproduce.py"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


def row_of(target: str, *words: str, cwd: Path) -> list[str]:
    result = reproduce(target, "--smoke", *words, cwd=cwd)
    assert result.returncode == 0, result.stderr[-2000:]
    return [cell.strip() for cell in result.stdout.splitlines()[-1].strip("|").split("|")]


def test_a_target_ends_with_its_row(tmp_path):
    row = row_of("cub", cwd=tmp_path)
    target, variant, metric, published, ours, seeds, differences, config, runs = row
    assert (target, variant, metric, published) == ("cub", "authors", "top-1", "88.35")
    assert 0 <= float(ours) <= 100
    assert seeds == "0"
    assert "published with the reduced SMMix" in differences
    assert "cub" in config
    assert runs.endswith("runs/cub-authors")


@pytest.mark.slow
@pytest.mark.parametrize("target", OTHERS)
def test_every_target_ends_with_its_row(target, tmp_path):
    row = row_of(target, "--variant", "reduced", "--seeds", "0", "1", cwd=tmp_path)
    assert row[:2] == [target, "reduced"]
    assert row[5] == "0 1"
    assert "±" in row[4]
    assert "published with the reduced SMMix" not in row[6]


def test_make_names_every_target():
    told = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True).stdout
    for target in ["cub", *OTHERS, "table"]:
        assert f"make bench-{target} " in told


def test_missing_data_is_told(tmp_path):
    result = reproduce("cars", cwd=tmp_path)
    assert result.returncode == 2
    assert "DATA=DIR" in result.stderr
