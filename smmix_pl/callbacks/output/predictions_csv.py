"""Predictions as a CSV file: file, predicted class, probability."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


class PredictionsCSV(BasePredictionWriter):
    """Writes what ``predict`` finds, one row an image, as it goes.

    Args:
        file: The CSV file; null writes ``predictions.csv`` in the run folder. On several ranks each
            writes its own part, with the rank in its name.
    """

    def __init__(self, file: str | None = None) -> None:
        super().__init__(write_interval="batch")
        self.file = file

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file with its header."""
        path = Path(self.file or Path(trainer.log_dir or ".") / "predictions.csv")
        if trainer.world_size > 1:
            path = path.with_stem(f"{path.stem}_rank{trainer.global_rank}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._append([("file", "class", "probability")], mode="w")

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
        """Append one batch."""
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        labels = [names[label] for label in prediction["class"].tolist()]
        probabilities = [f"{p:.6f}" for p in prediction["probability"].tolist()]
        self._append(list(zip(prediction["file"], labels, probabilities, strict=True)))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the file is."""
        print(f"predictions are in {self.path}")

    def _append(self, rows: list[tuple[str, ...]], mode: Literal["a", "w"] = "a") -> None:
        # A file's name is bytes, which need not be UTF-8; they are written as they are
        with self.path.open(mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows(rows)
