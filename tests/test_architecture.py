"""The rules of the code's structure: see CONTRIBUTING.md."""

import ast
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import pytest
import yaml

import smmix_pl
from smmix_pl import mixing
from smmix_pl.cli.main import main
from smmix_pl.reporting.metric_names import metric_spec
from smmix_pl.reporting.panels import PICTURES, TABLES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "smmix_pl"
MODULES = sorted(PACKAGE.rglob("*.py"))
LAYERS = (
    {"errors", "lightning_internals", "logged_steps", "step_timer"},
    {"checks", "seeding", "metrics", "robustness"},
    {"mixing", "data", "optim"},
    {"models"},
    {"losses"},
    {"runs"},
    {"base_module"},
    {"module", "plots"},
    {"downstream"},
    {"reporting"},
    {"callbacks"},
    {"cli"},
)
"""Units of the package from the bottom up; a unit imports only from lower layers."""
BLOCKED = ("lightning", "wandb", "torchmetrics", "matplotlib", "sklearn")
FOREIGN = ("lightning", "jsonargparse", "torchmetrics")
FOREIGN_OBJECTS = r"\b(trainer|logger|loop|strategy|launcher|datamodule)\b"
RECIPES = sorted((ROOT / "configs").glob("[!_]*.yaml"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Modules and names that a file imports, those for type checkers aside."""
    tree = parsed(path)
    unseen = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node not in unseen:
            yield node.module, tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Import) and node not in unseen:
            yield from ((alias.name, ()) for alias in node.names)


def unit(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_files_are_few_at_the_root_short_and_uniquely_named():
    assert len(list(PACKAGE.glob("*.py"))) <= 12
    for path in MODULES:
        assert len(path.read_text().splitlines()) <= 400, path
    names = Counter(path.name for path in MODULES if path.name not in ("__init__.py", "base.py"))
    assert not [name for name, count in names.items() if count > 1]


def test_imports_point_downward():
    height = {name: level for level, layer in enumerate(LAYERS) for name in layer}
    for path in MODULES:
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):  # the public names, and the program
            continue
        assert own in height, f"{own} needs a layer"
        for module, _ in imported(path):
            if module.startswith("smmix_pl.") and unit(module) != own:
                assert height[unit(module)] < height[own], f"{path.name} imports {module}"


def test_mixing_needs_only_torch_and_numpy():
    """And the standard library; `losses` and `models` may also use timm, PuzzleMix's cut SciPy."""
    for path in (PACKAGE / "mixing").glob("*.py"):
        roots = {module.split(".")[0] for module, _ in imported(path)}
        roots -= {"scipy"} if path.name == "grid_cut.py" else set()
        assert roots <= {*sys.stdlib_module_names, "torch", "numpy", "smmix_pl"}, path


def test_no_test_imports_another():
    for path in (ROOT / "tests").rglob("*.py"):
        for module, names in imported(path):
            parts = {part for name in (module, *names) for part in name.split(".")}
            assert not [part for part in parts if part.startswith("test_")], path


def test_folders_of_tests_are_those_of_the_package():
    packages = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}
    assert folders <= packages | {"benchmarks"}


def test_mixing_losses_and_models_work_without_lightning():
    code = f"""
import sys
for name in {BLOCKED!r}:
    sys.modules[name] = None
import torch
from smmix_pl import Backbone, SMMix, SMMixLoss, soft_labels
import smmix_pl.losses, smmix_pl.mixing, smmix_pl.models
import numpy as np, timm
args = dict(patch_size=8, embed_dim=24, depth=2, num_heads=2)
backbone = Backbone("vit_tiny_patch16_224", 3, 32, model_args=args)
mixed = SMMix(switch_prob=1)(
    torch.randn(2, 3, 32, 32), soft_labels(torch.arange(2), 3), backbone, np.random.default_rng(0)
)
SMMixLoss(backbone)(mixed).backward()
assert timm.is_model("pvt_tiny")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_private_names_of_other_packages_stay_in_one_file():
    for path in MODULES:
        if path.name == "lightning_internals.py":
            continue
        for module, names in imported(path):
            if module.split(".")[0] in FOREIGN:
                private = [part for part in (*module.split("."), *names) if part.startswith("_")]
                assert not private, f"{path.name}: {module} {private}"
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
                owner = ast.unparse(node.value)
                foreign = re.search(FOREIGN_OBJECTS, owner)
                assert not foreign, f"{path.name}: {owner}.{node.attr}"


def test_inherited_private_names_stay_in_one_file():
    """A private name that this package uses on `self` is also defined in it."""
    nodes = [(path, node) for path in MODULES for node in ast.walk(parsed(path))]
    defined = {node.name for _, node in nodes if isinstance(node, ast.FunctionDef)}
    defined |= {
        node.attr
        for _, node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    defined |= {
        target.id
        for _, node in nodes
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for target in ast.walk(statement)
        if isinstance(target, ast.Name)
    }
    private = [
        (path, node)
        for path, node in nodes
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)
    ]
    for path, node in private:
        if ast.unparse(node.value) in ("self", "super()"):
            assert node.attr in defined, f"{path.name}: {node.attr}"


def test_every_mixer_is_exported():
    exported = {name: getattr(mixing, name) for name in mixing.__all__}
    mixers = {name for name, value in exported.items() if inspect.isclass(value)}
    mixers = {name for name in mixers if issubclass(exported[name], mixing.Mixer)}
    assert mixers <= set(smmix_pl.__all__)
    files = {path.stem for path in (PACKAGE / "mixing").glob("*mix*.py")}
    assert {name.lower() for name in mixers} >= {name.replace("_", "") for name in files}


def test_the_lightning_that_was_checked_is_the_newest_allowed():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    [requirement] = re.findall(r"^lightning .*", config["options"]["install_requires"], re.M)
    pinned = re.search(r"^lightning==(\d+)\.(\d+)", (ROOT / "constraints.txt").read_text(), re.M)
    major, minor = int(pinned[1]), int(pinned[2])
    assert f"< {major}.{minor + 1}" in requirement
    assert f"{major}.{minor}." in (PACKAGE / "lightning_internals.py").read_text()


def test_every_package_is_installed():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    configs = {
        ".".join(("smmix_pl", *folder.relative_to(ROOT).parts))
        for folder in {path.parent for path in (ROOT / "configs").rglob("*.yaml")}
    }
    assert listed == found | configs


def test_every_metric_key_in_the_code_is_in_the_table():
    """Docstrings are checked as well, so that they name no key that is not logged."""
    stages = "train|val|val_weights|test|time|memory|attention"
    known = {picture.key for picture in PICTURES} | set(TABLES)
    for path in MODULES:
        for key in re.findall(
            rf"[`\"]((?:{stages})/[a-z0-9_]+(?:\.[0-9]+)?)[`\"]", path.read_text()
        ):
            assert key in known or metric_spec(key) is not None, f"{path.name}: {key}"


Place = tuple[str, ...]


def leaves(settings: object, prefix: Place = ()) -> Iterator[tuple[Place, object]]:
    if isinstance(settings, dict) and settings:
        for key, value in settings.items():
            yield from leaves(value, (*prefix, str(key)))
    else:
        yield prefix, settings


@pytest.fixture(scope="module")
def defaults():
    """Every option of `fit` with its default, by dataset."""
    found: dict[str, dict[Place, object]] = {}

    def of(data: str, capsys: pytest.CaptureFixture[str]) -> dict[Place, object]:
        if data not in found:
            with pytest.raises(SystemExit):
                main(["fit", "--data", data, "--print_config"])
            found[data] = dict(leaves(yaml.safe_load(capsys.readouterr().out)))
        return found[data]

    return of


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_and_repeats_no_default(recipe, defaults, capsys):
    text = recipe.read_text()
    assert len(text.splitlines()) <= 25
    assert text.startswith("#")
    assert f"smmix fit --config {recipe.name}" in text
    settings = yaml.safe_load(text)
    known = defaults(settings["data"]["class_path"], capsys)
    for place, value in leaves(settings):
        if place[-1] not in ("class_path", "callbacks+", "backbone"):
            assert known.get(place, ...) != value, f"{'.'.join(place)} is the default"


def test_overlays_add_to_lists_instead_of_replacing_them():
    """FSDP's overlay aside, which removes the callbacks that need unsharded weights."""
    for overlay in (ROOT / "configs").glob("*/*.yaml"):
        trainer = (yaml.safe_load(overlay.read_text()) or {}).get("trainer", {})
        if overlay.name != "fsdp.yaml":
            assert not {"callbacks", "logger"} & trainer.keys(), overlay
