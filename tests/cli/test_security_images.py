"""Attacks through images and names: no code they contain runs, and names are data.

Every attack tries to create a file, the marker. SECURITY.md lists what is defended.
"""

import csv
import os
import struct
import subprocess
import zlib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from helpers.data_trees import class_tree, jpeg, put
from helpers.digits import quiet_trainer
from helpers.programs import refusal
from PIL import EpsImagePlugin, Image

from smmix_pl import InputError, SMMix, SMMixModule
from smmix_pl.callbacks import PredictionsCSV
from smmix_pl.cli.main import main
from smmix_pl.data import Folder
from smmix_pl.data.io.images import BadImage, open_image
from smmix_pl.data.io.shard_writer import write
from smmix_pl.plots.mixing_figure import MixedExample, MixedImage, mixing_figure

SMALL = {"image_size": 16, "batch_size": 2, "num_workers": 0}


def png(width, height):
    """A PNG's header, checksum and all, and the beginning of its pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 99) + b"IDAT"


BOMBS = {
    "png": png(100_000, 100_000),
    "ppm": b"P6\n100000 100000\n255\n",
    "bmp": b"BM" + struct.pack("<IHHIIiiHH", 60, 0, 0, 54, 40, 100_000, 100_000, 1, 24) + bytes(24),
    "png that Pillow only warns of": png(10_000, 10_000),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", BOMBS)
def test_huge_image_is_not_decoded(marker, kind):
    file = put(Path("bomb.jpg"), BOMBS[kind])
    with pytest.raises(BadImage, match=r"bomb\.jpg.*pixels"):
        open_image(str(file))


def test_postscript_named_jpg_is_not_run(marker, monkeypatch):
    """Pillow detects the format by content and would start Ghostscript, here a fake one."""
    program = put(Path("bin/gs"), f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent.resolve()}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    Image.new("RGB", (8, 8)).save("cat.jpg", "EPS")
    with Image.open("cat.jpg") as image, pytest.raises((OSError, subprocess.SubprocessError)):
        image.load()
    assert marker.exists()  # without the defense
    marker.unlink()
    with pytest.raises(BadImage, match=r"cat\.jpg"):
        open_image("cat.jpg")


NAMES = [
    "$(touch marker)",
    "`touch marker`",
    "; touch marker; #",
    "-rf",
    "two\nlines",
    "quotes\"and'more,",
    "<img src=x onerror=alert(1)>",
    "=HYPERLINK(0)",
    "$\\frac$",
    "{marker!r:%s}",
]


@pytest.mark.filterwarnings("ignore")
def test_names_of_files_and_classes_are_data(marker):
    classes = sorted([*NAMES, "plain"])
    class_tree(Path("images/train"), classes, per_class=1)
    names = [*NAMES, "latin1_\udcff", "plain"]
    for name in names:
        put(Path("new") / f"{name}.jpg")
    data = Folder(root="images", val="train", predict_dir="new", **SMALL)
    model = SMMixModule(
        num_classes=len(classes),
        image_size=(16, 16),
        batch_size=2,
        mixer=SMMix(),
        backbone="vit_tiny_patch16_224",
        backbone_args={"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 1},
    )
    quiet_trainer(PredictionsCSV("found.csv")).predict(model, data, return_predictions=False)
    with open("found.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == sorted(f"new/{name}.jpg" for name in names)
    assert {row["class"] for row in rows} <= set(classes)
    assert len(rows[0]) == 3


def test_figures_show_class_names_literally(marker):
    image, attention = torch.zeros(3, 8, 8), torch.zeros(2, 2)
    for name in ("$\\frac$", "<script>alert('$1$')</script>"):
        mixed = {"SMMix": MixedImage(image, (0.75, 0.25))}
        one = (image, image, attention, attention, (name, name), mixed, (0, 0, 1), (0, 0, 1))
        mixing_figure([MixedExample(*one)]).savefig("mixing.svg")
        ElementTree.parse("mixing.svg")
        assert "<script" not in Path("mixing.svg").read_text()


def test_class_name_with_a_line_break_is_reported(marker):
    """The class list of shards has one name per line, so it would shift the others."""
    class_tree(Path("images/train"), ["ant", "bee\nwasp", "cat"])
    with pytest.raises(InputError, match=r"'bee\\nwasp'"):
        write(Path("images"), Path("shards"))


def test_class_name_that_is_not_utf8_is_reported(marker):
    class_tree(Path("images/train"), ["ant", "bee_\udcff"], per_class=1)
    with pytest.raises(InputError, match="UTF-8"):
        Folder(root="images", val="train", **SMALL).prepare_data()


def test_names_cannot_forge_output(marker, capsys):
    for name in ("evil\ntrain: good\x1b[2J", "latin1_\udcff"):
        put(Path("images/train/ant") / f"{name}.jpg", b"")
    put(Path("images/train/bee/1.jpg"), jpeg())
    words = ["--data", "smmix_pl.data.Folder", "--data.root", "images", "--data.val", "train"]
    with pytest.raises(SystemExit) as stop:
        main(["check-data", *words])
    printed = capsys.readouterr().out
    assert stop.value.code == 1
    assert "images/train/ant/evil train: good\\x1b[2J.jpg" in printed
    assert "latin1_\\udcff.jpg" in printed
    assert [line for line in printed.splitlines() if line.startswith("train: good")] == []
    error = refusal(main, ["export", "\x1b[2J\ngone.ckpt", "--output", "out.onnx"], capsys)
    assert "\\x1b[2J gone.ckpt" in error
