"""Names of options, read from source code without an import, so that typos are reported at once."""

import ast
import os
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from smmix_pl.errors import InputError, did_you_mean

OPTIONS = (
    *("auto_precision", "ckpt_path", "config", "data", "finite", "help", "model", "name"),
    *("print_config", "return_predictions", "seed_everything", "test_after_fit", "trainer"),
    *("verbose", "weights_only"),
)
"""Options and sections of the training commands."""
SOURCES = {
    "model": "module.py optim.py losses.py models/guide_config.py models/teacher.py "
    "mixing/*.py downstream/*.py",
    "data": "data/*.py data/datasets/*.py",
    "trainer": "pytorch/trainer/trainer.py",
}
"""Files whose classes define the options of a section: of this package, or of Lightning."""
STRUCTURE = {"init_args", "class_path", "help"}


def check_names(words: list[str]) -> None:
    """Check the options of a command line, before the imports that a parser needs.

    Unknown names that resemble no known one are left to the parser. So are all options if the user
    trusts further packages, whose classes have options of their own.

    Raises:
        InputError: An option was probably mistyped.
    """
    for word in words:
        if not word.startswith("--"):
            continue
        option = word.removeprefix("--").partition("=")[0].removesuffix("+")
        section, *names = option.split(".")
        _check(section, OPTIONS, "")
        if section in SOURCES and not os.environ.get("SMMIX_PACKAGES"):
            known, free = option_names(section)
            # The arguments of Lightning's callbacks and loggers are not among its trainer's
            for depth, name in enumerate(names[:1] if section == "trainer" else names):
                _check(name, known | STRUCTURE, ".".join([section, *names[:depth], ""]))
                if name in free:
                    break


def _check(name: str, known: tuple[str, ...] | set[str], prefix: str) -> None:
    if name not in known and get_close_matches(name, known):
        hint = did_you_mean(prefix + name, [prefix + one for one in known])
        raise InputError(f"--{prefix}{name}: unknown option. {hint}")


@cache
def option_names(section: str) -> tuple[set[str], set[str]]:
    """Return the names of a section's options at any depth, and those that take any keys."""
    known, free = set(), set()
    package = "lightning" if section == "trainer" else "smmix_pl"
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    for pattern in SOURCES[section].split():
        for path in Path(spec.origin).parent.glob(pattern):
            for name, kind in _arguments(ast.parse(path.read_text())):
                known.add(name)
                if "dict" in kind:
                    free.add(name)
    return known, free


def _arguments(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield name and annotation of what the classes of a file are constructed with."""
    for node in (one for kind in tree.body if isinstance(kind, ast.ClassDef) for one in kind.body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation)
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            for argument in [*node.args.args[1:], *node.args.kwonlyargs]:
                kind = argument.annotation
                yield argument.arg, ast.unparse(kind) if kind is not None else ""
