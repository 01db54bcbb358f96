"""Logged values belong to their own step, and showing them rarely waits for the device."""

import csv

from helpers.small_runs import digits, module, trainer
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


class RecordingBar(ThrottledProgressBar):
    """Stores the steps after which it reads metrics, and these metrics."""

    def __init__(self, refresh_rate):
        super().__init__(refresh_rate)
        self.read = {}

    def get_metrics(self, trainer, pl_module):
        metrics = super().get_metrics(trainer, pl_module)
        self.read[trainer.global_step] = metrics
        return metrics


def test_the_bar_reads_metrics_at_few_steps_only(tmp_path):
    bar = RecordingBar(refresh_rate=4)
    fit = trainer(
        tmp_path,
        max_steps=9,
        log_every_n_steps=1,
        limit_val_batches=0,
        enable_progress_bar=True,
        callbacks=[Throughput(), bar],
    )
    fit.fit(module(SMMix()), digits())
    assert list(bar.read) == [4, 8, 9]  # 9 ends the epoch
    assert len({metrics["loss"] for metrics in bar.read.values()}) == 3
    assert not fit.progress_bar_metrics
