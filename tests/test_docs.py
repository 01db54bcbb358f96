"""The documentation: code and commands work as printed, links lead somewhere, the site builds."""

import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.programs import run_here
from helpers.sampling import every
from PIL import Image

import smmix_pl.mixing
from smmix_pl import Backbone, soft_labels
from smmix_pl.cli.main import TOOLS, TRAINING, main
from smmix_pl.mixing import Mixer

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*ROOT.glob("*.md"), *DOCS, ROOT / "benchmarks/README.md"]
PLACEHOLDERS = {"RUN/config.yaml": "digits.yaml", "$SLURM_ARRAY_TASK_ID": "0"}
WORDS = (
    *("told", "tells", "anew", "mend", "mends", "mended", "nobody", "whoever", "held against"),
    *("hold against", "goes on with", "go on with", "in question", r"motivat\w+", "colour"),
    *("grey", r"normalis\w+", "optimiser", "centre"),
)
FORBIDDEN = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)


def blocks(page: str | Path, language: str = "python") -> list[str]:
    """Return the code of the blocks of a page in a language."""
    found = re.findall(
        r"^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return [code for name, code in found if name == language]


def commands() -> list[tuple[str, ...]]:
    """Return the words of all `smmix` commands on all pages, in blocks and in sentences."""
    lines = []
    for page in PAGES:
        lines += "\n".join(blocks(page, "")).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`(smmix [^`]+)`", page.read_text())
    found = set()
    for line in lines:
        words = shlex.split(line, comments=True)
        if words and words[0] in ("smmix", "lightning", "srun", "torchrun"):
            names = {"smmix", "lightning", "smmix_pl"}
            start = next(place for place, word in enumerate(words) if word in names)
            found.add(tuple(words[start + 1 :]))
    return sorted(found)


COMMANDS = commands()
TRAINING_COMMANDS = [
    words
    for words in COMMANDS
    if words[0] in TRAINING and not any(set(words) < set(longer) for longer in COMMANDS)
]


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


def test_the_lightning_example_builds_a_module(imagenet_folder):
    code = blocks("docs/python_api.md")[3].replace("/path/to/imagenet", str(imagenet_folder))
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


@pytest.mark.parametrize("words", every(6, map(list, TRAINING_COMMANDS)), ids=" ".join)
def test_printed_training_commands_parse(words, tmp_path):
    words = [PLACEHOLDERS.get(word, word) for word in words]
    with pytest.raises(SystemExit) as stop:
        run_here(*words, "--print_config", cwd=tmp_path)
    assert not stop.value.code


@pytest.mark.parametrize("tool", sorted({words[0] for words in COMMANDS} & set(TOOLS)))
def test_printed_options_of_tools_exist(tool, capsys):
    with pytest.raises(SystemExit):
        main([tool, "--help"])
    used = {word for words in COMMANDS if words[0] == tool for word in words}
    options = {word for word in used if word.startswith("--") and "." not in word}
    assert options <= set(re.findall(r"--\w+", capsys.readouterr().out))


def test_printed_commands_targets_and_scripts_exist():
    text = "\n".join(page.read_text() for page in PAGES)
    assert {words[0] for words in COMMANDS} <= {*TRAINING, *TOOLS, "--help", "--version"}
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|[`&] ?)make ([a-z0-9-]+)", text, re.MULTILINE)) <= targets
    for script in re.findall(r"python ([\w/]+\.py)", text):
        assert (ROOT / script).exists(), script


def test_results_repeat_numbers_of_the_benchmarks():
    numbers = re.compile(r"\d+\.\d{2,}(?: ± \d+\.\d+)?")
    measured = (ROOT / "benchmarks/README.md").read_text()
    found = numbers.findall((ROOT / "docs/results.md").read_text())
    assert found
    assert set(found) <= set(numbers.findall(measured))


def test_every_mixer_has_a_card_and_a_reference():
    names = {kind.__name__ for kind in vars(smmix_pl.mixing).values() if isinstance(kind, type)}
    mixers = {name for name in names if issubclass(getattr(smmix_pl.mixing, name), Mixer)}
    cards = set(re.findall(r"^## (\w+)$", (ROOT / "docs/mixers.md").read_text(), re.MULTILINE))
    reference = (ROOT / "docs/reference/mixers.md").read_text()
    assert cards == mixers - {"Mixer"}
    assert set(re.findall(r"^::: [\w.]+\.(\w+)$", reference, re.MULTILINE)) == mixers


def test_the_site_builds_without_a_warning(tmp_path, monkeypatch):
    build = pytest.importorskip("mkdocs.commands.build", reason="needs the extra docs")
    from mkdocs.config import load_config

    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    settings = {"site_dir": str(tmp_path), "strict": True}
    build.build(load_config(str(ROOT / "docs/site/mkdocs.yml"), **settings))
    for page in DOCS:
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        html = (tmp_path / str(name).replace("README", "index")).read_text()
        assert "<h1" in html
        assert "arithmatex" not in html, "a formula was not converted"
        assert not re.search(r'<(?:script|img|link)[^>]* (?:src|href)="(?:https?:)?//', html)


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
