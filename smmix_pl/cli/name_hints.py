"""Hints about mistyped names of options and classes."""

from itertools import chain

from lightning.pytorch import Callback

from smmix_pl.base_module import BaseModule
from smmix_pl.cli.input_errors import UNKNOWN_CLASS, UNKNOWN_OPTION
from smmix_pl.cli.option_names import SOURCES, option_names
from smmix_pl.data.base import BaseData
from smmix_pl.errors import did_you_mean
from smmix_pl.mixing import Mixer


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
    if section not in SOURCES and names and section.isidentifier() and "Subcommand" in message:
        return did_you_mean(section, SOURCES)
    sections = [section] if section in SOURCES else list(SOURCES)
    known = set(chain.from_iterable(option_names(one)[0] for one in sections))
    prefix = found[1][: found[1].rfind(".") + 1]
    return did_you_mean(found[1], [prefix + name for name in known])


def subclasses(*bases: type) -> list[type]:
    """Return all subclasses of some classes, at any depth."""
    below: list[type] = []
    for base in bases:
        direct: list[type] = base.__subclasses__()
        below += direct + subclasses(*direct)
    return below
