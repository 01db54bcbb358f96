"""Bad images: told by name, skipped by option, never replaced; and the check that finds them."""

import tarfile
import warnings
from io import BytesIO

import numpy as np
import pytest
import torch
from helpers.data_trees import (
    aircraft,
    cars,
    class_tree,
    cub,
    devkit,
    flowers,
    inaturalist,
    jpeg,
    pets,
    put,
    tiny_imagenet,
)
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from smmix_pl.cli.check_data import main
from smmix_pl.data import (
    CUB,
    Aircraft,
    Flowers102,
    Folder,
    ImageNet,
    INaturalist,
    OxfordPets,
    StanfordCars,
    TinyImageNet,
    TrainTransform,
)
from smmix_pl.data.file_data import LabeledImages
from smmix_pl.data.io.images import BadImage, Content, open_image, to_rgb
from smmix_pl.data.transforms import train_transform
from smmix_pl.data.validation import examine, histogram, inspect
from smmix_pl.errors import InputError

SMALL = {"image_size": 32, "batch_size": 3}
GRADIENT = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)


def encoded(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_by_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (64, 48), (200, 30, 30)), "JPEG", exif=exif)


def animation():
    frames = [Image.new("RGB", (64, 48), color) for color in ("red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


ODD = {
    "cmyk.jpg": (encoded(Image.new("CMYK", (64, 48), (0, 255, 255, 0)), "JPEG"), "mode CMYK"),
    "palette.png": (encoded(Image.new("RGB", (64, 48), "red").quantize(), "PNG"), "mode P"),
    "deep.png": (encoded(Image.fromarray(GRADIENT), "PNG"), "mode I;16"),
    "alpha.png": (encoded(Image.new("RGBA", (64, 48), (255, 0, 0, 9)), "PNG"), "mode RGBA"),
    "moving.gif": (animation(), "the first of 2 frames"),
    "turned.jpg": (rotated_by_exif(), "rotated by EXIF, used as stored"),
}
BROKEN = {
    "empty.jpg": b"",
    "cut.jpg": jpeg(0, (300, 200))[:900],
    "text.jpg": b"this is no image at all",
    "cut.png": encoded(Image.fromarray(GRADIENT), "PNG")[:300],
}


@pytest.mark.parametrize("name", ODD)
def test_odd_images_are_read(tmp_path, name):
    image = to_rgb(open_image(str(put(tmp_path / name, ODD[name][0]))))
    assert image.mode == "RGB"
    assert image.size == (64, 48)
    pixels = np.asarray(image)
    if name == "deep.png":  # 16 bits keep their high byte
        assert np.array_equal(pixels[:, :, 0], GRADIENT >> 8)
    else:
        assert pixels[..., 0].mean() > 190
        assert pixels[..., 2].mean() < 60


GREY = {  # 16 bits keep their high byte, as above; small numbers in 32 bits are what they are
    "16.png": (encoded(Image.fromarray(GRADIENT), "PNG"), GRADIENT >> 8),
    "16.tif": (encoded(Image.fromarray(GRADIENT), "TIFF"), GRADIENT >> 8),
    "16.pgm": (encoded(Image.fromarray(GRADIENT.astype(np.int32)), "PPM"), GRADIENT >> 8),
    "32.tif": (encoded(Image.fromarray((GRADIENT >> 8).astype(np.int32)), "TIFF"), GRADIENT >> 8),
}


@pytest.mark.parametrize("name", GREY)
def test_deep_grey_is_read_alike_by_evaluation_and_training(tmp_path, name):
    content, expected = GREY[name]
    file = str(put(tmp_path / name, content))
    assert np.array_equal(np.asarray(to_rgb(open_image(file)))[:, :, 0], expected)
    whole = TrainTransform("resized", (1, 1), (4 / 3, 4 / 3), None, 0, 0, None)
    trained = train_transform(whole, (48, 64), (0, 0, 0))(open_image(file))
    assert np.array_equal(trained[0].numpy(), expected)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(40, 30), (400, 300)])
