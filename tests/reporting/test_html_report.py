"""The HTML report of real run folders."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from helpers.programs import run_here

from smmix_pl.reporting.metric_names import metric_spec
from smmix_pl.reporting.panels import PANELS, PICTURES

SMALL = "{patch_size: 5, embed_dim: 32, depth: 2, num_heads: 2}"


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a folder with a short digits run."""
    folder = tmp_path_factory.mktemp("report")
    train(folder, "SMMix")
    return folder


@pytest.fixture(scope="module")
def two_runs(runs):
    """Return the same folder with a second run, of CutMix."""
    train(runs, "CutMix")
    return runs


def train(folder, mixer):
    run_here(
        *("fit", "--config", "digits.yaml", "--trainer.max_epochs=2", "--name=digits"),
        *(f"--model.mixer={mixer}", "--trainer.limit_train_batches=12"),
        *("--trainer.log_every_n_steps=2", "--trainer.check_val_every_n_epoch=1"),
        *(f"--model.backbone_args={SMALL}", "--trainer.limit_test_batches=4"),
        cwd=folder,
    )


def report(folder, *words):
    run_here("report", *words, cwd=folder)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not page.open
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
    assert not re.search(r"https?://|@import|url\(", text)
    return page


def test_one_run_has_facts_curves_figures_and_metrics(runs):
    page = report(runs, "runs/digits/version_0")
    assert "SMMix: vit_tiny_patch16_224 on Digits, seed 0" in page.text
    assert "4 x 4 tokens" in page.text
    captions = {attributes["alt"] for tag, attributes in page.tags if tag == "img"}
    for key in ("train/loss", "val/top1", "val_weights/top1", "train/region_side", "time/guide"):
        assert any(metric_spec(key).meaning in caption for caption in captions), key
    for picture in PICTURES:
        assert picture.source or any(picture.caption in caption for caption in captions), picture
    for panel in ("test/top1", "val/nll"):  # a single point, and the loss again
        assert not any(metric_spec(panel).meaning + " on the test" in one for one in captions)
    for name in ("Training", "Mixing", "Validation", "Calibration", "System"):
        assert PANELS[name].question in page.text
    for metric in ("top-1", "ECE", "top-1, 50% occlusion", "accuracy"):
        assert metric in page.text


@pytest.mark.slow
def test_a_run_without_a_test_is_described_by_its_config(two_runs, tmp_path):
    complete = two_runs / "runs/digits/version_1"
    killed = tmp_path / "killed"
    killed.mkdir()
    log = (complete / "metrics.csv").read_text()
    (killed / "metrics.csv").write_text(log[: log.rindex(",") // 2])  # in the middle of a row
    shutil.copy(complete / "config.yaml", killed)
    page = report(tmp_path, "killed")
    assert "CutMix: vit_tiny_patch16_224 on Digits, seed 0" in page.text


@pytest.mark.parametrize(
    "config",
    [b'model: {mixer: {class_path: "smm', b"[1, 2]", b"model: 3", b"\xff\xfe\x00", b"[" * 1500],
    ids=["truncated", "list", "number", "bytes", "nested"],
)
def test_a_run_with_an_invalid_config_is_named_by_its_folder(tmp_path, config):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,0.4\n")
    (run / "config.yaml").write_bytes(config)
    assert report(tmp_path, "run").text.startswith("run")


@pytest.mark.slow
def test_several_runs_are_compared(two_runs):
    page = report(two_runs, "first=runs/digits/version_0", "CutMix=runs/digits/version_1")
    assert "Comparison: first, CutMix" in page.text
    assert "(SMMix) on Digits" in page.text
    assert "(CutMix) on Digits" in page.text
    captions = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]

    def plots(key):
        return sum(caption.startswith(metric_spec(key).meaning) for caption in captions)

    assert plots("train/loss") == 0  # different sums
    assert plots("train/loss_classification") == plots("train/region_side") == 1
    assert page.text.count("NLL") == 3  # in the table and in the details of both
    assert "b" in {tag for tag, _ in page.tags}


@pytest.mark.slow
def test_seeds_of_a_method_are_averaged(two_runs, tmp_path):
    """The runs of two mixers stand for the seeds of one method."""
    for method, seeds in {"first": ("0", "1"), "second": ("1", "0")}.items():
        for version, seed in zip(("version_0", "version_1"), seeds, strict=True):
            run = tmp_path / method / version
            shutil.copytree(two_runs / "runs/digits" / version, run)
            results = json.loads((run / "results.json").read_text())
            results["run"]["seed"] = int(seed)
            (run / "results.json").write_text(json.dumps(results))
    page = report(tmp_path, "first", "second")
    assert "first (n = 2)" in page.text
    assert re.search(r"top-1\d+\.\d+% ± \d+\.\d+%\d+\.\d+% ± \d+\.\d+% \([+-]0\.00% ±", page.text)
    captions = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert any("Mean over 2 seeds" in caption for caption in captions)
