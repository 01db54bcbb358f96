"""Real attacks by files and words: nothing they carry is run, and each ends in a sentence.

Every attack tries to leave a file, ``marker``; SECURITY.md says what is defended and what is not.
"""

import csv
import io
import json
import os
import pickle
import struct
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from helpers.data_trees import class_tree, jpeg, put
from helpers.digits import quiet_trainer
from helpers.killed_runs import RECIPE
from PIL import EpsImagePlugin, Image

from smmix_pl import InputError, SMMix, SMMixModule
from smmix_pl.callbacks import PredictionsCSV
from smmix_pl.cli.check_data import main as check_main
from smmix_pl.cli.main import main
from smmix_pl.data import CIFAR10, CIFAR10C, CIFAR100, Folder, LitData, Shards, StanfordCars
from smmix_pl.data.datasets.imagenet import read_devkit
from smmix_pl.data.io.download import unpack
from smmix_pl.data.io.images import BadImage, open_image
from smmix_pl.data.io.shard_writer import write
from smmix_pl.data.io.tar import images_in_tar
from smmix_pl.models.weights import open_checkpoint
from smmix_pl.plots.mixing_figure import MixedExample, mixing_figure
from smmix_pl.reporting.comparison import main as compare_main
from smmix_pl.runs.export_weights import main as export_main

SMALL = {"image_size": 16, "batch_size": 2, "num_workers": 0}


class Trap:
    """Runs a shell command where it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """In the working folder; must not exist when a test ends."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "marker"
    assert not (tmp_path / "marker").exists()


def sentence(capsys, program, words):
    """What a program says about bad input, once it has ended with status 2."""
    with pytest.raises(SystemExit) as stop:
        program([str(word) for word in words])
    told = capsys.readouterr().err.strip()
    assert stop.value.code == 2, told
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith("error: "), told
    return told.splitlines()[-1]


def test_the_attacks_work_where_nothing_defends(tmp_path):
    """Else the tests below could not fail."""
    pickle.loads(pickle.dumps(Trap(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


# Checkpoints


def zipped(marker):
    content = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2)}, "trap": Trap(marker)}, content)
    return content.getvalue()


def legacy(marker):
    content = io.BytesIO()
    torch.save({"trap": Trap(marker)}, content, _use_new_zipfile_serialization=False)
    return content.getvalue()


def plain(marker):
    return pickle.dumps(Trap(marker))


def script(marker):
    """A whole model, as TorchScript keeps it, with its code."""
    content = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), content)
    return content.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.ckpt", "a.pth", "a.safetensors"])
@pytest.mark.parametrize("kind", [zipped, legacy, plain, script])
def test_no_code_in_a_checkpoint_is_run(marker, kind, name):
    file = put(Path(name), kind(marker))
    with pytest.raises(InputError, match="cannot be opened as weights"):
        open_checkpoint(file)


def test_a_compressed_checkpoint_is_refused(marker):
    """Torch compresses nothing, so what is compressed is there to unpack to more than one sees."""
    weights, bomb = io.BytesIO(), Path("bomb.ckpt")
    torch.save({"state_dict": {"a": torch.zeros(2)}}, weights)
    with zipfile.ZipFile(weights) as read, zipfile.ZipFile(bomb, "w") as written:
        for member in read.namelist():
            written.writestr(member, read.read(member), zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="is compressed"):
        open_checkpoint(bomb)


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_checkpoint_is_told_whatever_is_damaged(marker, seed):
    content, rng = io.BytesIO(), np.random.default_rng(seed)
    torch.save({"a": torch.zeros(2), "b": [1, "x"]}, content, _use_new_zipfile_serialization=False)
    for _ in range(40):
        damaged = bytearray(content.getvalue())
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        try:
            open_checkpoint(put(Path("damaged.pth"), bytes(damaged)))
        except InputError as error:
            assert "damaged.pth cannot be opened as weights" in str(error)


