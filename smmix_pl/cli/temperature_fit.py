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
from smmix_pl.downstream import MultiLabel
from smmix_pl.errors import InputError
from smmix_pl.metrics import ReliabilityBins
from smmix_pl.metrics.label_scores import LabelCalibration
from smmix_pl.models.weights import settings_in
from smmix_pl.module import SMMixModule
from smmix_pl.runs.checkpoint_io import read_checkpoint, write_for_evaluation
from smmix_pl.runs.results import EvalResult


class ValidationLogits(Evaluation):
    """Keeps the logits `(N, K)` and labels of the validation images, on the CPU.

    Labels are classes `(N,)`, or `(N, K)` bool if images may have several or none.
    """

    stages = ("val",)
    needs_one_class = False
    includes_outliers = True  # images without labels, which are outliers for one class per image

    def reset(self, trainer: Trainer, model: SMMixModule) -> None:
        """Start without images."""
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def update(self, batch: EvalBatch) -> None:
        """Add a batch."""
        has_one_class = batch.model.has_one_class
        kept = batch.without_outliers() if has_one_class else batch
        self._logits.append(kept.logits.float().cpu())
        self._labels.append((kept.classes if has_one_class else kept.labels).cpu())

    def compute(self, images: int) -> EvalResult:
        """Join the batches. There is nothing to log."""
        self.logits, self.labels = torch.cat(self._logits), torch.cat(self._labels)
        return EvalResult({}, images)


def calibrate(checkpoint: Path, data: ImageData, output: Path, accelerator: str = "auto") -> str:
    """Write a checkpoint whose class head is divided by the temperature fitted on validation data.

    Args:
        checkpoint: Checkpoint of `SMMixModule` or `MultiLabel`. Averaged weights are used if it has
            them.
        data: Dataset with the classes of the model.
        output: Checkpoint to write.
        accelerator: As in Lightning's Trainer.

    Returns:
        Temperature, NLL, and ECE on the validation images before and after.

    Raises:
        InputError: The checkpoint is unsuitable, or its logits are not linear in its class head.
    """
    content = read_checkpoint(checkpoint)
    kind = _kind(content, checkpoint)
    model = kind.load_from_checkpoint(checkpoint, weights_only=True, map_location="cpu")
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
    logits, labels = kept_logits.logits, kept_logits.labels
    temperature = fit_temperature(logits, labels)
    weights = content["state_dict"]
    for name in _class_head(model.cpu(), temperature):
        weights[name] = weights[name] / temperature
    if isinstance(model, MultiLabel):
        weights["thresholds"] = (model.thresholds.logit() / temperature).sigmoid()
    write_for_evaluation(content | {"temperature": temperature}, output)
    return (
        f"Temperature {temperature:.3f} on {len(labels):,} validation images: "
        f"{_calibration(logits, labels)} before, "
        f"{_calibration(logits / temperature, labels)} after. Wrote {output}."
    )


def _kind(content: dict[str, Any], checkpoint: Path) -> type[SMMixModule]:
    """Return the class of the model in a checkpoint."""
    path = str(settings_in(content, checkpoint).get("_class_path", ""))
    name = path.removeprefix("smmix_pl.downstream.")
    if name not in (path, MultiLabel.__name__):
        raise InputError(
            f"{checkpoint}: a {name}, which has no temperature. Calibrate an SMMixModule or a "
            "MultiLabel."
        )
    return MultiLabel if name == MultiLabel.__name__ else SMMixModule


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature in [1/8, 8] with the highest likelihood.

    Args:
        logits: `(N, K)`; -inf for classes that the dataset excludes.
        labels: True classes, `(N,)`, or labels `(N, K)` bool, which the sigmoid of each logit
            predicts.
    """

    def nll(log_temperature: float) -> float:
        return float(_nll(logits.double() / math.exp(log_temperature), labels))

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


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return F.cross_entropy(logits, labels)


def _calibration(logits: Tensor, labels: Tensor) -> str:
    """Return NLL and ECE in words."""
    nll = f"NLL {float(_nll(logits, labels)):.4f}"
    if labels.ndim == 2:
        of_labels = LabelCalibration(labels.shape[1])
        of_labels.update(logits.sigmoid(), labels)
        return f"{nll}, label ECE {float(of_labels.compute()):.2%}"
    bins = ReliabilityBins()
    bins.update(logits, labels)
    return f"{nll}, ECE {float(bins.compute().ece):.2%}"
