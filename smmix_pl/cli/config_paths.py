"""Config files by name: a path, or one of the shipped configs."""

import re
from pathlib import Path
from typing import Any

import yaml

from smmix_pl.cli.path_settings import expand_path
from smmix_pl.errors import InputError, did_you_mean

NULL = re.compile(
    r"^(--(?:data\.(?:init_args\.)?(?:train|eval)_transform"
    r"|model\.(?:init_args\.)?(?:optim|guide|losses|teacher)))\.(\w+)=(?:null|~)$"
)
"""jsonargparse passes on a null at this depth as the word None."""
FROM_DATA = ("num_classes", "image_size", "batch_size", "mean", "std")
"""Model settings that come from the data."""


def default_configs(task: bool = False) -> list[str]:
    """Return the path of the config that is loaded before all others.

    Args:
        task: The config of the downstream tasks instead of that of `SMMixModule`.
    """
    return [str(configs_folder() / ("_downstream.yaml" if task else "_defaults.yaml"))]


def named_model(words: list[str]) -> str | None:
    """Return the LightningModule that the last option or config names, or None for `SMMixModule`.

    Settings of `SMMixModule` are written without its name (`model: {backbone: ...}`), those of
    other classes as `model: {class_path: ..., init_args: {...}}`.

    Args:
        words: Options with resolved configs.
    """
    named = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, assigned, value = word.partition("=")
        value = value if assigned else following
        if option in ("--config", "-c") and value:
            model = (yaml.safe_load(Path(value).read_text()) or {}).get("model")
            named = model.get("class_path", named) if isinstance(model, dict) else named
        elif option in ("--model", "--model.class_path") and not value.startswith("{"):
            named = value
    return named


def resolve_configs(words: list[str]) -> list[str]:
    """Replace each `--config NAME` by a path: NAME itself if it is a file, else a shipped config.

    Raises:
        InputError: There is no such config, or it sets what the data sets.
    """
    resolved = _with_nulls(words)
    words = list(resolved)
    for index, word in enumerate(words):
        if word in ("--config", "-c") and index + 1 < len(words):
            resolved[index + 1] = find_config(words[index + 1])
        elif word.startswith("--config="):
            resolved[index] = "--config=" + find_config(word.removeprefix("--config="))
    return resolved


def _with_nulls(words: list[str]) -> list[str]:
    """Rewrite `--GROUP.NAME null`, in one word or two, as `--GROUP={"NAME": null}`."""
    rewritten: list[str] = []
    for word in words:
        if word in ("null", "~") and rewritten and NULL.match(f"{rewritten[-1]}=null"):
            word = f"{rewritten.pop()}={word}"
        rewritten.append(NULL.sub(r'\1={"\2": null}', word))
    return rewritten


def find_config(name: str) -> str:
    """Return the path of a config, looked up as a path first and then among the shipped configs.

    Raises:
        InputError: There is no such config, or it sets what the data sets.
    """
    name = expand_path(name, "--config")
    folder = configs_folder()
    for path in (Path(name), folder / name, folder / f"{name}.yaml"):
        if path.is_file():
            _check_config(path)
            return str(path)
    shipped = [path.relative_to(folder).as_posix() for path in folder.rglob("[!_]*.yaml")]
    raise InputError(
        f"--config={name}: not found in the current directory or among the shipped configs. "
        + did_you_mean(name, shipped)
    )


def configs_folder() -> Path:
    """Return the folder of the shipped configs: in an installed package, or in the checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _check_config(path: Path) -> None:
    """Reject values that the link from the data would silently replace."""
    try:
        config = yaml.load(path.read_text(), UniqueKeyLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        details = " ".join(str(error).split())
        raise InputError(f"--config={path}: not a valid YAML file ({details}).") from error
    if not isinstance(config, dict):
        raise InputError(
            f"--config={path}: has no sections such as model: and data:. See {configs_folder()}."
        )
    model = config.get("model")
    model = model if isinstance(model, dict) else {}
    for name in FROM_DATA:
        if name in model or name in (model.get("init_args") or {}):
            raise InputError(
                f"--config={path}: sets model.{name}, which comes from the data. Remove it."
            )


class UniqueKeyLoader(yaml.SafeLoader):
    """Loader that rejects duplicate keys; plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, if every key is unique."""
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"duplicate key {key.value!r}; remove one",
                    problem_mark=node.value[-1][0].start_mark,
                )
        return super().construct_mapping(node, deep)
