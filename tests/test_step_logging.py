"""Logged values belong to their own step, and showing them rarely waits for the device."""

import csv

from helpers.small_runs import digits, module, trainer
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from smmix_pl import SMMix
from smmix_pl.callbacks import ThrottledProgressBar, Throughput

OF_ONE_BRANCH = (
    *("train/loss_fine_grained_target", "train/loss_fine_grained_source"),
    *("train/loss_consistency", "train/region_side"),
)


def test_losses_of_one_branch_are_not_logged_for_the_other(tmp_path):
    logger = CSVLogger(tmp_path)
    fit = trainer(tmp_path, max_epochs=1, logger=logger, log_every_n_steps=1, limit_val_batches=1)
    fit.fit(module(SMMix()), digits())
    with (tmp_path / "lightning_logs/version_0/metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/branch"]]
    assert {row["train/branch"] for row in rows} == {"0.0", "1.0"}
    for row in rows:
        pasted = float(row["train/branch"]) == 1
        assert all(bool(row[key]) == pasted for key in OF_ONE_BRANCH)
        assert row["train/loss"]
        assert row["lr"]


class Shown(Callback):
    """Stores the metrics in the progress bar at the end of each step; must come after the bar."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        kept = pl_module.trainer.progress_bar_callback.get_metrics(trainer, pl_module)
        self.steps.append({name: kept.get(name) for name in ("train/loss", "lr")})
        assert not trainer.progress_bar_metrics


def test_the_bar_reads_metrics_at_few_steps_only(tmp_path):
    shown, bar = Shown(), ThrottledProgressBar(refresh_rate=4)
    fit = trainer(
        tmp_path,
        max_steps=9,
        log_every_n_steps=1,
        limit_val_batches=0,
        enable_progress_bar=True,
        callbacks=[Throughput(), bar, shown],
    )
    fit.fit(module(SMMix()), digits())
    losses = [step["train/loss"] for step in shown.steps]
    assert len(losses) == 9
    assert losses[0] == losses[1] == losses[3] != losses[4]
    assert losses[4] == losses[7] != losses[8]
    assert all(step["lr"] > 0 for step in shown.steps)
