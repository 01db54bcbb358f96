"""What every LightningModule of this package shares: optimizer, schedule, and checkpoint checks."""

import math
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import is_attached, skip_finished_epoch
from smmix_pl.logged_steps import logs_next_step
from smmix_pl.optim import OptimConfig, create_optimizer, create_schedule, keep_config_settings
from smmix_pl.runs.checkpoint_checks import check_weights, prepare_resume, provenance
from smmix_pl.runs.results import UNKNOWN
from smmix_pl.runs.schedule_warnings import warn_of_schedule


class BaseModule(LightningModule):
    """Optimizer, schedule by the global batch size, and resuming. A subclass sets the attributes.

    Attributes:
        backbone: Network with a token `grid`, whose parameters are counted in reports.
        num_classes: Number of classes of the data.
        batch_size: Images per device and step, for the learning rate.
        optim: Optimizer and learning-rate schedule.
        has_trained_head: The weights that the module starts from include its head.
        has_one_class: Images have one class each, and `forward` returns its logits.
        provenance: Mixer and seed that the loaded weights were trained with.
        task: Name of what the module does, in reports.
        validated_buffers: Names of buffers that are set at the end of a validation.
        notes: Numbers about the last training batch, for errors, such as its branch.
    """

    backbone: Any
    num_classes: int
    batch_size: int
    optim: OptimConfig
    has_trained_head = False
    has_one_class = False
    task = "classification"
    validated_buffers: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.provenance: dict[str, Any] = {}
        self.notes: dict[str, float] = {}

    @property
    def trained_part(self) -> nn.Module:
        """Network that the optimizer trains."""
        network: nn.Module = self.backbone
        return network

    @property
    def method(self) -> str:
        """Mixer that the weights were trained with, for reports; `UNKNOWN` if no file states it."""
        return str(self.provenance.get("mixer", UNKNOWN))

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all devices and accumulated batches."""
        trainer = self.trainer
        return self.batch_size * trainer.world_size * trainer.accumulate_grad_batches

    def on_train_start(self) -> None:
        """Correct the restored progress counters."""
        skip_finished_epoch(self.trainer)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create optimizer and schedule for the learning rate of the global batch size."""
        trainer = self.trainer
        total_steps = trainer.estimated_stepping_batches
        if math.isinf(total_steps):
            raise InputError(
                f"trainer.max_epochs={trainer.max_epochs}: the schedule needs an end. Set "
                "trainer.max_epochs or trainer.max_steps."
            )
        trainer.fit_loop.setup_data()  # Lightning has not done so if only max_steps sets the end
        if math.isinf(trainer.num_training_batches):
            raise InputError(
                f"trainer.limit_train_batches={trainer.limit_train_batches}: the training data has "
                "no length. Set the number of batches per epoch."
            )
        if int(total_steps) < 1 or trainer.num_training_batches < 1:
            raise InputError(
                f"trainer.max_epochs={trainer.max_epochs}: leaves no step to train, with "
                f"trainer.max_steps={trainer.max_steps} and {trainer.num_training_batches} batches "
                "per epoch. Raise one of them."
            )
        lr = self.optim.effective_lr(self.global_batch)
        steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        warn_of_schedule(self.optim, lr, int(total_steps), steps_per_epoch)
        for logger in self.loggers:
            logger.log_hyperparams({"effective_lr": lr, "global_batch": self.global_batch})
        # Lightning clips gradients, and unscales them under fp16, between backward and step. Fused
        # kernels do not support that.
        fused = not trainer.gradient_clip_val and trainer.scaler is None
        optimizer = create_optimizer(self.trained_part, self.optim, lr, fused)
        # Lookahead is not a complete torch optimizer; the one inside is
        inner = getattr(optimizer, "_base_optimizer", optimizer)
        inner.register_load_state_dict_pre_hook(keep_config_settings)
        schedule = create_schedule(optimizer, self.optim, int(total_steps), steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.optim.interval},
        }

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the norms of gradients and weights."""
        if logs_next_step(self.trainer):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            norms = {"grad_norm": gradients, "weight_norm": [weight.detach() for weight in weights]}
            self.log_dict({f"train/{name}": get_total_norm(of) for name, of in norms.items()})

    def lr_scheduler_step(self, scheduler: Scheduler, metric: Any) -> None:
        """Step timm's schedule, which counts in the unit that it was created with."""
        scheduler.step(self.current_epoch + 1)
        scheduler.step_update(self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reject an unsuitable checkpoint before anything is loaded."""
        if is_attached(self) and self.trainer.state.fn == TrainerFn.FITTING:
            prepare_resume(self, checkpoint)
        self.provenance = provenance(checkpoint)
        if "state_dict" in checkpoint:  # ModelParallelStrategy has loaded it itself, strictly
            check_weights(self, checkpoint)

    def on_device(self, number: float) -> Tensor:
        """Return a number as a tensor; Lightning would copy it and wait for the device."""
        return torch.full((), number, device=self.device)
