"""The LightningModule: a training step that reads like the paper, and an evaluation step."""

from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection

from smmix_pl.base_module import BaseModule
from smmix_pl.data.datamodule import ImageData
from smmix_pl.data.trainer_datamodule import image_data
from smmix_pl.errors import InputError
from smmix_pl.lightning_internals import reset_step_metrics
from smmix_pl.logged_steps import logs_next_step
from smmix_pl.losses import Distillation, LossConfig, SMMixLoss, label_loss
from smmix_pl.metrics import OUTLIER, topk_accuracy, true_classes
from smmix_pl.mixing import GuideModel, Mixed, Mixer, soft_labels
from smmix_pl.models.backbone import Backbone
from smmix_pl.models.freezing import freeze
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.teacher import Teacher, TeacherConfig
from smmix_pl.models.weights import TokenHeadInit, load_weights
from smmix_pl.optim import OptimConfig
from smmix_pl.runs.checkpoint_checks import check_weight_sources
from smmix_pl.seeding import reseed, run_seed
from smmix_pl.step_timer import span

Batch = tuple[Tensor, Tensor]


class SMMixModule(BaseModule):
    """Trains a timm vision transformer on mixed images and evaluates it on plain ones.

    Args:
        num_classes: Number of classes. Set by the data on the command line.
        image_size: (height, width) in pixels. Set by the data on the command line.
        batch_size: Images per device and step, for the learning rate. Set by the data on the
            command line.
        mixer: How training images are mixed: SMMix, another mixer of this package, or a class of
            your own.
        mean: Channel means of the normalization, stored with the weights. Set by the data on the
            command line.
        std: Channel standard deviations of the normalization. Set by the data on the command line.
        backbone: Name of a timm model whose last attention map covers one token grid. With
            `guide.readout=similarity`, of any model with image tokens.
        backbone_args: Further arguments of `timm.create_model`, such as `drop_path_rate`.
        pretrained: Start from timm's pretrained weights.
        init_from: Start from the weights in a file, as far as they fit: a checkpoint of a run, the
            authors' release, an original release of the backbone, or a timm file. Keys that were
            not loaded are logged.
        init_image_size: (height, width) that the position embeddings in `init_from` were trained
            with. `null` infers it from the file; an error asks for it where that is ambiguous.
        init_token_head: Initialization of a token head that `init_from` does not hold: `fresh`, or
            a copy of the `class_head`.
        token_head: `own` is a second linear classifier for the tokens of a region, as in the
            authors' code. `shared` uses the class head.
        compile: Run the training pass through `torch.compile`, and the guide pass of plain ViTs, of
            PVT, and by similarity.
        grad_checkpointing: Recompute the activations of each block in the backward pass, which
            saves memory and costs time.
        frozen: Weights that do not train: a number of layers from the input, of which the first is
            the stem, or shell patterns of names, such as `model.patch_embed.*`.
        guide: Settings of the guide pass.
        teacher: Frozen model for `losses.distillation` or `guide.source=teacher`.
        losses: Loss settings.
        optim: Optimizer and learning-rate schedule.
    """

    backbone: Backbone
    has_one_class = True

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
        init_image_size: tuple[int, int] | None = None,
        init_token_head: TokenHeadInit = "fresh",
        token_head: Literal["own", "shared"] = "own",
        compile: bool = False,
        grad_checkpointing: bool = False,
        frozen: int | list[str] = 0,
        guide: GuideConfig = GuideConfig(),
        teacher: TeacherConfig | None = None,
        losses: LossConfig = LossConfig(),
        optim: OptimConfig = OptimConfig(),
    ) -> None:
        super().__init__()
        # load_from_checkpoint passes settings as stored dicts
        guide = GuideConfig(**guide) if isinstance(guide, dict) else guide
        losses = LossConfig(**losses) if isinstance(losses, dict) else losses
        optim = OptimConfig(**optim) if isinstance(optim, dict) else optim
        check_weight_sources(pretrained, init_from)
        check_teacher(teacher, guide, losses)
        if guide.block is not None and mixer.reads_logits:
            raise InputError(
                f"model.guide.block={guide.block}: {type(mixer).__name__} needs the logits of a "
                "complete guide pass. Set model.mixer.consistency=false or remove the option."
            )
        self.save_hyperparameters(logger=False)
        self._make_settings_plain()
        self.backbone = Backbone(
            backbone,
            num_classes,
            image_size,
            token_head=token_head,
            guide=replace(guide, readout=guide.readout or mixer.readout),
            pretrained=pretrained,
            model_args=backbone_args,
            compile=compile,
        )
        mixer.check_grid(self.backbone.grid)
        if init_from is not None:
            rank_zero_info(load_weights(self.backbone, init_from, init_token_head, init_image_size))
        trained_classes = self.backbone.model.pretrained_cfg.get("num_classes")
        is_trained = pretrained or init_from is not None
        self.has_trained_head = is_trained and trained_classes == num_classes
        if grad_checkpointing:
            self.backbone.checkpoint_gradients()
        if frozen:
            freeze(self.backbone, frozen)
        self.criterion = SMMixLoss(
            self.backbone, losses.fine_grained, losses.consistency, label_loss=label_loss(losses)
        )
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.mixer = mixer
        self.loss_config = losses
        self.optim = optim
        self.teacher = teacher
        self._guide_model: tuple[GuideModel] | None = None  # a tuple, so that it is no submodule
        self.excluded_classes: Tensor | None
        self.register_buffer("excluded_classes", None, persistent=False)
        accuracy = topk_accuracy(num_classes)
        self.val_accuracy = accuracy.clone(prefix="val/")
        self.test_accuracy = accuracy.clone(prefix="test/")
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()

    @property
    def method(self) -> str:
        """Name of the mixer that the weights were trained with."""
        return str(self.provenance.get("mixer", type(self.mixer).__name__))

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits `(B, K)` of images `(B, C, H, W)`, for evaluation.

        Classes that the evaluation set excludes (ImageNet-A, -R, and -O) have logit -inf.
        """
        logits: Tensor = self.backbone(images)
        excluded = self.excluded_classes
        return logits if excluded is None else logits.masked_fill(excluded, -torch.inf)

    @property
    def guide_model(self) -> GuideModel:
        """Model that runs guide passes, by default the backbone."""
        return self._guide_model[0] if self._guide_model else self.backbone

    def set_guide_model(self, model: GuideModel | None) -> None:
        """Run guide passes with another model, such as averaged weights. None uses the backbone."""
        self._guide_model = None if model is None else (model,)

    def configure_model(self) -> None:
        """Shard the model across devices under `ModelParallelStrategy`.

        Weights are gathered once per step for the guide and the training pass alike, because the
        guide pass reads weights of single layers without calling their forward methods.
        """
        if self.device_mesh is None or isinstance(self, FSDPModule):
            return
        fully_shard(self, mesh=self.device_mesh["data_parallel"])
        for step in ("training_step", "validation_step", "test_step", "predict_step"):
            register_fsdp_forward_method(self, step)

    def setup(self, stage: str) -> None:
        """Prepare the losses, and check that the model and the datamodule agree on the classes."""
        self.excluded_classes = None
        data = image_data(self.trainer)
        if stage == "fit":
            self._prepare_losses(data)
        if data is None:
            return
        if data.num_classes != self.num_classes:
            raise InputError(
                f"model.num_classes={self.num_classes}: the data has {data.num_classes} classes. "
                "Build the model with num_classes=data.num_classes."
            )
        if data.class_subset is not None:
            excluded = torch.ones(self.num_classes, dtype=torch.bool)
            excluded[data.class_subset] = False
            self.excluded_classes = excluded.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Mix, forward, losses, log.

        Returns:
            `loss`, `lam` (ratio of mixing), and `notes`: what the mixer notes about the batch,
            such as its branch.
        """
        images, classes = batch
        # Stochastic depth and dropout; every rank draws its own
        reseed(run_seed(), 2, self.current_epoch, batch_idx, self.global_rank, device=self.device)
        labels = self.soft_labels(classes)
        with torch.no_grad(), span("mix"):
            mixed = self.mixer(images, labels, self.guide_model, self._batch_rng(batch_idx))
        self.notes = mixed.notes
        losses = self.criterion.terms(mixed)
        loss = self.criterion.total(losses, self._soft_start())
        if logs_next_step(self.trainer):
            self._log_step(loss, losses, mixed)
        return {"loss": loss, "lam": mixed.lam, "notes": mixed.notes}

    def soft_labels(self, classes: Tensor) -> Tensor:
        """Return the labels `(B, K)` of a training batch, smoothed."""
        return soft_labels(classes, self.num_classes, self.loss_config.label_smoothing)

    def on_validation_epoch_start(self) -> None:
        """Reset the metrics: `fit` cannot update the inference tensors of `Trainer.validate`."""
        self.val_accuracy.reset()
        self.val_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate one batch of the validation set and return its `logits`."""
        return self._evaluate(batch, self.val_accuracy, self.val_loss)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics here: a rank without a readable image has no step, but must reduce."""
        self.log_dict(self.val_accuracy, prog_bar=True)
        self.log("val/loss", self.val_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Evaluate one batch of the test set and return its `logits`."""
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
        """Return the file and the class `probabilities` `(B, K)` of each image."""
        images, files = batch
        return {"file": files, "probabilities": self(images).float().softmax(dim=1)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store how the weights were trained, how images are prepared, and the class names."""
        checkpoint["trained"] = {"mixer": type(self.mixer).__name__, "seed": run_seed()}
        data = image_data(self.trainer)
        if data is not None:
            checkpoint["prepared"] = {
                "crop_pct": data.eval_recipe.crop_pct,
                "interpolation": data.eval_recipe.interpolation,
                "label_names": list(map(str, data.class_names)),
            }

    def _prepare_losses(self, data: ImageData | None) -> None:
        """Load the teacher, and weight classes by their frequency in the data.

        The teacher is no submodule, so that checkpoints do not contain it.
        """
        losses, guide = self.loss_config, self.backbone.guide_config
        device = self.trainer.strategy.root_device
        teacher, distillation, counts = None, None, None
        if self.teacher is not None:
            size, mean, std = (self.hparams[name] for name in ("image_size", "mean", "std"))
            guiding = (guide, self.backbone.grid) if guide.source == "teacher" else ()
            teacher = Teacher(self.teacher, self.num_classes, size, mean, std, *guiding).to(device)
        if teacher is not None and guide.source == "teacher":
            self.set_guide_model(teacher)
        if teacher is not None and losses.distillation is not None:
            distillation = Distillation(
                teacher, losses.distillation, losses.distillation_weight, losses.temperature
            )
        if losses.class_weights is not None:
            if data is None:
                raise InputError(
                    f"model.losses.class_weights={losses.class_weights}: needs the class counts of "
                    "a datamodule of this package. Remove the option."
                )
            counts = data.label_counts().to(device), len(data.train_classes)
        self.criterion = SMMixLoss(
            *(self.backbone, losses.fine_grained, losses.consistency, distillation),
            label_loss(losses, counts),
        )

    def _make_settings_plain(self) -> None:
        """Keep objects and file names out of the settings that checkpoints store."""
        for name in ("guide", "losses", "optim"):
            if not isinstance(self.hparams[name], dict):
                self.hparams[name] = asdict(self.hparams[name])
        if not isinstance(self.hparams["mixer"], dict):  # an object would put code into the file
            del self.hparams["mixer"]
        del self.hparams["init_from"]  # a checkpoint of this run does not need the file
        self.hparams["pretrained"] = False  # nor timm's weights
        self.hparams["teacher"] = None  # nor the teacher
        self.hparams["guide"]["source"] = "self"
        self.hparams["losses"]["distillation"] = None

    def _batch_rng(self, batch_idx: int) -> np.random.Generator:
        """Return the mixer's generator: the same draws on all ranks, and after a resume.

        The global step does not change while gradients accumulate; epoch and batch index do.
        """
        return np.random.default_rng((run_seed(), self.current_epoch, batch_idx))

    def _soft_start(self) -> float:
        """Return the factor of the extra losses in this epoch."""
        epochs = self.loss_config.soft_start_epochs
        return 1.0 if self.current_epoch >= epochs else self.current_epoch / epochs

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
        reset_step_metrics(self.trainer)
        # Not with prog_bar, for which Lightning reads values back from the device at every step
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        lam = mixed.lam.mean() if isinstance(mixed.lam, Tensor) else self.on_device(mixed.lam)
        self.log_dict(
            {"train/loss": loss.detach(), "lr": self.on_device(lr), "train/lam": lam}
            | {f"train/loss_{name}": value.detach() for name, value in losses.items()}
            | {f"train/{name}": self.on_device(value) for name, value in mixed.notes.items()}
        )


def check_teacher(teacher: TeacherConfig | None, guide: GuideConfig, losses: LossConfig) -> None:
    """Reject a missing teacher, and one that nothing uses.

    Raises:
        InputError: Exactly one of the teacher and its use is configured.
    """
    uses = [f"model.losses.distillation={losses.distillation}"] if losses.distillation else []
    uses += ["model.guide.source=teacher"] if guide.source == "teacher" else []
    if uses and teacher is None:
        raise InputError(
            f"{uses[0]}: needs a teacher. Set model.teacher.backbone, and its weights by "
            "model.teacher.pretrained or model.teacher.init_from."
        )
    if teacher is not None and not uses:
        raise InputError(
            f"model.teacher.backbone={teacher.backbone}: is not used. Set "
            "model.losses.distillation or model.guide.source=teacher."
        )
