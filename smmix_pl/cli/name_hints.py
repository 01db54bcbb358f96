"""Hints about mistyped names of options and classes."""

import inspect
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, Trainer

from smmix_pl.base_module import BaseModule
from smmix_pl.cli.input_errors import UNKNOWN_CLASS, UNKNOWN_OPTION
from smmix_pl.data import EvalTransform, ImageData, TrainTransform
from smmix_pl.data.base import BaseData
from smmix_pl.errors import did_you_mean
from smmix_pl.losses import LossConfig
from smmix_pl.mixing import Mixer
from smmix_pl.models.guide_config import GuideConfig
from smmix_pl.models.teacher import TeacherConfig
from smmix_pl.module import SMMixModule
from smmix_pl.optim import OptimConfig

SECTIONS: dict[str, Callable[..., Any]] = {
    "model": SMMixModule,
    "data": ImageData,
    "trainer": Trainer,
}
SETTINGS = (GuideConfig, TeacherConfig, LossConfig, OptimConfig, TrainTransform, EvalTransform)


def nearest_names(message: str) -> str:
    """Return a hint for a jsonargparse message about an unknown name, else an empty string."""
    lost = UNKNOWN_CLASS.search(message)
    if lost is not None:
        classes = {kind.__name__ for kind in subclasses(Mixer, BaseModule, BaseData, Callback)}
        return did_you_mean(lost[1], classes)
    found = UNKNOWN_OPTION.search(message)
    if found is None or "before subcommand" in message:
        return ""
    section, *names = found[1].split(".")
    own = inspect.signature(SECTIONS[section]).parameters if section in SECTIONS else {}
    if own and names and names[0] not in own:
        return did_you_mean(f"{section}.{names[0]}", [f"{section}.{name}" for name in own])
    if not own and names and section.isidentifier() and "Subcommand" in message:
        return did_you_mean(section, SECTIONS)
    owners: list[Callable[..., Any]] = [*subclasses(BaseData, BaseModule, Mixer), *SETTINGS]
    nested = {name for owner in owners for name in inspect.signature(owner).parameters}
    return did_you_mean(names[-1] if names else section, nested)


def subclasses(*bases: type) -> list[type]:
    """Return all subclasses of some classes, at any depth."""
    below: list[type] = []
    for base in bases:
        direct: list[type] = base.__subclasses__()
        below += direct + subclasses(*direct)
    return below
