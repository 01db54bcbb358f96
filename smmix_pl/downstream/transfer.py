"""What the dense tasks share: a feature pyramid of a trained backbone, its optimizer, and logs."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from smmix_pl.base_module import BaseModule
from smmix_pl.downstream.pyramid import FeaturePyramid
from smmix_pl.lightning_internals import reset_step_metrics
from smmix_pl.logged_steps import logs_next_step
from smmix_pl.models.timm_model import ImageSize, layer_numbers
from smmix_pl.optim import OptimConfig
from smmix_pl.runs.checkpoint_checks import check_weight_sources, file_provenance
from smmix_pl.seeding import reseed, run_seed


class TransferModule(BaseModule):
    """Base of the dense tasks. A subclass builds `head` and implements the steps.

    Args:
        num_classes: Number of classes. Set by the data on the command line.
        image_size: (height, width) of training crops. Set by the data on the command line.
        batch_size: Images per device and step. Set by the data on the command line.
        mean: Channel means of the normalization. Set by the data on the command line.
        std: Channel standard deviations. Set by the data on the command line.
        backbone: Name of a timm model.
        backbone_args: Further arguments of `timm.create_model`, such as `drop_path_rate`.
        pretrained: Start from timm's pretrained weights.
        init_from: Start from the weights in a file: a checkpoint of a run, a release, or a timm
            file.
        init_image_size: (height, width) that the position embeddings in `init_from` were trained
            with. `null` infers it from the file.
        frozen: Train the head alone.
        norm_maps: Put a LayerNorm on each map of the backbone, as Swin's code for dense tasks does.
        optim: Optimizer and learning-rate schedule.
    """

    head: Any

    def __init__(
        self,
        num_classes: int,
        image_size: ImageSize,
        batch_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        backbone: str,
        backbone_args: dict[str, Any] | None,
        pretrained: bool,
        init_from: str | None,
        init_image_size: ImageSize | None,
        frozen: bool,
        norm_maps: bool,
        optim: OptimConfig,
    ) -> None:
        super().__init__()
        check_weight_sources(pretrained, init_from)
        self.num_classes, self.batch_size, self.optim = num_classes, batch_size, optim
        self.image_size = image_size
        self.backbone = FeaturePyramid(
            *(backbone, image_size, backbone_args, pretrained, init_from, init_image_size),
            *(frozen, norm_maps),
        )
        if init_from is not None:
            self.provenance = file_provenance(init_from)
        self.save_hyperparameters(
            {
                **{"backbone": backbone, "backbone_args": backbone_args, "mean": mean, "std": std},
                **{"image_size": image_size, "num_classes": num_classes, "frozen": frozen},
                **{"optim": asdict(optim), "task": self.task},
            },
            logger=False,
        )

    @property
    def trained_part(self) -> nn.Module:
        """Pyramid and head, as the optimizer groups them."""
        return _Layers(self.backbone, self.head)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and stochastic depth; every rank draws its own."""
        reseed(run_seed(), 2, self.current_epoch, batch_idx, self.global_rank, device=self.device)

    def log_losses(self, losses: dict[str, Tensor]) -> Tensor:
        """Log the losses of a step by name, and return their sum."""
        total = torch.stack(list(losses.values())).sum()
        if logs_next_step(self.trainer):
            reset_step_metrics(self.trainer)
            lr = self.trainer.optimizers[0].param_groups[-1]["lr"]
            named = {f"train/loss_{name}": value.detach() for name, value in losses.items()}
            self.log_dict({"train/loss": total.detach(), "lr": self.on_device(lr)} | named)
        return total

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the seed, and the mixer that the initial weights were trained with."""
        checkpoint["trained"] = self.provenance | {"seed": run_seed()}


class _Layers(nn.Module):
    """Pyramid and head with timm's layers, of which the head is the last one."""

    def __init__(self, pyramid: FeaturePyramid, head: nn.Module) -> None:
        super().__init__()
        self.pyramid, self.head = pyramid, head

    def no_weight_decay(self) -> set[str]:
        """Return the parameters that the timm model excludes from weight decay."""
        model = self.pyramid.model
        names = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
        return {f"pyramid.model.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Any:
        """Return the function from the name of a parameter to its layer."""
        layers = layer_numbers(self.pyramid.model, coarse)
        last = max(layers.values()) + 1
        return lambda name: layers.get(name.removeprefix("pyramid.model."), last)
