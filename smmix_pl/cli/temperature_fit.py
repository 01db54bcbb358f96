"""Temperature scaling (Guo et al., 2017), stored in the class head of a checkpoint."""

import math
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from smmix_pl.callbacks.evaluation.base import EvalBatch, Evaluation
from smmix_pl.cli.quiet_libraries import quiet_libraries
from smmix_pl.data import ImageData
from smmix_pl.errors import InputError
from smmix_pl.metrics import ReliabilityBins
from smmix_pl.module import SMMixModule
from smmix_pl.runs.checkpoint_io import read_checkpoint, write_for_evaluation
from smmix_pl.runs.results import EvalResult


class ValidationLogits(Evaluation):
    """Keeps the logits `(N, K)` and classes `(N,)` of the validation images, on the CPU."""

    stages = ("val",)

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Start without images."""
        self._logits: list[Tensor] = []
        self._classes: list[Tensor] = []

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        self._logits.append(batch.logits.float().cpu())
        self._classes.append(batch.classes.cpu())

    def compute(self, images: int) -> EvalResult:
        """Join the batches. There is nothing to log."""
        self.logits, self.classes = torch.cat(self._logits), torch.cat(self._classes)
        return EvalResult({}, images)


def calibrate(checkpoint: Path, data: ImageData, output: Path, accelerator: str = "auto") -> str:
    """Write a checkpoint whose class head is divided by the temperature fitted on validation data.

    Args:
        checkpoint: Checkpoint of `SMMixModule`. Averaged weights are used if it has them.
        data: Dataset with the classes of the model.
        output: Checkpoint to write.
        accelerator: As in Lightning's Trainer.

    Returns:
        Temperature, NLL, and ECE on the validation images before and after.

    Raises:
        InputError: The checkpoint is unsuitable, or its logits are not linear in its class head.
    """
    content = read_checkpoint(checkpoint)
    model = SMMixModule.load_from_checkpoint(checkpoint, weights_only=True, map_location="cpu")
    kept_logits = ValidationLogits()
    with quiet_libraries():
        trainer = Trainer(
            accelerator=accelerator,
            devices=1,
            callbacks=[kept_logits],
            logger=False,
            enable_checkpointing=False,
        )
        trainer.validate(model, datamodule=data, verbose=False)
    logits, classes = kept_logits.logits, kept_logits.classes
    temperature = fit_temperature(logits, classes)
    weights = content["state_dict"]
    for name in _class_head(model.cpu(), temperature):
        weights[name] = weights[name] / temperature
    write_for_evaluation(content | {"temperature": temperature}, output)
    return (
        f"Temperature {temperature:.3f} on {len(classes):,} validation images: "
        f"{_calibration(logits, classes)} before, "
        f"{_calibration(logits / temperature, classes)} after. Wrote {output}."
    )


def fit_temperature(logits: Tensor, classes: Tensor) -> float:
    """Return the temperature in [1/8, 8] with the highest likelihood.

    Args:
        logits: `(N, K)`; -inf for classes that the dataset excludes.
        classes: True classes, `(N,)`.
    """

    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_temperature), classes))

    found = minimize_scalar(nll, bounds=(-math.log(8), math.log(8)), method="bounded")
    return math.exp(found.x)


def _class_head(model: SMMixModule, temperature: float) -> list[str]:
    """Return the names of the class head's weights, which scale the logits.

    Raises:
        InputError: Dividing them by a number does not divide the logits by it.
    """
    classifier = cast(Any, model.backbone.model).get_classifier()
    heads: tuple[nn.Module, ...] = classifier if isinstance(classifier, tuple) else (classifier,)
    scaled = {id(weight): weight for head in heads for weight in head.parameters()}
    images = torch.randn(2, 3, *model.hparams["image_size"])
    model.eval()
    with torch.no_grad():
        before = model.backbone(images)
        for weight in scaled.values():
            weight.div_(temperature)
        after = model.backbone(images)
    if not torch.allclose(after * temperature, before, rtol=1e-3, atol=1e-4):
        raise InputError(
            f"model.backbone={model.hparams['backbone']}: its logits are not linear in its class "
            "head, so that a temperature cannot be stored there. Use TemperatureScaling in a test."
        )
    return [name for name, weight in model.named_parameters() if id(weight) in scaled]


def _calibration(logits: Tensor, classes: Tensor) -> str:
    """Return NLL and ECE in words."""
    bins = ReliabilityBins()
    bins.update(logits, classes)
    nll = float(F.cross_entropy(logits, classes))
    return f"NLL {nll:.4f}, ECE {float(bins.compute().ece):.2%}"
