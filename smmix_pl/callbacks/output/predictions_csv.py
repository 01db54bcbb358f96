"""Predictions as a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from smmix_pl.checks import in_range
from smmix_pl.data.trainer_datamodule import require_image_data


class PredictionsCSV(BasePredictionWriter):
    """Writes one row per image during `predict`: file, predicted class, probability.

    Args:
        file: Path of the CSV file. Null writes `predictions.csv` in the run folder. With several
            ranks, each writes its own file, with the rank in its name.
        top_k: Number of most probable classes in a row. Those after the first are in the columns
            `class_2`, `probability_2`, and so on.
        all_probabilities: Add one column per class, with its name, for its probability.
    """

    def __init__(
        self, file: str | None = None, top_k: int = 1, all_probabilities: bool = False
    ) -> None:
        super().__init__(write_interval="batch")
        in_range("PredictionsCSV.top_k", top_k, 1)
        self.top_k = top_k
        self.all_probabilities = all_probabilities
        self.file = file

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the file and write its header."""
        path = Path(self.file or Path(trainer.log_dir or ".") / "predictions.csv")
        if trainer.world_size > 1:
            path = path.with_stem(f"{path.stem}_rank{trainer.global_rank}")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        names = require_image_data(trainer).class_names
        in_range("PredictionsCSV.top_k", self.top_k, 1, len(names), "The data has no more classes")
        header = ["file", "class", "probability"]
        for place in range(2, self.top_k + 1):
            header += [f"class_{place}", f"probability_{place}"]
        self._write([header + (list(names) if self.all_probabilities else [])], mode="w")

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
        best = prediction["probabilities"].topk(self.top_k, dim=1)
        rows = []
        for file, values, labels, probabilities in zip(
            prediction["file"],
            best.values.tolist(),
            best.indices.tolist(),
            prediction["probabilities"].tolist(),
            strict=True,
        ):
            row = [file]
            for label, value in zip(labels, values, strict=True):
                row += [names[label], f"{value:.6f}"]
            if self.all_probabilities:
                row += [f"{probability:.6f}" for probability in probabilities]
            rows.append(row)
        self._write(rows)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the path of the file."""
        print(f"Predictions: {self.path}")

    def _write(self, rows: list[list[str]], mode: Literal["a", "w"] = "a") -> None:
        # file names are bytes that need not be UTF-8
        with self.path.open(mode, newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows(rows)
