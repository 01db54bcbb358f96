"""Fixtures that several tests use: a tiny backbone, a tiny module, a folder of images.

What takes long to import is imported by the fixtures: pytest-xdist also loads this file in the
process that only deals out the tests.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.image_folders import write_image_folder
from hypothesis import settings

if TYPE_CHECKING:
    import torch

    from smmix_pl import Backbone, SMMixModule

# Few examples without deadline, so that the suite passes on a busy machine with two cores.
settings.register_profile("quick", deadline=None, max_examples=30)
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that checks GPU tests on a CPU."""
    parser.addoption(
        "--gpu-tests-on-cpu",
        action="store_true",
        help="run tests marked gpu that use the device fixture on the CPU",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked gpu on machines without an NVIDIA GPU."""
    if item.get_closest_marker("gpu"):
        import torch

        runs_on_cpu = item.config.getoption("--gpu-tests-on-cpu") and "device" in item.fixturenames
        if not (torch.cuda.is_available() or runs_on_cpu):
            pytest.skip("needs an NVIDIA GPU")


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of a test marked gpu."""
    import torch

    return torch.device("cpu" if request.config.getoption("--gpu-tests-on-cpu") else "cuda")


@pytest.fixture(autouse=True)
def restored_log_levels() -> Iterator[None]:
    """Restore the log levels of Lightning, which some commands change for their process."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """A folder in the layout of ImageNet: train/ and val/ with three classes each."""
    root = tmp_path / "imagenet"
    write_image_folder(root / "train", per_class=6)
    write_image_folder(root / "val", per_class=3)
    return root


@pytest.fixture
def tiny_backbone() -> Backbone:
    """A backbone with an 8 x 8 token grid, 10 classes, and 32 x 32 pixels."""
    import torch
    from helpers.small_runs import TINY

    from smmix_pl import Backbone

    torch.manual_seed(0)
    return Backbone("vit_tiny_patch16_224", 10, (32, 32), model_args=TINY)


@pytest.fixture
def tiny_module() -> SMMixModule:
    """A module with the tiny backbone."""
    import torch
    from helpers.small_runs import TINY

    from smmix_pl import SMMix, SMMixModule

    torch.manual_seed(0)
    return SMMixModule(
        num_classes=10,
        image_size=(32, 32),
        batch_size=4,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args=TINY,
    )


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in the working directory that attacks try to create; fail the test if one does."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "marker"
    assert not (tmp_path / "marker").exists()
