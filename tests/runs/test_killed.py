"""A real training process that is killed at random moments, and while it writes, finishes."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def logged(run):
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file)]


def read_checkpoint(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("kills", "seed"), [(3, 0), pytest.param(20, 1, marks=pytest.mark.slow)], ids=["3", "20"]
)
def test_one_command_finishes_a_killed_run(tmp_path, kills, seed):
    words = [
        sys.executable,
        str(Path(__file__).parents[1] / "helpers/killed_runs.py"),
        tmp_path,
        kills,
        seed,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=280, env=environment
    )
    assert result.returncode == 0, result.stderr[-3000:]
    outcome = json.loads(result.stdout.splitlines()[-1])
    output = (tmp_path / "killed" / "log.txt").read_text()
    assert (outcome["straight"], outcome["end"]) == (0, 0), output[-3000:]
    assert len(outcome["points"]) == kills
    assert outcome["points"].count("ended") < kills / 2, outcome["points"]
    assert "half a file" in outcome["points"] or kills < 20
    assert "Traceback" not in output

    straight = tmp_path / "straight/runs/small/version_0"
    killed = max(
        (tmp_path / "killed/runs/small").iterdir()
    )  # a run without a checkpoint is not resumed
    assert not list(killed.rglob("*.unfinished"))
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (
            read_checkpoint(straight / "checkpoints" / name),
            read_checkpoint(killed / "checkpoints" / name),
        )
        assert one["global_step"] == other["global_step"]
        for key in ("state_dict", "current_model_state"):
            for weight, value in one[key].items():
                assert torch.equal(value, other[key][weight]), (name, key, weight)
    rows = [
        [(row["step"], row["train/loss"]) for row in logged(run) if row["train/loss"]]
        for run in (straight, killed)
    ]
    assert rows[0] == rows[1]
    validated = [
        [(row["step"], row["val/loss"]) for row in logged(run) if row["val/loss"]]
        for run in (straight, killed)
    ]
    assert validated[0] == validated[1]
