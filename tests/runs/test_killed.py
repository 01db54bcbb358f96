"""A real training process that is killed at random moments, and while it writes, finishes."""

import csv
import random
import time
from pathlib import Path

import pytest
import torch
from helpers import processes
from helpers.small_recipe import FIT, write_recipe


def logged(run):
    with (run / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file)]


def read_checkpoint(path):
    return torch.load(path, weights_only=True)


def half_written(folder: Path) -> list[Path]:
    return list(folder.glob("runs/small/*/checkpoints/*.unfinished"))


def kill_repeatedly(
    words: list[str], folder: Path, kills: int, seed: int, length: float
) -> list[str]:
    """Kill a run at random moments, every second time while it writes a checkpoint.

    Args:
        length: Seconds that the run takes when it is not killed.

    Returns:
        What each kill found: `ended`, `killed`, or `half a file`.
    """
    rng = random.Random(seed)
    longest = length * min(0.5, 3 / kills)  # short enough that the last kills find it running
    points = []
    for number in range(kills):
        run = processes.start(words, folder)
        run.join(rng.uniform(0, longest))
        end = time.monotonic() + length * (number % 2)
        while run.is_alive() and time.monotonic() < end and not half_written(folder):
            time.sleep(0.0002)
        ended = not run.is_alive()
        run.kill()
        run.join()
        points.append("ended" if ended else "half a file" if half_written(folder) else "killed")
    return points


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "seed"),
    [(2, 0), pytest.param(20, 1, marks=pytest.mark.timeout(1800))],
    ids=["2", "20"],
)
def test_one_command_finishes_a_killed_run(tmp_path, kills, seed):
    straight, killed = (write_recipe(tmp_path / name) for name in ("straight", "killed"))
    words = [*FIT, f"--trainer.max_epochs={2 * kills}"]
    processes.run("--help", cwd=tmp_path)  # the server imports before the clock starts
    began = time.monotonic()
    uninterrupted = processes.start(words, straight)
    uninterrupted.join()
    words += ["--ckpt_path=last"]
    points = kill_repeatedly(words, killed, kills, seed, time.monotonic() - began)
    last = processes.start(words, killed)
    last.join()
    output = (killed / "log.err").read_text()
    assert (uninterrupted.exitcode, last.exitcode) == (0, 0), output[-3000:]
    assert points.count("ended") < kills, points
    assert "half a file" in points or kills < 20
    assert "Traceback" not in output

    straight = straight / "runs/small/version_0"
    killed = max((killed / "runs/small").iterdir())  # a run without a checkpoint is not resumed
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
