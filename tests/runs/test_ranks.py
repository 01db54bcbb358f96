"""Several processes on gloo: one log, one checkpoint, the same metrics, and one exit."""

import csv
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from helpers import processes, small_recipe

from smmix_pl.runs.slurm import JOB_FILE

DYING = """
import os
import signal

from lightning.pytorch import Callback


class Dying(Callback):
    def __init__(self, rank: int, killed: bool) -> None:
        self.rank, self.killed = rank, killed

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_rank == self.rank and batch_idx == 2:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError(f"broken on rank {self.rank}")


class Stopping(Callback):
    def __init__(self, hook: str, number: int) -> None:
        self.number = number
        setattr(self, hook, self.send)

    def send(self, trainer, *_, **__):
        if trainer.global_rank == 1 and self.number:
            os.kill(os.getpid(), self.number)
            self.number = 0


class Poisoning(Callback):
    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_rank == 1 and trainer.fit_loop.batch_idx == 2:
            loss.data.fill_(float("nan"))
"""


FIT = ("fit", "--config", "digits.yaml", "--name", "digits")
SMALL = "--model.backbone_args={patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}"


def write_callbacks(folder: Path) -> None:
    """Write the small recipe and the callbacks that it can name."""
    (small_recipe.write_recipe(folder) / "dying.py").write_text(DYING)