@pytest.fixture
def recipe(marker):
    """A recipe that trains on the digits, and a checkpoint with a trap."""
    put(Path("recipe.yaml"), RECIPE)
    put(Path("trap.ckpt"), zipped(marker))


COMMANDS = {
    "fit": ["fit", "--config", "recipe.yaml", "--ckpt_path", "trap.ckpt"],
    "test": ["test", "--config", "recipe.yaml", "--ckpt_path", "trap.ckpt"],
    "init_from": ["fit", "--config", "recipe.yaml", "--model.init_from", "trap.ckpt"],
    "timm": [
        *("fit", "--config", "recipe.yaml"),
        *("--model.backbone_args.checkpoint_path", "trap.ckpt"),
    ],
    "timm's own source": [
        *("fit", "--config", "recipe.yaml", "--model.pretrained", "true"),
        "--model.backbone_args.pretrained_cfg={file: trap.ckpt}",
    ],
    "timm's own source, over another": [
        *("fit", "--config", "recipe.yaml", "--model.pretrained", "true"),
        "--model.backbone_args.pretrained_cfg_overlay={file: trap.ckpt}",
    ],
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", COMMANDS)
def test_no_command_runs_code_in_a_checkpoint(recipe, kind, capsys):
    told = sentence(capsys, main, COMMANDS[kind])
    assert "trap.ckpt" in told
    assert (
        "model.init_from" if kind.startswith("timm") else "holds code, which is not run"
    ) in told


@pytest.mark.filterwarnings("ignore")
def test_a_run_does_not_go_on_from_a_trap_or_a_folder(recipe, capsys, caplog):
    put(Path("runs/small/version_0/checkpoints/last.ckpt"), Path("trap.ckpt").read_bytes())
    words = ["fit", "--config", "recipe.yaml", "--trainer.max_epochs=1"]
    words += ["--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
    told = sentence(capsys, main, [*words, "--ckpt_path", "last"])
    assert "version_0/checkpoints can be opened, last.ckpt among them" in told
    assert "holds code, which is not run (GLOBAL posix.system)" in caplog.text
    put(Path("shards.ckpt/.metadata"), Path("trap.ckpt").read_bytes())
    assert "there is no checkpoint shards.ckpt" in sentence(
        capsys, main, [*words, "--ckpt_path", "shards.ckpt"]
    )


def test_the_other_programs_run_no_code_either(recipe, capsys):
    assert "holds code" in sentence(capsys, export_main, ["trap.ckpt", "out.onnx"])
    settings = {"backbone": "vit_tiny_patch16_224", "num_classes": 10, "image_size": [16, 16]}
    settings |= {"mean": [0.5], "std": [0.5], "backbone_args": {"checkpoint_path": "trap.ckpt"}}
    torch.save({"hyper_parameters": settings, "state_dict": {"a": torch.zeros(1)}}, "ours.ckpt")
    told = sentence(capsys, export_main, ["ours.ckpt", "out.onnx"])
    assert "backbone_args.checkpoint_path is 'trap.ckpt'" in told
    put(Path("run/results.json"), Path("trap.ckpt").read_bytes())
    assert "is not JSON" in sentence(capsys, compare_main, ["run"])


def test_names_in_results_are_no_paths(recipe, capsys):
    """They name the pictures that a comparison writes."""
    run = {"model": "vit", "mixer": "SMMix", "data": "Digits", "image_size": [16, 16], "seed": 0}
    columns = {"total": [1], "confidence": [0.5], "accuracy": [0.5], "images": 1, "protocol": {}}
    content = {"run": run | {"git_commit": None}, "metrics": {}, "curves": {}}
    for name in ("../../picture", str(Path("picture").absolute())):
        forged = json.dumps(content | {"reliability": {name: columns}})
        put(Path("run/results.json"), forged.encode())
        told = sentence(capsys, compare_main, ["run", "--output", "deep/er"])
        assert "was not written by smmix_pl's Results" in told
    assert not list(Path().rglob("picture*"))


# Configs and command lines

TAGS = [
    "!!python/object/apply:os.system ['touch marker']",
    "trainer: !!python/object/apply:subprocess.Popen [[touch, marker]]",
    "model: {mixer: !!python/object/new:os.system ['touch marker']}",
    "seed_everything: !!python/name:os.system",
    "data: !!python/module:evil",
]


@pytest.mark.parametrize("text", TAGS)
def test_tags_of_a_config_make_no_objects(marker, text, capsys):
    put(Path("evil.py"), "open('marker', 'w')")
    put(Path("evil.yaml"), text)
    told = sentence(capsys, main, ["fit", "--config", "evil.yaml"])
    assert "evil.yaml is not a YAML file: could not determine a constructor" in told


IMPORTING = "smmix_pl.callbacks.output.results_file"  # imports subprocess
POPEN = "init_args: {args: [touch, marker]}"
CONFIGS = {
    "function": ("model: {mixer: {class_path: os.system}}", "os.system"),
    "class": (f"model: {{mixer: {{class_path: subprocess.Popen, {POPEN}}}}}", "subprocess.Popen"),
    "by way of ours": (
        f"trainer: {{callbacks: [{{class_path: {IMPORTING}.subprocess.Popen, {POPEN}}}]}}",
        "subprocess.Popen",
    ),
    "callable": (
        "trainer: {callbacks: [{class_path: LambdaCallback,"
        " init_args: {on_fit_start: smmix_pl.cli.input_errors.os.system}}]}",
        "system",
    ),
    "module from here": ("data: {class_path: evil.Data}", "evil.Data"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_names_classes_of_known_packages_only(marker, kind, capsys, monkeypatch):
    monkeypatch.syspath_prepend(".")
    put(Path("evil.py"), "open('marker', 'w')")
    text, name = CONFIGS[kind]
    put(Path("evil.yaml"), text)
    told = sentence(capsys, main, ["fit", "--config", "digits.yaml", "--config", "evil.yaml"])
    assert name in told
    assert "is of no package that configs may name" in told or "not a subclass" in told, told


@pytest.mark.parametrize(
    "words",
    [
        ["--model.mixer", "os.system"],
        ["--trainer.callbacks+=subprocess.Popen", "--trainer.callbacks.args=[touch, marker]"],
        ["--model.mixer", "!!python/object/apply:os.system ['touch marker']"],
        ["--model.backbone", "$(touch marker)"],
    ],
)
def test_words_of_a_command_line_are_data(marker, words, capsys):
    sentence(capsys, main, ["fit", "--config", "digits.yaml", *words])


def test_the_check_of_a_data_set_imports_known_packages_only(marker, monkeypatch, capsys):
    monkeypatch.syspath_prepend(".")
    put(Path("evil.py"), "open('marker', 'w')")
    with pytest.raises(SystemExit) as stop:
        check_main(["--data", "evil.Data"])
    assert stop.value.code == 2
    assert "evil.Data is of no package that configs may name" in capsys.readouterr().err


# Data sets


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100])
def test_a_poisoned_cifar_is_not_unpickled(marker, cls):
    """torchvision unpickles; but only files of the right checksum."""
    for name, _ in [*cls.source.train_list, *cls.source.test_list]:
        put(Path(cls.source.base_folder) / name, plain(marker))
    put(Path(cls.source.base_folder) / cls.source.meta["filename"], plain(marker))
    data = cls(root=".", **SMALL)
    for stage in ("fit", "test"):
        with pytest.raises(InputError, match=r"\. does not hold CIFAR"):
            data.setup(stage)


def test_a_poisoned_array_is_not_unpickled(marker):
    trap = io.BytesIO()
    np.save(trap, np.array([Trap(marker)], dtype=object), allow_pickle=True)
    for content in (trap.getvalue(), plain(marker), b"PK\3\4"):
        for name in ("labels", "gaussian_noise"):
            put(Path(f"CIFAR-10-C/{name}.npy"), content)
        put(Path("classes.txt"), "ant\nbee\n")
        put(Path("test/classes.npy"), content)
        for cls in (CIFAR10C, LitData):
            with pytest.raises(InputError, match="is cut off or no array"):
                cls(root=".", **SMALL).images("test", lambda image: image)


def test_poisoned_matlab_files_are_told(marker):
    devkit = Path("ILSVRC2012_devkit_t12/data")
    put(devkit / "meta.mat", plain(marker))
    put(devkit / "ILSVRC2012_validation_ground_truth.txt", "1\n")
    with pytest.raises(InputError, match=r"meta\.mat"):
        read_devkit(Path("."))
    for name in ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat"):
        put(Path("stanford_cars") / name, plain(marker))
    put(Path("stanford_cars/cars_train/1.jpg"))
    with pytest.raises(InputError, match=r"cars_meta\.mat holds no class_names"):
        StanfordCars(root=".", **SMALL)


@pytest.mark.filterwarnings("ignore")
def test_pickled_items_of_litdata_are_refused(marker):
    from litdata.streaming import Cache

    put(Path("classes.txt"), "ant\nbee\n")
    np.save(Path(put(Path("test/x"), "").parent, "classes.npy"), np.zeros(1, dtype=np.int64))
    Path("test/x").unlink()
    cache = Cache("test", chunk_bytes=1000)
    cache[0] = {"image": Trap(marker), "class": 0}
    cache.done()
    cache.merge()
    with pytest.raises(InputError, match="its items are pickled, which could run code"):
        LitData(root=".", **SMALL).images("test", lambda image: image)


def member(name, content=b"", **attributes):
    found = tarfile.TarInfo(name)
    found.size = len(content)
    for key, value in attributes.items():
        setattr(found, key, value)
    return found, io.BytesIO(content)


def tar_of(*members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for info, body in members:
            tar.addfile(info, body if info.isreg() else None)
    return content.getvalue()


OUT = {
    "link": [
        member("out", type=tarfile.SYMTYPE, linkname="/tmp"),
        member("out/smmix_marker", b"evil"),
    ],
    "link up": [member("a/out", type=tarfile.SYMTYPE, linkname="../../marker")],
    "hard link": [member("out", type=tarfile.LNKTYPE, linkname="../secret")],
    "device": [member("out", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "pipe": [member("out", type=tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", OUT)
def test_links_and_devices_in_an_archive_are_refused(marker, kind):
    put(Path("secret"), "secret")
    put(Path("evil.tar"), tar_of(*OUT[kind]))
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(Path("evil.tar"), Path("inside"))
    assert not Path("/tmp/smmix_marker").exists()
    assert not [path for path in Path("inside").rglob("*") if not path.is_dir()]


def test_a_link_in_a_zip_is_a_file_with_its_text(marker):
    link = zipfile.ZipInfo("out")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile("evil.zip", "w") as zipped_:
        zipped_.writestr(link, "../marker")
    unpack(Path("evil.zip"), Path("inside"))
    assert Path("inside/out").read_text() == "../marker"
    assert not Path("inside/out").is_symlink()


def test_members_of_a_tar_that_are_no_files_are_left_out(marker):
    """Of one that is read where it is; its names are data, wherever they point."""
    put(
        Path("train.tar"),
        tar_of(
            member("loop.tar", type=tarfile.SYMTYPE, linkname="loop.tar"),
            member("null.tar", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
            member("secret.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            member("../../$(touch marker).jpg", jpeg()),
        ),
    )
    assert [found.name for found in images_in_tar(Path("train.tar"))] == [
        "../../$(touch marker).jpg"
    ]


@pytest.mark.parametrize("sparse", [True, False])
def test_a_tar_that_claims_more_than_it_holds_is_told(marker, sparse):
    claims = {"GNU.sparse.size": str(2**40)} if sparse else {}
    tar = bytearray(tar_of(member("a.jpg", jpeg(), pax_headers=claims), member("b.jpg", jpeg())))
    if not sparse:
        tar[124:136] = b"%011o\0" % 2**32
        tar[148:156] = b" " * 8
        tar[148:156] = b"%06o\0 " % sum(tar[:512])
    put(Path("train.tar"), bytes(tar))
    with pytest.raises(InputError, match=r"train\.tar (is cut off inside a\.jpg|cannot be read)"):
        images_in_tar(Path("train.tar"))


def test_tars_in_tars_end(marker):
    content = tar_of(member("a.jpg", b"x"))
    for _ in range(400):
        content = tar_of(member("a.tar", content))
    put(Path("deep.tar"), content)
    with pytest.raises(InputError, match=r"deep\.tar cannot be read"):
        images_in_tar(Path("deep.tar"))


def test_a_class_number_is_a_number(marker):
    put(Path("classes.txt"), "ant\nbee\n")
    tar = tar_of(member("1.jpg", jpeg()), member("1.cls", b"__import__('os').system('touch m')"))
    put(Path("train-0.tar"), tar)
    with pytest.raises(InputError, match="where a class number is expected"):
        Shards(root=".", **SMALL).samples("train")


# Images


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
def test_an_image_of_a_huge_size_is_not_decoded(marker, kind):
    file = put(Path("bomb.jpg"), BOMBS[kind])
    with pytest.raises(BadImage, match=r"bomb\.jpg.*pixels"):
        open_image(str(file))


def test_postscript_in_an_image_is_not_run(marker, monkeypatch):
    """Pillow goes by content and would start Ghostscript; here a program of its name."""
    program = put(Path("bin/gs"), f"#!/bin/sh\ntouch '{marker}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent.resolve()}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    Image.new("RGB", (8, 8)).save("cat.jpg", "EPS")
    with Image.open("cat.jpg") as image, pytest.raises((OSError, subprocess.SubprocessError)):
        image.load()
    assert marker.exists()  # so it would without a defence
    marker.unlink()
    with pytest.raises(BadImage, match=r"cat\.jpg cannot be read as an image"):
        open_image("cat.jpg")


# Names

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


def test_names_of_classes_are_drawn_as_they_are(marker):
    image, attention = torch.zeros(3, 8, 8), torch.zeros(2, 2)
    for name in ("$\\frac$", "<script>alert('$1$')</script>"):
        one = (image, image, image, attention, attention, (0, 0, 1), (0, 0, 1), (name, name), 0.5)
        mixing_figure([MixedExample(*one)]).savefig("mixing.svg")
        ElementTree.parse("mixing.svg")
        assert "<script" not in Path("mixing.svg").read_text()


def test_a_class_of_two_lines_cannot_shift_the_others(marker):
    """The list of classes beside shards has one a line."""
    class_tree(Path("images/train"), ["ant", "bee\nwasp", "cat"])
    with pytest.raises(InputError, match=r"'bee\\nwasp'"):
        write(Path("images"), Path("shards"))


def test_a_class_name_that_is_no_text_is_told(marker):
    class_tree(Path("images/train"), ["ant", "bee_\udcff"], per_class=1)
    with pytest.raises(InputError, match="is not UTF-8; rename it"):
        Folder(root="images", val="train", **SMALL)


def test_names_cannot_forge_what_is_printed(marker, capsys):
    for name in ("evil\ntrain: good\x1b[2J", "latin1_\udcff"):
        put(Path("images/train/ant") / f"{name}.jpg", b"")
    put(Path("images/train/bee/1.jpg"), jpeg())
    words = ["--data", "smmix_pl.data.Folder", "--data.root", "images", "--data.val", "train"]
    with pytest.raises(SystemExit) as stop:
        check_main(words)
    told = capsys.readouterr().out
    assert stop.value.code == 1
    assert "bad: images/train/ant/evil train: good\\x1b[2J.jpg cannot be read" in told
    assert "latin1_\\udcff.jpg" in told
    assert [line for line in told.splitlines() if line.startswith("train: good")] == []
    told = sentence(capsys, export_main, ["\x1b[2J\ngone.ckpt", "out.onnx"])
    assert "\\x1b[2J gone.ckpt" in told
