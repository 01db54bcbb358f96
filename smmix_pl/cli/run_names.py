"""Names of runs, from what distinguishes them: dataset, model, mixer, and changed settings."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from importlib import import_module
from inspect import signature
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import WeightAveraging

from smmix_pl.cli.config_paths import FROM_DATA
from smmix_pl.data.data_label import data_label
from smmix_pl.module import SMMixModule

SAME_RESULTS = (
    *("root", "num_workers", "predict_dir", "download", "bad_images", "cache", "augment_on"),
    *("check", "compile"),
)
"""Settings of data and model that do not change what is learned."""
OF_TRAINER = (
    *("max_epochs", "max_steps", "limit_train_batches", "accumulate_grad_batches"),
    *("gradient_clip_val", "gradient_clip_algorithm", "precision"),
)
"""Settings of the trainer that change what is learned."""
CHANGED_SETTINGS = "changed_settings"
"""Key in a checkpoint."""


def import_class(class_path: str) -> type:
    """Return the class at a path, which the parser has imported before."""
    module, _, name = class_path.rpartition(".")
    kind: type = getattr(import_module(module), name)
    return kind


def arguments(built: Namespace) -> Namespace:
    """Return the arguments of a section: of the class that it names, or of `SMMixModule`."""
    return (built.get("init_args") or Namespace()) if "class_path" in built else built


def _method(model: Namespace) -> list[str]:
    """Return how a model is trained: its mixer with the settings that differ, or its task."""
    if "class_path" in model:
        return [_class_name(model)]
    return [_class_name(model.mixer), *_changed(model.mixer)]


def folder_name(settings: Namespace) -> str:
    """Return the default name of a run, which is its folder below `save_dir`.

    Args:
        settings: Parsed options of the run.
    """
    label = "-".join(_method(settings.model))
    return f"{_data_label(settings.data)}/{arguments(settings.model).backbone}-{label}".lower()


def run_subject(settings: Namespace) -> tuple[str, str, str]:
    """Return backbone, mixer or task, and dataset of a run."""
    method = _method(settings.model)[0]
    return arguments(settings.model).backbone, method, _data_label(settings.data)


def changed_settings(settings: Namespace) -> list[str]:
    """Return the settings that change what is learned and differ from the defaults.

    Runs that differ in their seed alone have the same, whether the settings come from a recipe, the
    saved config of a run, or the command line.

    Returns:
        Words such as `region_choice=random` and `losses.consistency=0.5`, those of the method
        first and those of the network and its data last.
    """
    model, data, trainer = settings.model, settings.data, settings.trainer
    kind = import_class(model.class_path) if "class_path" in model else SMMixModule
    linked = ("backbone", "mixer", *FROM_DATA, *SAME_RESULTS)
    own = {name: value for name, value in vars(arguments(model)).items() if name not in linked}
    network = own.pop("backbone_args", None)
    averages = [one for one in trainer.callbacks or [] if _is_average(one)]
    return [
        *_method(model)[1:],
        *differences(kind, own),
        *("-".join([_class_name(average), *_changed(average)]) for average in averages),
        *differences(Trainer, {name: trainer[name] for name in OF_TRAINER}),
        *_changed(data),
        *differences(kind, {"backbone_args": network}),
    ]


def differences(kind: type, arguments: Mapping[str, Any]) -> list[str]:
    """Return the arguments that differ from a class's defaults, as `name=value`.

    Args:
        kind: The class. Its constructor may pass arguments on to those of its base classes.
        arguments: Arguments by name. Those of nested settings are named `outer.inner`.
    """
    defaults: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        parameters = signature(base.__init__).parameters.values()  # type: ignore[misc]
        defaults |= {one.name: one.default for one in parameters}
    usual = dict(_flat(defaults))
    return [f"{name}={value}" for name, value in _flat(arguments) if usual.get(name) != value]


def _changed(built: Namespace) -> list[str]:
    """Return the differences of an object that a config describes."""
    arguments = vars(built.get("init_args") or Namespace())
    named = {name: value for name, value in arguments.items() if name not in SAME_RESULTS}
    return differences(import_class(built.class_path), named)


def _class_name(built: Namespace) -> str:
    return str(built.class_path).rpartition(".")[2]


def _data_label(data: Namespace) -> str:
    root = (data.get("init_args") or Namespace()).get("root") or ""
    return data_label(import_class(data.class_path), root)


def _is_average(callback: Namespace) -> bool:
    return issubclass(import_class(callback.class_path), WeightAveraging)


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values as text, which is the same for lists and tuples."""
    if is_dataclass(settings) and not isinstance(settings, type):
        settings = asdict(settings)
    if isinstance(settings, Namespace):
        settings = vars(settings)
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(settings, list | tuple):
        yield prefix, ",".join(value for _, value in _flat(dict(enumerate(settings))))
    elif settings is not None or prefix:
        yield prefix, f"{settings:g}" if isinstance(settings, float) else str(settings)
