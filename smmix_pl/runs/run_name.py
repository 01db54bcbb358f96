"""The name of a run, from what distinguishes it: dataset, model, and mixer."""

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from smmix_pl.data import Folder, LitData, Shards


def class_label(kind: type, arguments: Mapping[str, Any]) -> str:
    """Return the name of a class with the arguments that differ from its defaults.

    So ablations get names of their own: `SMMix-region_choice=random`.

    Args:
        kind: The class.
        arguments: Arguments of its constructor; nested objects are skipped.
    """
    defaults = {name: parameter.default for name, parameter in signature(kind).parameters.items()}
    changed = (
        f"-{name}={value:g}" if isinstance(value, float) else f"-{name}={value}"
        for name, value in arguments.items()
        if isinstance(value, str | int | float) and value != defaults.get(name, value)
    )
    return kind.__name__ + "".join(changed)


def data_label(kind: type, root: str | Path) -> str:
    """Return the name of a dataset: that of its class or, for a user's own images, of its folder.

    Args:
        kind: Class of the dataset.
        root: Folder of the dataset.
    """
    own = issubclass(kind, Folder | Shards | LitData)
    return (own and Path(root).expanduser().resolve().name) or kind.__name__


def run_name(data: str, backbone: str, mixer: str) -> str:
    """Return the default name of a run, which is also its folder below `save_dir`.

    Args:
        data: Label of the dataset.
        backbone: Name of the timm model.
        mixer: Label of the mixer.
    """
    return f"{data}/{backbone}-{mixer}".lower()
