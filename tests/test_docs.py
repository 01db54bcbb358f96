"""The documentation: code runs as printed, links lead somewhere, pages are up to date."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smmix_pl import Backbone, soft_labels
from smmix_pl.mixing import Mixer

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks/README.md"]
WORDS = (
    *("told", "tells", "anew", "mend", "mends", "mended", "nobody", "whoever", "held against"),
    *("hold against", "goes on with", "go on with", "in question", r"motivat\w+", "colour"),
    *("grey", r"normalis\w+", "optimiser", "centre"),
)
FORBIDDEN = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)


def blocks(page: str, language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def loader() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(0)
    return [(torch.randn(2, 3, 224, 224), torch.tensor([0, 1]))]


@pytest.mark.parametrize(("page", "index"), [("README.md", 0), ("docs/python_api.md", 0)])
def test_the_plain_loop_runs_as_printed(page, index):
    code = blocks(page)[index]
    assert len(code.splitlines()) <= 25
    names: dict = {"loader": loader()}
    exec(code, names)
    assert torch.isfinite(names["loss"])


def test_the_loop_of_timms_script_runs_as_printed():
    names: dict = {"loader": loader()}
    exec(blocks("docs/python_api.md")[1], names)
    assert torch.isfinite(names["loss"])
    exec(blocks("docs/python_api.md")[2], names)
    assert names["TrainingPass"](names["backbone"])(
        names["mixer"](*loader()[0][:1], names["labels"], names["backbone"], names["rng"])
    ).requires_grad


def test_the_lightning_examples_build_a_module(imagenet_folder):
    for page, index in (("README.md", 1), ("docs/python_api.md", 3)):
        code = blocks(page)[index].replace("/path/to/imagenet", str(imagenet_folder))
        names: dict = {}
        exec(re.sub(r"\nTrainer\(.*", "", code), names)  # 300 epochs
        assert names["model"].num_classes == 3


def test_the_mixer_of_the_guide_mixes():
    names: dict = {}
    exec(blocks("docs/extending.md")[0], names)
    [mixer] = [kind() for kind in Mixer.__subclasses__() if kind.__name__ == "HalfMix"]
    images = torch.randn(2, 3, 32, 32)
    backbone = Backbone(
        "vit_tiny_patch16_224",
        2,
        32,
        model_args={"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    )
    mixed = mixer(images, soft_labels(torch.arange(2), 2), backbone, np.random.default_rng(0))
    assert torch.equal(mixed.images[0, :, :, 16:], images[1, :, :, 16:])
    assert torch.equal(mixed.images[0, :, :, :16], images[0, :, :, :16])
    assert mixed.labels[0].tolist() == [0.5, 0.5]


def test_the_dataset_of_the_guide_reads_images(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name in ("ant_0", "bee_0"):
            Image.new("RGB", (40, 40)).save(tmp_path / split / f"{name}.png")
    names: dict = {}
    exec(blocks("docs/extending.md")[1], names)
    data = names["NamedFiles"](root=str(tmp_path), image_size=32, batch_size=2, num_workers=0)
    assert data.num_classes == 2
    data.prepare_data()
    data.setup("test")
    [(images, classes)] = data.test_dataloader()
    assert images.shape == (2, 3, 32, 32)
    assert classes.tolist() == [0, 1]


def test_generated_pages_are_up_to_date():
    pages = runpy.run_path(str(ROOT / "docs/generate.py"))["pages"]()
    for name, text in pages.items():
        assert (ROOT / "docs" / name).read_text() == text, "run python docs/generate.py"


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_words(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    assert not FORBIDDEN.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.parametrize("folder", ["smmix_pl", "configs", "benchmarks", "tests"])
def test_words_in_code(folder):
    files = {*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.yaml")} - {Path(__file__)}
    for path in files:
        found = FORBIDDEN.search(path.read_text())
        assert not found, f"{path}: {found[0]}"
