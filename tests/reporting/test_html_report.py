"""The HTML report of real run folders."""

import re
import shutil
from html.parser import HTMLParser

import pytest
from helpers.image_folders import write_image_folder
from helpers.programs import refusal, run_cli
from PIL import Image
from smmix_pl.reporting.logged_keys import METRICS

from smmix_pl.cli.demo import main as draw_mixing
from smmix_pl.reporting.html_report import main as write_report

SMALL = "{patch_size: 6, embed_dim: 32, depth: 2, num_heads: 2}"


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
    """Two short digits runs."""
    folder = tmp_path_factory.mktemp("report")
    for mixer in ("SMMix", "CutMix"):
        result = run_cli(
            *("fit", "--config", "digits.yaml", "--trainer.max_epochs=2"),
            *(f"--model.mixer={mixer}", "--trainer.limit_train_batches=12"),
            *("--trainer.log_every_n_steps=2", "--trainer.check_val_every_n_epoch=1"),
            f"--model.backbone_args={SMALL}",
            cwd=folder,
        )
        assert result.returncode == 0, result.stderr[-2000:]
    return folder


def report(folder, *words):
    result = run_cli("-m", "smmix_pl.reporting.html_report", *words, cwd=folder, program="python")
    assert result.returncode == 0, result.stderr[-2000:]
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


def test_one_run_tells_mixer_learning_calibration_and_occlusion(runs):
    page = report(runs, "runs/digits/version_0")
    assert "SMMix: vit_tiny_patch16_224 on Digits, seed 0" in page.text
    assert "4 x 4 tokens" in page.text
    captions = {attributes["alt"] for tag, attributes in page.tags if tag == "img"}
    for key in ("train/loss", "val/top1", "val_weights/top1", "train/region_side", "time/guide"):
        assert METRICS[key] in captions, key
    for told in ("reliability diagram", "accuracy under occlusion", "by this model's attention"):
        assert any(told in caption for caption in captions), told
    headings = ["Does it learn?", "What does the mixer do?", "Where does the attention go?"]
    assert all(heading in page.text for heading in headings)
    for metric in ("top-1", "ECE", "top-1, 50% occlusion", "accuracy"):
        assert metric in page.text


def test_a_run_that_was_killed_before_its_test_is_told_by_its_config(runs, tmp_path):
    whole = runs / "runs/digits/version_1"
    killed = tmp_path / "killed"
    killed.mkdir()
    log = (whole / "metrics.csv").read_text()
    (killed / "metrics.csv").write_text(log[: log.rindex(",") // 2])  # in the middle of a row
    shutil.copy(whole / "config.yaml", killed)
    page = report(tmp_path, "killed")
    assert "CutMix: vit_tiny_patch16_224 on Digits, seed 0" in page.text


def test_several_runs_are_compared(runs):
    page = report(runs, "ours=runs/digits/version_0", "CutMix=runs/digits/version_1")
    assert "Comparison: ours, CutMix" in page.text
    assert "(SMMix) on Digits" in page.text
    assert "(CutMix) on Digits" in page.text
    names = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert names.count(METRICS["train/loss"]) == 1
    assert names.count(METRICS["train/region_side"]) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "nowhere holds neither metrics.csv nor results.json"),
        (["runs/digits/version_0", "runs/digits/version_0"], "two runs are named"),
    ],
)
def test_what_is_no_run_is_told_in_a_sentence(runs, words, told, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    assert told in refusal(write_report, words, capsys)


def test_the_demonstration_draws_images_of_ones_own(runs, tmp_path, capsys):
    images = write_image_folder(tmp_path / "mine", per_class=2)
    checkpoint = runs / "runs/digits/version_0/checkpoints/best.ckpt"
    words = (images, "--checkpoint", checkpoint, "--examples", "2")
    result = run_cli("-m", "smmix_pl.cli.demo", *words, cwd=tmp_path, program="python")
    assert result.returncode == 0, result.stderr[-2000:]
    with Image.open(tmp_path / "mixing.png") as picture:
        assert picture.size == (1440, 660)
        assert len(set(picture.convert("L").getdata())) > 50
    for words, told in (
        ((tmp_path / "none", "--checkpoint", checkpoint), "none is not a folder; point IMAGES"),
        ((images, "--checkpoint", tmp_path / "none.ckpt"), "there is no file"),
        ((images, "--checkpoint", checkpoint, "--side", "9"), "the model's grid takes 1 to 3"),
    ):
        assert told in refusal(draw_mixing, words, capsys)