def local_callbacks(folder: Path) -> dict[str, str | None]:
    """Return an environment in which every rank finds the callbacks of a folder."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "SMMIX_PACKAGES": "dying"}


def on(ranks: int) -> list[str]:
    return [f"--trainer.devices={ranks}", "--trainer.strategy=ddp"]


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def evaluated(rows: list[dict[str, str]]) -> dict[str, float]:
    [row] = [row for row in rows if row.get("test/top1")]
    return {key: float(value) for key, value in row.items() if key.startswith("test/")}


@pytest.fixture(
    scope="module",
    params=[
        "2, as torchrun starts them",
        pytest.param("2, started by Lightning", marks=pytest.mark.slow),
        pytest.param("3, started by Lightning", marks=pytest.mark.slow),
    ],
)
def trained(request, tmp_path_factory):
    """The folder of a run on several ranks, by a user without a W&B account, and its output."""
    folder, ranks = tmp_path_factory.mktemp("ranks"), int(request.param[0])
    words = [
        *(*FIT, "--trainer.max_epochs=1", *on(ranks)),
        *("--trainer.limit_train_batches=6", "--trainer.log_every_n_steps=1"),
        *("--test_after_fit=false", "--trainer.check_val_every_n_epoch=1", SMALL),
    ]
    env = {"WANDB_MODE": None, "HOME": str(folder), "NETRC": str(folder / "none")}
    env |= {"SLURM_JOB_ID": "17"}
    if "torchrun" in request.param:
        results = processes.run_ranks(ranks, *words, cwd=folder, env=env)
    else:
        results = [processes.run(*words, cwd=folder, env=env)]
    for result in results:
        assert result.returncode == 0, result.stderr[-2000:]
    return folder, ranks, results[0].stdout


def test_all_ranks_write_one_log_one_checkpoint_and_one_wandb_run(trained):
    folder, ranks, output = trained
    assert [path.name for path in (folder / "runs/digits").iterdir()] == ["version_0"]
    run = folder / "runs/digits/version_0"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / JOB_FILE).read_text() == "17"
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6
    steps = [int(row["step"]) for row in metrics(run) if row["train/loss"]]
    assert steps == list(range(6))
    assert f"{32 * ranks} images" in output  # the global batch size
    assert len(list((folder / "runs/wandb").glob("offline-run-*/*.wandb"))) == 1


@pytest.mark.slow
def test_all_ranks_evaluate_every_image_once(trained):
    """The test images are no multiple of the batch size, on one rank or all."""
    folder, ranks, _ = trained
    words = ["test", *FIT[1:], SMALL, "--data.batch_size=50"]
    words += ["--ckpt_path", "runs/digits/version_0/checkpoints/last.ckpt"]
    numbers = []
    for count in (1, ranks):
        for result in processes.run_ranks(count, *words, *on(count), cwd=folder):
            assert result.returncode == 0, result.stderr[-2000:]
        newest = max((folder / "runs/digits").iterdir(), key=lambda path: path.name)
        numbers.append(evaluated(metrics(newest)))
    one, many = numbers
    assert one.keys() == many.keys() >= {"test/top1", "test/top5", "test/ece", "test/loss"}
    assert "test/occlusion_50" in one
    for key, value in one.items():
        assert many[key] == pytest.approx(value, abs=1e-6), key


@pytest.mark.slow
@pytest.mark.parametrize("action", ["stop", "skip"])
def test_the_rank_with_the_non_finite_loss_is_named(tmp_path, action):
    (tmp_path / "dying.py").write_text(DYING)
    result = processes.run(
        *(*FIT, "--trainer.max_epochs=1", *on(2)),
        *("--trainer.callbacks+=dying.Poisoning", "--trainer.limit_train_batches=4"),
        *("--finite.action", action, "--test_after_fit=false"),
        cwd=tmp_path,
        env=local_callbacks(tmp_path),
    )
    assert (result.returncode == 0) == (action == "skip")
    output = " ".join(result.stderr.split())
    for part in ("train/loss=nan", "epoch 0, batch 2", "(rank 1,"):
        assert part in output
    assert "(rank 0," not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "dies", "killed"),
    [(2, 1, True), (2, 1, False), (2, 0, True), (2, 0, False), (3, 2, True)],
)
def test_a_rank_that_dies_ends_the_job(tmp_path, ranks, dies, killed):
    write_callbacks(tmp_path)
    result = processes.run(
        *(*small_recipe.FIT, "--trainer.max_epochs=1", *on(ranks)),
        *("--trainer.callbacks+=dying.Dying", f"--trainer.callbacks.rank={dies}"),
        f"--trainer.callbacks.killed={str(killed).lower()}",
        cwd=tmp_path,
        env=local_callbacks(tmp_path),
    )
    assert result.returncode != 0
    end = " ".join(result.stderr.strip().splitlines()[-3:])
    if not killed:
        assert f"broken on rank {dies}" in end, result.stderr[-3000:]
    elif dies == 0:
        assert result.returncode == -signal.SIGKILL
    else:
        # the rank that waits for the dead one notices first, or the process that started both
        assert re.search(f"Rank {dies}.*SIGKILL|terminated with code -9", end), result.stderr[
            -3000:
        ]


@pytest.mark.slow
def test_the_cause_and_the_last_good_checkpoint_are_printed_last(tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    words = [*FIT, "--trainer.limit_train_batches=4", *on(2)]
    words += ["--trainer.check_val_every_n_epoch=1", "--test_after_fit=false"]
    env = local_callbacks(tmp_path)
    first = processes.run(*words, "--trainer.max_epochs=1", cwd=tmp_path, env=env)
    assert first.returncode == 0, first.stderr[-3000:]
    result = processes.run(
        *(*words, "--trainer.max_epochs=2", "--ckpt_path=last"),
        *("--trainer.callbacks+=dying.Dying", "--trainer.callbacks.rank=1"),
        "--trainer.callbacks.killed=false",
        cwd=tmp_path,
        env=env,
    )
    assert result.returncode != 0
    end = " ".join(result.stderr.strip().splitlines()[-3:])
    assert "broken on rank 1" in end, result.stderr[-3000:]
    assert "runs/digits/version_0/checkpoints/last.ckpt" in end


def stopping(hook: str, number: signal.Signals) -> list[str]:
    """Return options of a short run on two ranks, in which a hook stops rank 1."""
    return [
        *(*small_recipe.FIT, *on(2), "--trainer.max_epochs=1", "--trainer.limit_train_batches=3"),
        *("--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2"),
        "--test_after_fit=true",
        *("--trainer.callbacks+=dying.Stopping", f"--trainer.callbacks.hook={hook}"),
        f"--trainer.callbacks.number={int(number)}",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "number"),
    [
        ("setup", signal.SIGTERM),
        ("on_sanity_check_start", signal.SIGUSR1),
        ("on_validation_batch_start", signal.SIGTERM),
        ("on_save_checkpoint", signal.SIGTERM),
        ("on_train_end", signal.SIGUSR1),
        ("on_fit_end", signal.SIGTERM),
        ("on_test_batch_start", signal.SIGTERM),
        ("on_test_end", signal.SIGTERM),
    ],
)
def test_a_signal_to_one_rank_in_any_phase_stops_the_run(tmp_path, hook, number):
    write_callbacks(tmp_path)
    result = processes.run(*stopping(hook, number), cwd=tmp_path, env=local_callbacks(tmp_path))
    assert result.returncode == 75, result.stderr[-3000:]
    assert "Stopped by SIG" in result.stderr.strip().splitlines()[-1], result.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    "hook", [pytest.param("on_sanity_check_start", marks=pytest.mark.slow), "on_test_batch_start"]
)
def test_a_signal_to_one_rank_stops_ranks_that_another_program_started(tmp_path, hook):
    write_callbacks(tmp_path)
    results = processes.run_ranks(
        2, *stopping(hook, signal.SIGTERM), cwd=tmp_path, env=local_callbacks(tmp_path)
    )
    for result in results:
        assert result.returncode == 75, result.stderr[-3000:]
        assert "Stopped by SIGTERM" in result.stderr.strip().splitlines()[-1]
