"""Config files by name: a path, or one of the shipped configs."""

import re
from pathlib import Path
from typing import Any

import yaml

from smmix_pl.errors import InputError, did_you_mean

NULL = re.compile(r"^(--data\.(?:init_args\.)?(?:train|eval)_transform)\.(\w+)=(?:null|~)$")
"""jsonargparse hands a null that is so deep on as the word None."""
FROM_DATA = ("num_classes", "image_size", "batch_size", "mean", "std")
"""What the model learns from the data; nobody says it twice."""


def resolve_configs(words: list[str]) -> list[str]:
    """Replace each ``--config NAME`` by a path: NAME itself if it is a file, else a shipped config.

    Raises:
        InputError: It is neither, or it sets what the data sets.
    """
    resolved = [NULL.sub(r'\1={"\2": null}', word) for word in words]
    for index, word in enumerate(words):
        if word in ("--config", "-c") and index + 1 < len(words):
            resolved[index + 1] = find_config(words[index + 1])
        elif word.startswith("--config="):
            resolved[index] = "--config=" + find_config(word.removeprefix("--config="))
    return resolved


def find_config(name: str) -> str:
    """The path of a config file, looked up as a path first and then among the shipped configs.

    Raises:
        InputError: There is none of that name, or it sets what the data sets.
    """
    folder = configs_folder()
    for path in (Path(name), folder / name, folder / f"{name}.yaml"):
        if path.is_file():
            _check_config(path)
            return str(path)
    shipped = [path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml")]
    raise InputError(
        f"there is no config {name!r}, neither as a file from here nor among the shipped ones; "
        + did_you_mean(name, shipped)
    )


def configs_folder() -> Path:
    """Where the shipped configs are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def _check_config(path: Path) -> None:
    """Refuse a value that the link from the data would silently replace."""
    try:
        config = yaml.load(path.read_text(), OnceLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise InputError(
            f"{path} holds no sections such as model: and data:; see {configs_folder()}"
        )
    model = config.get("model")
    for name in FROM_DATA:
        if isinstance(model, dict) and name in model:
            raise InputError(f"{path} sets model.{name}, which comes from the data; take it out")


class OnceLoader(yaml.SafeLoader):
    """YAML in which each name is said once; plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping, if no name is in it twice."""
        names = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"it says {key.value!r} twice; take one out",
                    problem_mark=node.value[-1][0].start_mark,
                )
        return super().construct_mapping(node, deep)
