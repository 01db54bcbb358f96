"""`~` and environment variables in configs and options, where no shell expands them."""

import os
import re
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from smmix_pl.errors import InputError

HOME = re.compile(r"(?:[^/=]+=)?(~[^/]*)")
"""A home folder at the beginning of a path, or of the path in NAME=PATH."""
VARIABLE = re.compile(r"(?:[^/=]+=)?\$\{?(\w+)\}?/")
"""A variable that is still there after those that are set have been expanded."""


def expand_settings(settings: Any, option: str = "") -> Any:
    """Expand `~` and environment variables in all texts and paths of parsed settings.

    Args:
        settings: Settings, changed in place if they are a namespace.
        option: Name of the settings.

    Returns:
        The expanded settings.

    Raises:
        InputError: A path begins with an unknown user or with a variable that is not set.
    """
    if isinstance(settings, Namespace):
        for name, value in vars(settings).items():
            settings[name] = expand_settings(value, f"{option}.{name}" if option else name)
    elif isinstance(settings, dict):
        return {key: expand_settings(value, f"{option}.{key}") for key, value in settings.items()}
    elif isinstance(settings, list):
        return [expand_settings(value, option) for value in settings]
    elif isinstance(settings, str):
        return expand_path(settings, option if "." in option else f"--{option}")
    elif isinstance(settings, Path):
        return Path(expand_settings(str(settings), option))
    return settings


def expand_path(path: str, option: str) -> str:
    """Return a path with `~` and environment variables expanded; a text without is unchanged.

    Raises:
        InputError: The path begins with an unknown user or with a variable that is not set.
    """
    home = HOME.match(path)
    expanded = path
    if home is not None:
        folder = os.path.expanduser(home[1])
        if folder == home[1]:
            raise InputError(f"{option}={path}: there is no user {folder[1:]}. Write out the path.")
        expanded = path[: home.start(1)] + folder + path[home.end() :]
    expanded = os.path.expandvars(expanded)
    unset = VARIABLE.match(expanded)
    if unset is not None:
        raise InputError(
            f"{option}={path}: the environment variable {unset[1]} is not set. Set it, or write "
            "out the path."
        )
    return expanded