def test_a_decompression_bomb_is_not_decoded(tmp_path, monkeypatch, size):
    file = put(tmp_path / "bomb.jpg", jpeg(0, size))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(BadImage, match=r"bomb\.jpg"):
        open_image(str(file))


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        class_tree(tmp_path / part, ["ant", "bee"], 6)
    return tmp_path


def test_what_is_no_image_is_told_by_its_place_alone():
    with pytest.raises(BadImage, match=r"^row #3 cannot be read .* \(it is of no known format\)$"):
        open_image(Content("row #3", BROKEN["text.jpg"]))


def train(data):
    data.setup("fit")
    return list(data.train_dataloader())


@pytest.mark.parametrize(("name", "workers"), [*((name, 0) for name in BROKEN), ("cut.jpg", 1)])
def test_a_bad_image_stops_the_run_with_its_path(folder, name, workers):
    file = put(folder / "train" / "ant" / name, BROKEN[name])
    with pytest.raises(InputError) as told:
        train(Folder(root=str(folder), num_workers=workers, **SMALL))
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)
    assert "data.bad_images" in str(told.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_counted_and_told(folder, workers):
    for name, content in BROKEN.items():
        put(folder / "train" / "bee" / name, content)
    data = Folder(root=str(folder), num_workers=workers, bad_images="skip", **SMALL)
    with pytest.warns(UserWarning, match="4 bad images skipped") as told:
        batches = train(data)
    for name in BROKEN:
        assert str(folder / "train" / "bee" / name) in str(told[0].message)
    assert sum(len(classes) for _, classes in batches) <= 12
    assert all(len(images) == len(classes) for images, classes in batches)


def test_skipped_images_are_told_in_every_epoch(folder):
    """Once each, also where nobody asks for more than there is, as Lightning does not."""
    put(folder / "val" / "ant" / "cut.jpg", BROKEN["cut.jpg"])
    data = Folder(root=str(folder), num_workers=0, bad_images="skip", **SMALL)
    data.setup("validate")
    loader = data.val_dataloader()
    epochs = [iter(loader), iter(loader)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")  # tells the same warning of one place once
        for epoch in epochs:
            for _ in range(len(loader)):
                next(epoch)
        assert len(told) == 2
        del epochs, epoch
    assert len(told) == 2
    assert "1 bad image skipped in this epoch" in str(told[1].message)


def test_a_training_batch_without_a_good_image_stops_the_run(folder):
    for name in ("ant", "bee"):
        for index in range(6):
            put(folder / "train" / name / f"{name}_{index}.JPEG", b"")
    data = Folder(root=str(folder), num_workers=0, bad_images="skip", **SMALL)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(InputError, match="whole batch"):
        train(data)


def test_an_evaluation_batch_without_a_good_image_is_left_out(folder):
    for index in range(6):
        put(folder / "val" / "ant" / f"ant_{index}.JPEG", b"")
    data = Folder(root=str(folder), num_workers=0, bad_images="skip", **SMALL)
    data.setup("validate")
    with pytest.warns(UserWarning, match="6 bad images skipped"):
        batches = list(data.val_dataloader())
    assert [classes.tolist() for _, classes in batches] == [[1, 1, 1], [1, 1, 1]]


def test_every_device_needs_an_image(folder):
    for file in [*(folder / "val").rglob("*_[2-5].JPEG")]:
        file.unlink()
    data = Folder(root=str(folder), num_workers=0, image_size=32, batch_size=1)
    data.trainer = Trainer(accelerator="cpu", devices=5, strategy="ddp", logger=False)
    for stage, part in (("fit", "val"), ("validate", "val"), ("test", "test"), ("predict",) * 2):
        with pytest.raises(InputError, match=f"has 4 {part} images, fewer than the 5 devices"):
            data.setup(stage)
    data.trainer = Trainer(accelerator="cpu", devices=4, strategy="ddp", logger=False)
    for stage in ("fit", "validate", "test", "predict"):
        data.setup(stage)


def test_a_cached_bad_image_is_told_too(folder):
    file = put(folder / "train" / "ant" / "cut.jpg", BROKEN["cut.jpg"])
    with pytest.raises(InputError, match=str(file)):
        train(Folder(root=str(folder), num_workers=0, cache=True, **SMALL))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cached_set_is_decoded_once(folder, workers):
    plain = Folder(root=str(folder), num_workers=workers, **SMALL)
    cached = Folder(root=str(folder), num_workers=workers, cache=True, **SMALL)
    plain.setup("validate")
    cached.setup("validate")
    want = torch.cat([images for images, _ in plain.val_dataloader()])
    loader = cached.val_dataloader()
    first = torch.cat([images for images, _ in loader])
    for file in (folder / "val").rglob("*.JPEG"):
        file.unlink()
    second = torch.cat([images for images, _ in loader])
    assert torch.equal(want, first)
    assert torch.equal(want, second)


def test_a_tar_without_images_is_told(tmp_path):
    """The cache of its pixels is empty, too."""
    put(tmp_path / "train" / "n01440764" / "a.JPEG")
    put(tmp_path / "train" / "n01443537" / "b.JPEG")
    with tarfile.open(tmp_path / "val.tar", "w"):
        pass
    data = ImageNet(root=str(tmp_path), num_workers=0, image_size=32, batch_size=2, cache=True)
    for stage in ("fit", "predict"):
        with pytest.raises(InputError, match="holds no image of this part"):
            data.setup(stage)


@pytest.mark.parametrize("cache", ["false", "true"])
def test_the_check_finds_everything(folder, capsys, cache):
    for name, content in BROKEN.items():
        put(folder / "train" / "bee" / name, content)
    for name, (content, _) in ODD.items():
        put(folder / "val" / "ant" / name, content)
    words = ["--data", "smmix_pl.data.Folder", "--data.root", str(folder)]
    with pytest.raises(SystemExit) as status:
        main([*words, "--data.cache", cache])
    told = capsys.readouterr().out
    assert status.value.code == 1
    for name in BROKEN:
        assert f"bad: {folder / 'train' / 'bee' / name}" in told
    for name, (_, odd) in ODD.items():
        if name != "moving.gif":  # torchvision's class folders take no GIFs
            note = next(line for line in told.splitlines() if name in line)
            assert odd in note
    assert "train: 16 images in 2 classes" in told
    assert "train: BAD: 4 faults" in told
    assert "val: good" in told
    assert "test:" not in told  # the same images


def test_notes_name_their_image_in_a_set_of_any_size(tmp_path):
    """Threads are given a few thousand images at a time."""
    plain = str(put(tmp_path / "plain.jpg", jpeg(0, (8, 8))))
    odd, bad = (str(put(tmp_path / name, rotated_by_exif())) for name in ("odd.jpg", "bad.jpg"))
    put(tmp_path / "bad.jpg", b"")
    samples = [(plain, 0)] * 4100 + [(odd, 1), (bad, 1)]
    report = examine(LabeledImages(samples, inspect), {0: "ant", 1: "bee"}, "train", None)
    assert report.per_class == {"ant": 4100, "bee": 2}
    assert report.notes == [f"{odd}: rotated by EXIF, used as stored"]
    assert [bad in fault for fault in report.faults()] == [True]


def test_the_histogram_counts_every_class_once():
    lines = histogram([5, 5, 5, 7]).splitlines()
    assert [line.split()[:6] for line in lines] == [
        ["5", "to", "5", "images:", "3", "classes"],
        ["6", "to", "6", "images:", "0", "classes"],
        ["7", "to", "7", "images:", "1", "classes"],
    ]
    many = histogram(list(range(1, 101))).splitlines()
    assert sum(int(line.split()[4]) for line in many) == 100
    assert len(many) == 8


def test_the_check_passes_a_good_set(folder, capsys):
    with pytest.raises(SystemExit) as status:
        main(["--data", "smmix_pl.data.Folder", "--data.root", str(folder)])
    assert status.value.code == 0
    assert "2 classes ####" in capsys.readouterr().out


def test_a_run_can_check_before_it_starts(folder, capsys):
    data = Folder(root=str(folder), num_workers=0, check=True, **SMALL)
    data.setup("fit")
    assert "train: good" in capsys.readouterr().out
    data.setup(TrainerFn.TESTING)
    assert "test: good" in capsys.readouterr().out.splitlines()
    put(folder / "val" / "ant" / "empty.jpg", b"")
    with pytest.raises(InputError, match="the val part has 1 fault: "):
        data.setup("fit")


def test_the_check_counts_what_the_owner_counts(tmp_path, capsys):
    cub(tmp_path)
    with pytest.raises(SystemExit):
        main(["--data", "smmix_pl.data.CUB", "--data.root", str(tmp_path)])
    told = capsys.readouterr().out
    assert "6 images where its owner counts 5,994" in told
    assert "val: 3 images in 3 classes" in told
    assert "test:" not in told  # the same images


def test_the_check_finds_classes_that_there_are_not(tmp_path, capsys):
    labels = cub(tmp_path) / "CUB_200_2011" / "image_class_labels.txt"
    put(labels, labels.read_text().replace("1 1\n", "1 9\n", 1))
    with pytest.raises(SystemExit):
        main(["--data", "smmix_pl.data.CUB", "--data.root", str(tmp_path)])
    assert "bad: 1 image of class number 8, which there is not" in capsys.readouterr().out


def test_the_check_knows_that_train_may_be_all_there_is(tmp_path, capsys):
    class_tree(tmp_path, ["ant", "bee"], 6)
    words = ["--data", "smmix_pl.data.Folder", "--data.root", str(tmp_path), "--data.train", "."]
    with pytest.raises(SystemExit) as status:
        main([*words, "--data.val", "null", "--data.held_out", "0.2"])
    told = capsys.readouterr().out
    assert status.value.code == 0
    assert "train: good" in told
    assert "data.val and data.test are both null" in told
    with pytest.raises(SystemExit) as status:
        main([*words, "--data.val", "null"])
    assert status.value.code == 1
    capsys.readouterr()
    data = Folder(root=str(tmp_path), train=".", val=None, held_out=0.2, check=True, **SMALL)
    data.setup("fit")
    assert capsys.readouterr().out.count("train: good") == 1


def flat_imagenet(root):
    class_tree(root / "train", ["n01440764", "n01443537"])
    for number in (1, 2):
        put(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return devkit(root, ["n01440764", "n01443537"], [2, 1])


LISTED = {
    Aircraft: aircraft,
    CUB: cub,
    Flowers102: flowers,
    ImageNet: flat_imagenet,
    INaturalist: inaturalist,
    OxfordPets: pets,
    StanfordCars: cars,
    TinyImageNet: tiny_imagenet,
}
DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "a line short": lambda content: content[: content.rstrip().rfind(b"\n") + 1],
    "of another set": lambda content: b"7\n8\n9\n",
    "of no set": lambda content: b"\xff\xfe binary, \x00\x01",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("cls", LISTED, ids=lambda cls: cls.__name__)
def test_a_damaged_list_is_told_in_one_sentence(tmp_path, cls, damage):
    """Whichever list it is: the set opens (a list may be good as it is), or says what is wrong."""
    refused = 0
    lists = [
        file.relative_to(tmp_path / "plan")
        for file in LISTED[cls](tmp_path / "plan").rglob("*") or [tmp_path]
        if file.suffix in (".txt", ".mat", ".json")
    ]
    for number, name in enumerate(lists):
        root = tmp_path / str(number)
        LISTED[cls](root)
        content = (root / name).read_bytes()
        (root / name).write_bytes(DAMAGE[damage](content))
        try:
            data = cls(root=str(root), num_workers=0, image_size=32, batch_size=1)
            for stage in ("fit", "test"):
                data.setup(stage)
        except InputError as error:
            refused += 1
            assert str(root) in str(error)
            assert "\n" not in str(error)
    assert refused
