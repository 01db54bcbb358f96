"""The LightningModule: one training step that reads like the paper, one evaluation step."""

import math
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.scheduler import CosineLRScheduler
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn import functional as F
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from smmix_pl.checks import in_range
from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import reset_step_metrics, skip_finished_epoch
from smmix_pl.losses import consistency_loss, fine_grained_losses, soft_cross_entropy, weighted_sum
from smmix_pl.metrics import OUTLIER, true_classes
from smmix_pl.mixing import Mixed, Mixer, Readout, soft_labels
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.weights import TokenHeadInit, load_weights
from smmix_pl.optim import OptimConfig, create_optimizer, create_schedule, keep_config_settings
from smmix_pl.runs.resume import (
    check_progress,
    follow_moved_folder,
    resume_interrupted_epoch,
)
from smmix_pl.seeding import reseed, run_seed
from smmix_pl.step_timer import span

Batch = tuple[Tensor, Tensor]


class SMMixModule(LightningModule):
    """Trains a timm vision transformer on mixed images, and evaluates it on plain ones.

    Args:
        num_classes: Number of classes; from the data on the command line.
        image_size: (H, W) in pixels; from the data on the command line.
        batch_size: Images per device and step, for the learning rate; from the data on the command
            line.
        mixer: How training images are mixed: SMMix, NoMix, a peer (Mixup, CutMix, MixupCutMix,
            TransMix, TokenMix, MixPro, AttentiveCutMix, SaliencyMix, ResizeMix, FMix, GridMix) or a
            class of your own.
        mean: Channel means that images were normalized with; kept with the weights, for whoever
            prepares images for them. From the data on the command line.
        std: Channel standard deviations, likewise.
        backbone: Any timm model whose last attention map covers one token grid.
        backbone_args: Further arguments of the timm model, such as ``drop_path_rate``.
        pretrained: Start from timm's pretrained weights.
        init_from: Start from the weights in a file, as far as they fit: a checkpoint of ours, the
            authors', an original release of the backbone, or any of timm's. What was not loaded is
            told.
        init_token_head: What ``init_from`` does about a token head that is not in the file: leave
            it ``fresh``, or copy the ``class_head``.
        label_smoothing: In [0, 1).
        fine_grained_weight: Weight of the fine-grained label loss (the paper: 1).
        consistency_weight: Weight of the consistency loss (the paper: 1).
        soft_start_epochs: Epochs over which both weights rise from 0 to their values, an epoch at a
            time; 0 for the same weights throughout (the paper).
        token_head: ``own`` or ``shared`` with the class head; see `Backbone`.
        attention: Whose attention motivates: ``tokens`` or ``class``; see `Backbone`. Null for what
            the mixer goes by: the class token's for TransMix and MixPro, the tokens' for others.
        guide_precision: ``training`` or ``float32``; see `Backbone`.
        guide_mode: ``eval`` or ``train``; see `Backbone`.
        guide_size: Motivate by smaller images; see `Backbone`.
        guide_block: Motivate by an earlier block; see `Backbone`. For mixers that read no logits:
            SMMix without consistency, AttentiveCutMix.
        compile: Run the passes of a training step through `torch.compile`; see `Backbone`.
        optim: Optimizer and schedule.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        batch_size: int,
        mixer: Mixer,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
        backbone: str = "deit_tiny_patch16_224",
        backbone_args: dict[str, Any] | None = None,
        pretrained: bool = False,
        init_from: str | None = None,
        init_token_head: TokenHeadInit = "fresh",
        label_smoothing: float = 0.1,
        fine_grained_weight: float = 1.0,
        consistency_weight: float = 1.0,
        soft_start_epochs: int = 0,
        token_head: Literal["own", "shared"] = "own",
        attention: Readout | None = None,
        guide_precision: Literal["training", "float32"] = "training",
        guide_mode: Literal["eval", "train"] = "eval",
        guide_size: int | tuple[int, int] | None = None,
        guide_block: int | None = None,
        compile: bool = False,
        optim: OptimConfig = OptimConfig(),
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")
        in_range("model.fine_grained_weight", fine_grained_weight, 0)
        in_range("model.consistency_weight", consistency_weight, 0)
        in_range("model.soft_start_epochs", soft_start_epochs, 0)
        if pretrained and init_from:
            raise InputError(f"model.pretrained and model.init_from={init_from}: give one of them")
        if guide_block is not None and mixer.reads_logits:
            raise InputError(
                f"model.guide_block={guide_block} stops before the logits that "
                f"{type(mixer).__name__} reads; set its consistency to false, or leave it out"
            )
        self.save_hyperparameters(logger=False)
        for name in ("mixer", "optim"):  # objects built in Python would put code into checkpoints
            if not isinstance(self.hparams[name], dict):
                del self.hparams[name]
        self.backbone = Backbone(
            backbone,
            num_classes,
            image_size,
            token_head,
            attention or mixer.readout,
            guide_precision,
            guide_mode,
            pretrained,
            backbone_args,
            compile,
            guide_size,
            guide_block,
        )
        if init_from is not None:
            del self.hparams["init_from"]  # a checkpoint of this run does not need the file again
            rank_zero_info(load_weights(self.backbone, init_from, init_token_head))
        self.hparams["pretrained"] = False  # nor timm's weights
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.mixer = mixer
        self.label_smoothing = label_smoothing
        self.loss_weights = {
            "fine_grained_target": fine_grained_weight / 2,
            "fine_grained_source": fine_grained_weight / 2,
            "consistency": consistency_weight,
        }
        self.soft_start_epochs = soft_start_epochs
        self.guide_model: tuple[Backbone] | None = None
        """Motivates in the backbone's place; in a tuple, so that it is no part of this module."""
        self.optim = optim
        self.fitting = False
        self.trained: dict[str, Any] = {}
        """How the weights that were loaded came about: ``mixer`` and ``seed``."""
        self.class_subset: list[int] | None = None
        """The classes in question, where the data that is evaluated has some of them only."""
        self.left_out: Tensor | None
        self.register_buffer("left_out", None, persistent=False)
        self.mixing = ""
        """What was done to the last batch, for whoever has to say which it was."""
        self.loss: Tensor | None = None
        """The last batch's, without gradient and before any scaling."""
        accuracy = MetricCollection(
            {
                f"top{k}": MulticlassAccuracy(
                    num_classes, top_k=k, average="micro", ignore_index=OUTLIER
                )
                for k in (1, min(5, num_classes))
            }
        )
        self.val_accuracy = accuracy.clone(prefix="val/")
        self.test_accuracy = accuracy.clone(prefix="test/")
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    def forward(self, images: Tensor) -> Tensor:
        """Class logits ``(B, K)`` of images ``(B, C, H, W)``; -inf for classes out of question.

        These are the classes that the data under evaluation leaves out, as ImageNet-A, -R and -O
        do. Training does not come here.
        """
        logits: Tensor = self.backbone(images)
        return logits if self.left_out is None else logits.masked_fill(self.left_out, -torch.inf)

    def configure_model(self) -> None:
        """Share the weights out over the devices, where the strategy is `ModelParallelStrategy`.

        They are gathered once a step, for the motivating and the training pass alike: the first
        reads weights of single layers past their forward methods.
        """
        if self.device_mesh is None or isinstance(self, FSDPModule):
            return
        fully_shard(self, mesh=self.device_mesh["data_parallel"])
        for step in ("training_step", "validation_step", "test_step", "predict_step"):
            register_fsdp_forward_method(self, step)

    def setup(self, stage: str) -> None:
        """Hold the model against the data that it is given."""
        self.fitting = stage == "fit"
        classes = getattr(self.trainer.datamodule, "num_classes", self.num_classes)  # type: ignore[attr-defined]
        if classes != self.num_classes:
            raise InputError(
                f"the data has {classes} classes and the model {self.num_classes}; "
                "build the model with num_classes=data.num_classes"
            )
        self.class_subset = getattr(self.trainer.datamodule, "class_subset", None)  # type: ignore[attr-defined]
        self.left_out = None
        if self.class_subset is not None:
            left_out = torch.ones(classes, dtype=torch.bool)
            left_out[self.class_subset] = False
            self.left_out = left_out.to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Forget what the last batch logged: Lightning would log it again where this has none."""
        reset_step_metrics(self.trainer)

    def on_train_start(self) -> None:
        """Mend the progress that was restored."""
        skip_finished_epoch(self.trainer)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mix, forward, losses, log."""
        images, classes = batch
        # Stochastic depth and dropout; each rank has its own
        reseed(run_seed(), 2, self.current_epoch, batch_idx, self.global_rank, devices=True)
        labels = soft_labels(classes, self.num_classes, self.label_smoothing)
        motivator = self.guide_model[0] if self.guide_model else self.backbone
        with torch.no_grad(), span("mix"):
            mixed = self.mixer(images, labels, motivator, self._batch_rng(batch_idx))
        self.mixing = _mixing(self.mixer, mixed)
        losses = self.losses(mixed)
        loss = weighted_sum(losses, self._weights_now())
        self.loss = loss.detach()
        self._log_step(loss, losses, mixed)
        return loss

    def losses(self, mixed: Mixed) -> dict[str, Tensor]:
        """The losses of one mixed batch, unweighted; what the batch carries decides which."""
        relabel = mixed.attentive_labels
        logits, tokens, attention = self.backbone.features(mixed.images, relabel is not None)
        labels = mixed.labels
        if relabel is not None and attention is not None:
            labels = relabel(attention, logits.float())
        losses = {"classification": soft_cross_entropy(logits, labels)}
        if mixed.regions is not None:
            source = mixed.regions.source_mask
            by_region = self.backbone.region_logits(tokens, torch.stack((~source, source), dim=1))
            on_target, on_source = by_region.unbind(dim=1)
            losses |= fine_grained_losses(on_target, on_source, mixed.regions)
        else:
            losses["classification"] = losses["classification"] + self.backbone.unused_token_head()
        if mixed.teacher_logits is not None:
            losses["consistency"] = consistency_loss(logits, mixed.teacher_logits)
        return losses

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics: `fit` cannot update the inference tensors of `Trainer.validate`."""
        self.val_accuracy.reset()
        self.val_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate one batch of the validation set."""
        return self._evaluate(batch, self.val_accuracy, self.val_loss)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics here: a rank without a readable image has no step, but must reduce."""
        self.log_dict(self.val_accuracy, prog_bar=True)
        self.log("val/loss", self.val_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate one batch of the test set."""
        return self._evaluate(batch, self.test_accuracy, self.test_loss)

    def on_test_epoch_start(self) -> None:
        """Reset the metrics."""
        self.test_accuracy.reset()
        self.test_loss.reset()

    def on_test_epoch_end(self) -> None:
        """Log the metrics, on every rank."""
        self.log_dict(self.test_accuracy)
        self.log("test/loss", self.test_loss)

    def predict_step(self, batch: tuple[Tensor, list[str]], batch_idx: int) -> dict[str, Any]:
        """The most probable class of each image, its probability and the image's file."""
        images, files = batch
        probability, label = self(images).float().softmax(dim=1).max(dim=1)
        return {"file": files, "class": label, "probability": probability}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The recipe's optimizer and schedule, at the learning rate of the global batch."""
        trainer = self.trainer
        total_steps = trainer.estimated_stepping_batches
        if math.isinf(total_steps):
            raise InputError(
                "the cosine schedule needs an end: set trainer.max_epochs or trainer.max_steps"
            )
        trainer.fit_loop.setup_data()  # Lightning has not, where max_steps alone sets the end
        accumulate = trainer.accumulate_grad_batches
        global_batch = self.batch_size * trainer.world_size * accumulate
        lr = self.optim.effective_lr(global_batch)
        rises = " (it rises to optim.min_lr, which is above)" if lr < self.optim.min_lr else ""
        rank_zero_info(f"learning rate {lr:.4g} at a global batch of {global_batch}{rises}")
        for logger in self.loggers:
            logger.log_hyperparams({"effective_lr": lr, "global_batch": global_batch})
        # Lightning clips, and unscales what fp16 scaled, between backward and step; fused kernels
        # do the one themselves and know nothing of the other
        fused = not trainer.gradient_clip_val and trainer.scaler is None
        optimizer = create_optimizer(self.backbone, self.optim, lr, fused)
        if int(total_steps) < 1 or trainer.num_training_batches < 1:
            raise InputError(
                f"trainer.max_epochs {trainer.max_epochs}, trainer.max_steps {trainer.max_steps} "
                f"and {trainer.num_training_batches} batches an epoch leave no step to train"
            )
        # Lookahead is no whole optimizer of torch's; the one inside is
        inner = getattr(optimizer, "_base_optimizer", optimizer)
        inner.register_load_state_dict_pre_hook(keep_config_settings)
        steps_per_epoch = math.ceil(trainer.num_training_batches / accumulate)
        schedule = create_schedule(optimizer, self.optim, int(total_steps), steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": self.optim.interval},
        }

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the norms of gradient and weights, at the steps that are logged."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            gradients = [weight.grad for weight in weights if weight.grad is not None]
            norms = {"grad_norm": gradients, "weight_norm": [weight.detach() for weight in weights]}
            self.log_dict({f"train/{name}": get_total_norm(of) for name, of in norms.items()})

    def lr_scheduler_step(self, scheduler: CosineLRScheduler, metric: Any) -> None:
        """Step timm's schedule, which counts for itself in the unit it was made with."""
        scheduler.step(self.current_epoch + 1)
        scheduler.step_update(self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave word of how the weights came about."""
        checkpoint["trained"] = {"mixer": type(self.mixer).__name__, "seed": run_seed()}
        recipe = getattr(self.trainer.datamodule, "eval_recipe", None)  # type: ignore[attr-defined]
        if recipe is not None:
            kept = {"crop_pct": recipe.crop_ratio, "interpolation": recipe.interpolation}
            checkpoint["prepared"] = kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another model before anything is loaded."""
        if self.fitting:
            check_progress(checkpoint)
            follow_moved_folder(self.trainer, checkpoint)
            resume_interrupted_epoch(checkpoint)
            checkpoint["lr_schedulers"] = []  # the schedule follows from the config and the step
        trained = checkpoint.get("trained")
        self.trained = trained if isinstance(trained, dict) else self.trained
        if "state_dict" not in checkpoint:  # ModelParallelStrategy has loaded it itself, strictly
            return
        ours, theirs = self.state_dict(), checkpoint["state_dict"]
        wrong = [
            key
            for key, own in ours.items()
            if key not in theirs
            or own.shape != theirs[key].shape
            or own.is_floating_point() != theirs[key].is_floating_point()
        ]
        if wrong or len(theirs) != len(ours):
            raise InputError(
                f"the checkpoint holds another model than {self.hparams['backbone']} with "
                f"{self.num_classes} classes: {len(wrong)} of {len(ours)} tensors are missing or "
                "differ in shape or type, "
                f"{(wrong or sorted(theirs.keys() - ours.keys()))[0]} among them; "
                "use the config it was trained with"
            )
        self._tell_differences(checkpoint.get("hyper_parameters"))

    def _tell_differences(self, saved: Any) -> None:
        """Warn of settings that shapes do not show, and that change what the weights do."""
        if not isinstance(saved, dict):
            return
        told = [
            f"{name} {saved[name]}, not {self.hparams[name]}"
            for name in ("backbone", "backbone_args", "mean", "std")
            if name in saved and _without_drops(saved[name]) != _without_drops(self.hparams[name])
        ]
        seed = self.trained.get("seed", run_seed())
        if self.fitting and seed != run_seed():
            told.append(f"seed {seed}, not {run_seed()}, so batches and mixing are drawn anew")
        if told:
            rank_zero_warn(f"the checkpoint was trained with {'; '.join(told)}")

    def _batch_rng(self, batch_idx: int) -> np.random.Generator:
        """The same choices on every rank, and again after a resume: nothing has to be saved.

        The global step would stand still while gradients accumulate; epoch and batch index do not.
        """
        return np.random.default_rng((run_seed(), self.current_epoch, batch_idx))

    def _weights_now(self) -> dict[str, float]:
        """The extra losses' weights in this epoch."""
        if self.current_epoch >= self.soft_start_epochs:
            return self.loss_weights
        risen = self.current_epoch / self.soft_start_epochs
        return {name: risen * weight for name, weight in self.loss_weights.items()}

    def _evaluate(
        self, batch: Batch, accuracy: MetricCollection, mean_loss: MeanMetric
    ) -> dict[str, Tensor]:
        images, labels = batch
        logits = self(images)
        classes = true_classes(labels, logits)
        accuracy.update(logits, classes)
        losses = F.cross_entropy(logits.float(), classes, ignore_index=OUTLIER, reduction="none")
        mean_loss.update(losses, weight=classes != OUTLIER)
        return {"logits": logits}

    def _log_step(self, loss: Tensor, losses: dict[str, Tensor], mixed: Mixed) -> None:
        # not with prog_bar, for which Lightning reads them back from the device at every step
        self.log("train/loss", loss.detach())
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log("lr", self._on_device(lr))
        lam = mixed.lam.mean() if isinstance(mixed.lam, Tensor) else self._on_device(mixed.lam)
        self.log_dict(
            {f"train/loss_{name}": value.detach() for name, value in losses.items()}
            | {"train/lam": lam}
            | {f"train/{name}": self._on_device(value) for name, value in mixed.notes.items()}
        )

    def _on_device(self, number: float) -> Tensor:
        """A number to log. Lightning would copy it to the device, and the host wait for that."""
        return torch.full((), number, device=self.device)


def _without_drops(value: Any) -> Any:
    """A setting as what it does in evaluation, where nothing is dropped."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict | None):
        return {k: v for k, v in (value or {}).items() if "drop" not in str(k)}
    return value


def _mixing(mixer: Mixer, mixed: Mixed) -> str:
    """Branch and region side of a batch, in words."""
    notes = (f", {name.replace('_', ' ')} {value:g}" for name, value in mixed.notes.items())
    return f"mixed by {type(mixer).__name__}{''.join(notes)}"
