"""Predictions as a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from smmix_pl.data.trainer_datamodule import require_image_data


class PredictionsCSV(BasePredictionWriter):
    """Writes one row per image during `predict`: file, predicted class, probability.

    Args:
        file: Path of the CSV file. Null writes `predictions.csv` in the run folder. With several
            ranks, each writes its own file, with the rank in its name.
    """

    def __init__(self, file: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.file = file

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the file and write its header."""
        path = Path(self.file or Path(trainer.log_dir or ".") / "predictions.csv")
        if trainer.world_size > 1:
            path = path.with_stem(f"{path.stem}_rank{trainer.global_rank}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._write([("file", "class", "probability")], mode="w")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append the predictions of one batch."""
        names = require_image_data(trainer).class_names
        labels = [names[label] for label in prediction["class"].tolist()]
        probabilities = [f"{p:.6f}" for p in prediction["probability"].tolist()]
        self._write(list(zip(prediction["file"], labels, probabilities, strict=True)))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the path of the file."""
        print(f"Predictions: {self.path}")

    def _write(self, rows: list[tuple[str, ...]], mode: Literal["a", "w"] = "a") -> None:
        # file names are bytes that need not be UTF-8
        with self.path.open(mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows(rows)
