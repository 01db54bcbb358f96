"""timm models: creating them by name, with errors that name the option to change, and eval mode."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast

import timm
import torch
from timm.models import group_parameters
from torch import nn

from smmix_pl.checks import in_range
from smmix_pl.errors import InputError, did_you_mean

ImageSize = tuple[int, int]
"""Rows and columns."""


class HoldsModel(Protocol):
    """Module around a timm model, into which weights can be loaded."""

    model: Any
    grid: ImageSize

    @property
    def token_head(self) -> nn.Linear | None:
        """Classifier of region tokens, if there is one."""


SOURCES_OF_WEIGHTS = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""timm arguments that name files of weights, which some versions of timm unpickle."""


def create_timm_model(
    name: str, num_classes: int, image_size: ImageSize, pretrained: bool, args: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Call `timm.create_model` with errors that name the option and the fix.

    Returns:
        The model, and the arguments that create it again.

    Raises:
        InputError: timm has no such model, or the model rejects the arguments.
    """
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise InputError(f"model.backbone={name}: timm has no model of this name. {near}")
    for source in SOURCES_OF_WEIGHTS:
        if args.get(source):
            raise InputError(
                f"model.backbone_args.{source}={args[source]}: not allowed, because timm might run "
                "code in that file. Pass the file as model.init_from."
            )
    if args.get("num_classes", num_classes) != num_classes:
        raise InputError(
            f"model.backbone_args.num_classes={args['num_classes']}: the dataset has {num_classes} "
            "classes. Remove the argument."
        )
    if isinstance(rate := args.get("drop_path_rate"), int | float):
        in_range("model.backbone_args.drop_path_rate", rate, 0, 1)
    if args.get("global_pool") == "":
        raise InputError(
            "model.backbone_args.global_pool='': the model would have no class logits. Remove the "
            "argument."
        )
    args = {"num_classes": num_classes, "img_size": image_size} | args
    try:
        return _created(name, pretrained, args)
    except (OSError, RuntimeError) as error:  # unknown tag, no such weights, or no network
        fix = (
            "Set model.pretrained=false, or pass a file as model.init_from."
            if pretrained
            else "Change model.backbone_args or data.image_size."
        )
        raise InputError(
            f"model.backbone={name}: timm cannot create it with pretrained={pretrained} ({error}). "
            + fix
        ) from error
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"model.backbone={name}: timm rejects the arguments {args} ({error}). Change "
            "model.backbone_args."
        ) from error


def _created(name: str, pretrained: bool, args: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the model and its arguments, without `img_size` if it accepts images of any size."""
    try:
        return timm.create_model(name, pretrained=pretrained, **args), args
    except TypeError as error:
        if "img_size" not in args or "img_size" not in str(error):
            raise
        return _created(name, pretrained, {k: v for k, v in args.items() if k != "img_size"})


def model_name(model: Any) -> str:
    """Return timm's name of a model, or that of its class."""
    return model.pretrained_cfg.get("architecture") or type(model).__name__


def args_for_any_size(name: str) -> dict[str, Any]:
    """Return the argument with which some timm models also accept other image sizes."""
    try:
        with torch.device("meta"):
            timm.create_model(name, dynamic_img_size=True)
    except (TypeError, RuntimeError):  # no such argument, or no such model
        return {}
    return {"dynamic_img_size": True}


def token_grid(name: str, stride: int, tokens: int, image_size: ImageSize) -> ImageSize:
    """Return the token grid of an image, with tokens of `stride` x `stride` pixels.

    Raises:
        InputError: The stride does not divide the image, or the model has another token count.
    """
    height, width = image_size
    grid = (height // stride, width // stride)
    if height % stride or width % stride:
        near = " x ".join(str(max(1, round(side / stride)) * stride) for side in image_size)
        raise InputError(
            f"data.image_size={height} x {width}: not divisible by the patch size {stride} of "
            f"{name}. Use {near}."
        )
    if grid[0] * grid[1] != tokens:
        raise InputError(
            f"model.backbone={name}: has {tokens} image tokens, but the token head needs one for "
            f"each cell of its {grid[0]} x {grid[1]} grid. Use another model, such as "
            "deit_tiny_patch16_224."
        )
    return grid


def layer_numbers(model: nn.Module, coarse: bool = False) -> dict[str, int]:
    """Return the number of the layer of each parameter, from 0 for the stem.

    Args:
        model: timm model.
        coarse: Number stages instead of blocks.

    Raises:
        InputError: The timm model does not group its layers.
    """
    if not hasattr(model, "group_matcher"):
        raise InputError(
            f"model.optim.layer_decay: {model_name(model)} does not group its layers. Set "
            "model.optim.layer_decay=null."
        )
    matcher = cast(Any, model).group_matcher(coarse)
    return dict(group_parameters(model, matcher, reverse=True))


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and restore the mode of every submodule afterward."""
    training = [module for module in model.modules() if module.training]
    _set_training(training, False)
    try:
        yield
    finally:
        _set_training(training, True)


def _set_training(modules: Iterable[nn.Module], mode: bool) -> None:
    for module in modules:
        vars(module)["training"] = mode  # `Module.__setattr__` is slow, and this runs in every step
