"""Which files of a folder are read, and how images of unusual kinds are converted."""

import struct

import numpy as np
import pytest
from helpers.image_folders import write_image_folder
from helpers.programs import TINY_FLAGS, refusal, run_here
from PIL import Image

from smmix_pl import InputError
from smmix_pl.cli.main import main
from smmix_pl.data import Folder
from smmix_pl.data.io.file_lists import IgnoredFiles, image_files
from smmix_pl.data.transforms import EvalTransform, eval_transform

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def images(tmp_path):
    """A folder with two images in each of three classes."""
    return write_image_folder(tmp_path / "images", CLASSES, per_class=2)


def count(root):
    return len(Folder(train=".", root=str(root), image_size=8, num_workers=0).samples("train"))


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".gif", ".avif", ".JPEG", ".tif", ".webp"])
def test_every_suffix_of_a_supported_format_is_read(images, suffix):
    picture = Image.new("RGB", (20, 20), "red")
    try:
        picture.save(images / "ant" / f"x{suffix}")
    except (KeyError, ValueError):
        pytest.skip(f"this Pillow writes no {suffix}")
    assert count(images) == 7


def test_ignored_files_are_counted_by_suffix(images):
    for name in ("a.txt", "b.TXT", "c.heic", "README"):
        (images / "bee" / name).touch()
    with pytest.warns(IgnoredFiles) as caught:
        assert count(images) == 6
    [warning] = caught
    for part in (".txt: 2", ".heic: 1", "no suffix: 1", "4 files"):
        assert part in str(warning.message)


def test_each_image_is_read_once(images, tmp_path):
    """Links to folders are followed; hidden copies and repeated folders add nothing."""
    write_image_folder(images / "ant" / ".ipynb_checkpoints", ["x"], per_class=3)
    (images / "ant" / ".hidden.jpg").write_bytes((images / "ant" / "0.JPEG").read_bytes())
    assert count(images) == 6
    outside = write_image_folder(tmp_path / "elsewhere", ["more"], per_class=2) / "more"
    (images / "ant" / "more").symlink_to(outside)
    assert count(images) == 8
    (images / "ant" / "again").symlink_to(outside)
    (images / "ant" / "itself").symlink_to(images / "ant")
    (images / "ant" / "above").symlink_to(images)
    assert count(images) == 8


def test_prediction_reads_the_files_that_training_reads(images, tmp_path):
    (images / "ant" / "more").symlink_to(write_image_folder(tmp_path / "elsewhere"))
    (images / "ant" / ".copies").mkdir()
    data = Folder(train=".", root=str(images), image_size=8, num_workers=0, predict_dir=str(images))
    data.setup("predict")
    predicted = [name for _, names in data.predict_dataloader() for name in names]
    trained = [source for source, _ in data.samples("train")]
    assert sorted(predicted) == sorted(map(str, trained))
    assert sorted(predicted) == sorted(image_files(images)[0])


def test_names_that_look_the_same_are_reported_as_such(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for part, name in (("train", composed), ("val", decomposed)):
        write_image_folder(tmp_path / part, ["tea", name], per_class=2)
    data = Folder(root=str(tmp_path), image_size=8, batch_size=2, num_workers=0)
    with pytest.raises(InputError) as error:
        data.setup("fit")
    assert ascii(composed) in str(error.value)
    assert ascii(decomposed) in str(error.value)


def two_pages(file):
    """Write a TIFF whose second page is damaged."""
    pages = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    pages[0].save(file, save_all=True, append_images=pages[1:])
    content = file.read_bytes()
    (first,) = struct.unpack_from("<I", content, 4)  # offset of the first page's directory
    (entries,) = struct.unpack_from("<H", content, first)
    (second,) = struct.unpack_from("<I", content, first + 2 + 12 * entries)
    assert second > first
    file.write_bytes(content[: second + 1])


def rotated(file):
    """Write a TIFF with an EXIF rotation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10), "red").save(file, exif=exif)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "note"), [(two_pages, "first frame"), (rotated, "rotation is applied")]
)
def test_unusual_tiffs_are_read_in_the_same_way_by_check_and_fit(tmp_path, write, note):
    root = write_image_folder(tmp_path / "images", CLASSES, per_class=2)
    write(root / "ant" / "page.tif")
    words = ["--data=Folder", f"--data.root={root}", "--data.train=.", "--data.held_out=0.3"]
    report = run_here("check-data", *words, cwd=tmp_path)
    assert note in report
    assert "good" in report
    data = Folder(train=".", root=str(root), image_size=8, num_workers=0, held_out=0.3)
    transform = eval_transform(EvalTransform(), (8, 8))
    assert all(image.shape == (3, 8, 8) for image, _ in data.images("train", transform))


@pytest.mark.filterwarnings("ignore")
def test_pixels_without_a_fixed_range_are_refused_by_fit_and_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = write_image_folder(tmp_path / "images", CLASSES, per_class=4)
    Image.fromarray(np.full((16, 16), 0.5, dtype=np.float32)).save(root / "ant" / "float.tif")
    data = ["--data=Folder", f"--data.root={root}", "--data.train=.", "--data.held_out=0.3"]
    with pytest.raises(SystemExit):
        main(["check-data", *data])
    assert "float.tif" in "".join(capsys.readouterr())
    fit = ["fit", *data, *TINY_FLAGS, "--trainer.logger=false", "--data.batch_size=4"]
    fit += ["--trainer.callbacks=[]", "--trainer.max_epochs=2", "--data.repeats=1"]
    assert "float.tif" in refusal(main, fit, capsys)
