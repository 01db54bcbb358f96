"""Bad images in a run: reported by name, skipped by option, never replaced."""

import tarfile
import warnings

import pytest
import torch
from helpers.data_trees import class_tree, jpeg, put
from helpers.digits import quiet_trainer
from helpers.small_runs import module
from lightning.pytorch import Trainer

from smmix_pl import NoMix
from smmix_pl.callbacks import Evaluation
from smmix_pl.data import Folder, ImageNet
from smmix_pl.errors import InputError
from smmix_pl.runs.results import EvalResult

SMALL = {"image_size": 32, "batch_size": 3}
BROKEN = {
    "empty.jpg": b"",
    "cut.jpg": jpeg(0, (300, 200))[:900],
    "text.jpg": b"this is no image at all",
}


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        class_tree(tmp_path / part, ["ant", "bee"], 6)
    return tmp_path


def train(data):
    data.setup("fit")
    return list(data.train_dataloader())


@pytest.mark.parametrize(("name", "workers"), [*((name, 0) for name in BROKEN), ("cut.jpg", 1)])
def test_a_bad_image_stops_the_run_with_its_path(folder, name, workers):
    file = put(folder / "train" / "ant" / name, BROKEN[name])
    with pytest.raises(InputError, match=r"data\.bad_images") as error:
        train(Folder(root=str(folder), num_workers=workers, **SMALL))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
    del error  # frees the loader; a garbage collection would wait five seconds for its worker


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_and_listed(folder, workers):
    for name, content in BROKEN.items():
        put(folder / "train" / "bee" / name, content)
    data = Folder(root=str(folder), num_workers=workers, bad_images="skip", **SMALL)
    with pytest.warns(UserWarning, match="3 bad images") as caught:
        batches = train(data)
    for name in BROKEN:
        assert str(folder / "train" / "bee" / name) in str(caught[0].message)
    assert sum(len(classes) for _, classes in batches) <= 12
    assert all(len(images) == len(classes) for images, classes in batches)


def test_skipped_images_are_listed_once_in_every_epoch(folder):
    """Lightning does not exhaust the loader, and Python shows the same warning once."""
    put(folder / "val" / "ant" / "cut.jpg", BROKEN["cut.jpg"])
    data = Folder(root=str(folder), num_workers=0, bad_images="skip", **SMALL)
    data.setup("validate")
    loader = data.val_dataloader()
    epochs = [iter(loader), iter(loader)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for epoch in epochs:
            for _ in range(len(loader)):
                next(epoch)
        assert len(caught) == 2
        del epochs, epoch
    assert len(caught) == 2
    assert "1 bad image" in str(caught[1].message)


def test_a_training_batch_without_a_good_image_stops_the_run(folder):
    for name in ("ant", "bee"):
        for index in range(6):
            put(folder / "train" / name / f"{name}_{index}.JPEG", b"")
    data = Folder(root=str(folder), num_workers=0, bad_images="skip", **SMALL)
    with pytest.warns(UserWarning, match="bad image"), pytest.raises(InputError, match=r"\.JPEG"):
        train(data)


def test_an_evaluation_batch_without_a_good_image_is_skipped(folder):
    for index in range(6):
        put(folder / "val" / "ant" / f"ant_{index}.JPEG", b"")
    data = Folder(root=str(folder), num_workers=0, bad_images="skip", **SMALL)
    data.setup("validate")
    with pytest.warns(UserWarning, match="6 bad images"):
        batches = list(data.val_dataloader())
    assert [classes.tolist() for _, classes in batches] == [[1, 1, 1], [1, 1, 1]]


class Places(Evaluation):
    """Keeps the evaluated images by their places."""

    def reset(self, trainer, model):
        self.images = {}

    def update(self, batch):
        self.images |= dict(zip(batch.places, batch.images, strict=True))

    def compute(self, images):
        return EvalResult({}, images)


@pytest.mark.filterwarnings("ignore:4 bad images")
def test_skipped_images_do_not_shift_the_places_of_others(folder):
    """Not within a batch, and not after a batch without a good image."""
    for index, file in enumerate(sorted((folder / "val").rglob("*.JPEG"))):
        put(file, jpeg(index))
    found = []
    for _ in range(2):
        data = Folder(root=str(folder), num_workers=0, bad_images="skip", **SMALL)
        model = module(NoMix(), num_classes=2, image_size=(32, 32))
        callback = Places()
        quiet_trainer(callback).test(model, data, verbose=False)
        found.append(callback.images)
        for name in ("ant/ant_1", "bee/bee_0", "bee/bee_1", "bee/bee_2"):
            put(folder / "val" / f"{name}.JPEG", b"")
    before, after = found
    assert [*after] == [0, 2, 3, 4, 5, 9, 10, 11]
    assert all(torch.equal(image, before[place]) for place, image in after.items())


def test_every_device_needs_an_image(folder):
    for file in [*(folder / "val").rglob("*_[2-5].JPEG")]:
        file.unlink()
    data = Folder(root=str(folder), num_workers=0, image_size=32, batch_size=1)
    data.trainer = Trainer(accelerator="cpu", devices=5, strategy="ddp", logger=False)
    for stage, part in (("fit", "val"), ("validate", "val"), ("test", "test"), ("predict",) * 2):
        with pytest.raises(InputError, match=rf"trainer\.devices.*4 {part} images.*5 devices"):
            data.setup(stage)
    data.trainer = Trainer(accelerator="cpu", devices=4, strategy="ddp", logger=False)
    for stage in ("fit", "validate", "test", "predict"):
        data.setup(stage)


def test_a_cached_bad_image_is_named(folder):
    file = put(folder / "train" / "ant" / "cut.jpg", BROKEN["cut.jpg"])
    with pytest.raises(InputError, match=str(file)):
        train(Folder(root=str(folder), num_workers=0, cache="host", **SMALL))


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_images_are_decoded_once(folder, workers):
    plain = Folder(root=str(folder), num_workers=workers, **SMALL)
    cached = Folder(root=str(folder), num_workers=workers, cache="host", **SMALL)
    plain.setup("validate")
    cached.setup("validate")
    expected = torch.cat([images for images, _ in plain.val_dataloader()])
    loader = cached.val_dataloader()
    first = torch.cat([images for images, _ in loader])
    for file in (folder / "val").rglob("*.JPEG"):
        file.unlink()
    second = torch.cat([images for images, _ in loader])
    assert torch.equal(expected, first)
    assert torch.equal(expected, second)


def test_a_tar_without_images_is_refused(tmp_path):
    """Its cache of pixels would be empty, too."""
    put(tmp_path / "train" / "n01440764" / "a.JPEG")
    put(tmp_path / "train" / "n01443537" / "b.JPEG")
    with tarfile.open(tmp_path / "val.tar", "w"):
        pass
    data = ImageNet(root=str(tmp_path), num_workers=0, image_size=32, batch_size=2, cache="host")
    for stage in ("fit", "predict"):
        with pytest.raises(InputError, match=f"{tmp_path}.*no images"):
            data.setup(stage)
