"""Exponential moving average (EMA) of the weights."""

import warnings
from itertools import chain
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from smmix_pl.base_module import BaseModule
from smmix_pl.callbacks.evaluation.base import on_device
from smmix_pl.callbacks.unsharded import require_unsharded_weights
from smmix_pl.checks import in_range
from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import average_module, averaged_steps, count_step
from smmix_pl.logged_steps import logs_this_step
from smmix_pl.metrics import ReliabilityBins, topk_accuracy
from smmix_pl.models.weights import check_finite_weights
from smmix_pl.module import SMMixModule
from smmix_pl.runs.training_state import mismatch

FULL_PRECISION = ("32-true", "16-mixed", "bf16-mixed")
"""Precisions in which the weights are float32."""


class EMA(WeightAveraging):
    """Maintains EMA weights, which are validated, tested, and saved as the model's weights.

    In a checkpoint, `state_dict` contains the EMA weights. The raw weights are stored separately
    and used only to resume training. Lightning's WeightAveraging would load the raw weights for a
    test after `fit` in the same process.

    The decay of step t is at most (1 + t) / (10 + t), so that a short run is not dominated by the
    initial weights.

    Logged keys:
        `val/...`: Metrics of the EMA weights.
        `val_weights/top1`, `val_weights/loss`, `val_weights/ece`: Metrics of the raw weights, which
            cost a second validation pass.
        `train/ema_decay`: Decay of the step, after warm-up.

    Args:
        decay: Fraction of the EMA weights that is kept at each step, in [0, 1]. DeiT uses 0.99996.
        validate_weights: Also validate the raw weights.
        as_guide: Run the guide pass with the EMA weights (not in the paper).
        warmup: Limit the decay during the first steps. False uses `decay` from the first step.
    """

    def __init__(
        self,
        decay: float = 0.99996,
        validate_weights: bool = True,
        as_guide: bool = False,
        warmup: bool = True,
    ) -> None:
        in_range("EMA.decay", decay, 0, 1, hint="DeiT uses 0.99996")
        super().__init__()
        self.decay = decay
        self.validate_weights = validate_weights
        self.as_guide = as_guide
        self.warmup = warmup

    def decay_at(self, step: int) -> float:
        """Return the decay of an optimizer step, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the weights.

        Raises:
            InputError: The weights are sharded, or not float32.
        """
        require_unsharded_weights(trainer, self)
        if stage == "fit" and trainer.precision not in FULL_PRECISION:
            raise InputError(
                f"trainer.precision={trainer.precision}: EMA needs float32 weights. Use "
                f"{', '.join(FULL_PRECISION)}, or remove EMA from trainer.callbacks."
            )
        model = cast(BaseModule, pl_module)
        if self.as_guide:
            _check_guide(model)
        if self.validate_weights and not model.has_one_class:
            raise InputError(
                f"EMA.validate_weights=true: {model.task} has no class per image. Set it to false."
            )
        with warnings.catch_warnings():
            # about sharded weights, which were rejected above
            warnings.filterwarnings("ignore", ".*doesn't support sharding")
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the weights to average, and use the EMA model for guide passes if requested."""
        average = cast(SMMixModule, average_module(self))
        self._averages, self._weights = _state(average), _state(pl_module)
        self._copies = not averaged_steps(self)
        if self.as_guide:
            cast(SMMixModule, pl_module).set_guide_model(average.backbone)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the EMA weights after an optimizer step. The first update copies the weights."""
        decay = self.decay_at(trainer.global_step - 1)
        if count_step(self, trainer):
            self._update(0.0 if self._copies else decay)
            self._copies = False
        if logs_this_step(trainer):
            logged = torch.full((), float(decay), device=pl_module.device)
            pl_module.log("train/ema_decay", logged)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the EMA weights the model's weights."""
        if self.as_guide:
            cast(SMMixModule, pl_module).set_guide_model(None)
        super().on_train_end(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore EMA and raw weights in `fit`. Elsewhere, `state_dict` is already loaded."""
        if trainer.state.fn == TrainerFn.FITTING:
            if "current_model_state" in checkpoint:
                _check_states(trainer, pl_module, checkpoint)
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In `fit`, swap the EMA weights in."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)
        if self._validates_both(trainer):
            model = cast(BaseModule, pl_module)
            self._loss = on_device(MeanMetric(), model)
            self._ece = on_device(ReliabilityBins(), model)
            accuracy = topk_accuracy(model.num_classes).clone(prefix="val_weights/")
            self._accuracy = accuracy.to(model.device)

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """In `fit`, evaluate the raw weights on the batch."""
        if not self._validates_both(trainer):
            return
        images, classes = batch
        raw = average_module(self).eval()  # the weights are swapped
        with trainer.precision_plugin.forward_context():
            logits = raw(images)
        self._accuracy.update(logits, classes)
        self._ece.update(logits, classes)
        self._loss.update(F.cross_entropy(logits.float(), classes), weight=len(images))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In `fit`, log the metrics of the raw weights and swap them back in."""
        if self._validates_both(trainer):
            loss, ece = self._loss.compute(), self._ece.compute().ece
            # the metrics are already reduced over ranks
            pl_module.log_dict(self._accuracy.compute(), sync_dist=False)
            pl_module.log("val_weights/loss", loss, sync_dist=False)
            pl_module.log("val_weights/ece", ece.float(), sync_dist=False)
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """In `fit`, copy what the module has chosen since the weights were swapped back."""
        if trainer.state.fn == TrainerFn.FITTING:
            for name in cast(BaseModule, pl_module).validated_buffers:
                average_module(self).get_buffer(name).copy_(pl_module.get_buffer(name))

    def _validates_both(self, trainer: Trainer) -> bool:
        return self.validate_weights and trainer.state.fn == TrainerFn.FITTING

    @torch.no_grad()
    def _update(self, decay: float) -> None:
        """Update the EMA weights in place, all in one kernel.

        At each step, torch's AveragedModel would collect all tensors again and wait for the device.
        """
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)


def _check_guide(model: BaseModule) -> None:
    if not isinstance(model, SMMixModule):
        raise InputError(f"EMA.as_guide=true: {model.task} has no guide pass. Set it to false.")
    if model.backbone.guide_config.source == "teacher":
        raise InputError(
            "EMA.as_guide=true: model.guide.source=teacher already guides. Remove one of them."
        )


def _state(module: LightningModule) -> list[Tensor]:
    """Return the parameters and buffers that are averaged, which are those of floating point."""
    tensors = chain(module.parameters(), module.buffers())
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _check_states(trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Check that a checkpoint contains raw weights of this model, and the number of updates.

    Raises:
        InputError: One is missing or corrupt.
    """
    expected = {
        "current_model_state": pl_module.state_dict(),
        "averaging_state": {"n_averaged": torch.zeros(())},
    }
    where = mismatch(expected, checkpoint)
    if where is None:
        for name, weight in expected["current_model_state"].items():
            if checkpoint["current_model_state"][name].shape != weight.shape:
                where = f"current_model_state.{name}"
    if where is not None:
        raise InputError(
            f"--ckpt_path={trainer.ckpt_path}: the state of EMA is missing or corrupt ({where}). "
            "Start a new run from its weights with --model.init_from."
        )
    check_finite_weights(checkpoint["current_model_state"], str(trainer.ckpt_path))
