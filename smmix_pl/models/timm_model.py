"""timm models by name, with errors that name the option to change."""

from typing import Any

import timm
import torch

from smmix_pl.checks import in_range
from smmix_pl.errors import InputError, did_you_mean

ImageSize = tuple[int, int]
"""Rows and columns."""

SOURCES_OF_WEIGHTS = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
"""Arguments of timm's that name files of weights, which some versions of it unpickle."""


def create_timm_model(
    name: str, num_classes: int, image_size: ImageSize, pretrained: bool, args: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """`timm.create_model` with errors that name the mend.

    Returns:
        The model, and the arguments that make it again.

    Raises:
        InputError: timm does not know the model, or the model not the arguments.
    """
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise InputError(f"timm knows no model named {name!r}; {near}")
    for source in SOURCES_OF_WEIGHTS:
        if args.get(source):
            raise InputError(
                f"backbone_args.{source} is {args[source]!r}, and timm would open what it names; "
                "give the file as model.init_from, so that no code in it is run"
            )
    if args.get("num_classes", num_classes) != num_classes:
        raise InputError(
            f"model.backbone_args sets num_classes to {args['num_classes']}, which comes from the "
            f"data ({num_classes}); take it out"
        )
    if isinstance(rate := args.get("drop_path_rate"), int | float):
        in_range("model.backbone_args.drop_path_rate", rate, 0, 1)
    if args.get("global_pool") == "":
        raise InputError(
            "model.backbone_args.global_pool is empty, which leaves no class logits; take it out"
        )
    args = {"num_classes": num_classes, "img_size": image_size} | args
    try:
        return _created(name, pretrained, args)
    except (OSError, RuntimeError) as error:  # no such tag, no such weights, or no way to them
        raise InputError(
            f"timm cannot make {name} with pretrained={pretrained}: {error}; "
            + (
                "leave out model.pretrained, or give a file as model.init_from"
                if pretrained
                else "set model.backbone_args or data.image_size"
            )
        ) from error
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise _refused(name, args, error) from error


def _created(name: str, pretrained: bool, args: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model and its arguments, without ``img_size`` where it takes images of any size."""
    try:
        return timm.create_model(name, pretrained=pretrained, **args), args
    except TypeError as error:
        if "img_size" not in args or "img_size" not in str(error):
            raise
        return _created(name, pretrained, {k: v for k, v in args.items() if k != "img_size"})


def args_for_any_size(name: str) -> dict[str, Any]:
    """The argument with which a timm model of some families takes images of other sizes as well."""
    try:
        with torch.device("meta"):
            timm.create_model(name, dynamic_img_size=True)
    except (TypeError, RuntimeError):  # no such argument, or no such model
        return {}
    return {"dynamic_img_size": True}


def token_grid(name: str, stride: int, tokens: int, image_size: ImageSize) -> ImageSize:
    """The grid of tokens, each ``stride`` pixels wide and high."""
    height, width = image_size
    grid = (height // stride, width // stride)
    if height % stride or width % stride:
        near = " x ".join(str(max(1, round(side / stride)) * stride) for side in image_size)
        raise InputError(
            f"image size {height} x {width} is not a whole number of {name}'s patches of {stride} "
            f"pixels; the nearest that is: {near}"
        )
    if grid[0] * grid[1] != tokens:
        raise InputError(
            f"{name} cannot train with SMMix: it gives {tokens} image tokens where its "
            f"{grid[0]} x {grid[1]} grid has {grid[0] * grid[1]}, and the token head needs each one"
        )
    return grid


def _refused(name: str, args: dict[str, Any], error: Exception) -> InputError:
    return InputError(f"timm's {name} refuses {args}: {error}; set model.backbone_args")
