"""Out-of-distribution and corrupted test sets, in their published layouts."""

import json
from importlib.resources import files
from io import BytesIO

import numpy as np
import pytest
import torch
from data_trees import jpeg, put
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from smmix_pl.data import (
    CIFAR10C,
    CIFAR100C,
    CorruptionError,
    ImageNetA,
    ImageNetC,
    ImageNetO,
    ImageNetR,
    ImageNetReaL,
    ImageNetSketch,
    ImageNetV2,
    OutlierPrecision,
)
from smmix_pl.data.corruptions import ALEXNET_ERRORS, CORRUPTIONS
from smmix_pl.data.imagenet import WORDNET_IDS
from smmix_pl.data.scores import mean_corruption_error
from smmix_pl.errors import InputError

SMALL = {"image_size": 32, "batch_size": 16, "num_workers": 0}
INFO = files("timm.data") / "_info"


def one_each(root, folders, name="image.jpg"):
    content = jpeg()
    for folder in folders:
        put(root / folder / name, content)
    return root


@pytest.mark.parametrize(("cls", "key"), [(ImageNetA, "a"), (ImageNetR, "r")])
def test_subsets_are_labelled_in_imagenets_numbers(tmp_path, cls, key):
    wordnet_ids = (INFO / f"imagenet_{key}_synsets.txt").read_text().split()
    one_each(tmp_path / f"imagenet-{key}", wordnet_ids)
    data = cls(root=str(tmp_path), **SMALL)
    assert data.num_classes == 1000
    assert len(data.class_subset) == 200
    for source, label in data.samples("test"):
        assert source.split("/")[-2] == WORDNET_IDS[label]
    assert [label for _, label in data.samples("test")] == data.class_subset
    with pytest.raises(InputError, match="no training part"):
        data.setup("fit")


def test_sketch_and_v2_cover_all_classes(tmp_path):
    one_each(tmp_path / "sketch", WORDNET_IDS)
    one_each(tmp_path / "imagenetv2-matched-frequency-format-val", map(str, range(1000)))
    sketch, v2 = (
        ImageNetSketch(root=str(tmp_path), **SMALL),
        ImageNetV2(root=str(tmp_path), **SMALL),
    )
    assert sketch.class_subset is v2.class_subset is None
    assert [label for _, label in sketch.samples("test")] == list(range(1000))
    for source, label in v2.samples("test"):  # folders sort as words, labels count as numbers
        assert int(source.split("/")[-2]) == label
    with pytest.raises(InputError, match="threshold"):
        ImageNetV2(variant="threshold0.7", root=str(tmp_path), **SMALL)


def test_real_labels_go_by_the_name_of_the_file(tmp_path):
    real = json.loads((INFO / "imagenet_real_labels.json").read_text())
    for number, wordnet_id in enumerate(WORDNET_IDS, start=1):
        put(tmp_path / "val" / wordnet_id / f"ILSVRC2012_val_{number:08d}.JPEG")
    data = ImageNetReaL(root=str(tmp_path), **SMALL)
    data.setup("test")
    assert len(data.images("test", np.asarray)) == sum(bool(labels) for labels in real[:1000])
    _, right = next(iter(data.test_dataloader()))
    assert right.shape == (16, 1000)
    shown = [labels for labels in real[:1000] if labels][:16]
    assert [set(row.nonzero().flatten().tolist()) for row in right] == list(map(set, shown))


class Oracle(LightningModule):
    """Says what the mean colour of an image is: logit k is highest for the k-th level of grey."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def test_step(self, batch, batch_idx):
        images, classes = batch
        grey = (images.mean(dim=(1, 2, 3)) * 255).round()
        logits = -(grey[:, None] - torch.arange(self.classes)).abs()
        return {"logits": logits, "classes": classes}


def run(data, classes, callback):
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=[callback], **options)
    trainer.test(Oracle(classes), data, verbose=False)
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def write_cifar_c(folder, count=10):
    """Image i is grey of level i % 10, and at severity s the first s of a corruption are wrong."""
    folder.mkdir(parents=True)
    labels = np.arange(count) % 10
    for number, name in enumerate(CORRUPTIONS):
        levels = np.tile(labels, (5, 1))
        if number % 2 == 0:
            for severity in range(1, 6):
                levels[severity - 1, :severity] += 1
        pixels = np.broadcast_to(levels.reshape(-1, 1, 1, 1), (5 * count, 32, 32, 3))
        np.save(folder / f"{name}.npy", pixels.astype(np.uint8))
    np.save(folder / "labels.npy", np.tile(labels, 5))  # as published: repeated for each severity


@pytest.mark.parametrize(("cls", "name"), [(CIFAR10C, "CIFAR-10-C"), (CIFAR100C, "CIFAR-100-C")])
def test_corruption_error_on_cifar(tmp_path, cls, name):
    write_cifar_c(tmp_path / name)
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    found = run(cls(root=str(tmp_path), **SMALL, **plain), 10, CorruptionError())
    for number, corruption in enumerate(CORRUPTIONS):
        assert found[f"test/error_{corruption}"] == pytest.approx(0.3 if number % 2 == 0 else 0)
    assert found["test/mCE"] == pytest.approx(0.3 * 8 / 15)


def test_imagenet_c_layout_and_its_reference(tmp_path):
    for severity in ("1", "3"):
        one_each(tmp_path / "fog" / severity, WORDNET_IDS)
    chosen = {"corruptions": ["fog"], "severities": (1, 3)}
    data = ImageNetC(**chosen, root=str(tmp_path), **SMALL)
    data.setup("test")
    assert data.test_names == [("fog", 1), ("fog", 3)]
    assert data.test_ends == [1000, 2000]
    assert len(data.test_dataloader().dataset) == 2000
    assert mean_corruption_error({"fog": 0.5}, data.reference_errors) == 0.5 / 0.819324
    assert mean_corruption_error(ALEXNET_ERRORS, ALEXNET_ERRORS) == pytest.approx(1)
    with pytest.raises(InputError, match="snow/1/"):
        ImageNetC(corruptions=["snow"], root=str(tmp_path), **SMALL).setup("test")
    with pytest.raises(InputError, match="did you mean snow"):
        ImageNetC(corruptions=["snwo"], root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match="bad_images"):
        ImageNetC(bad_images="skip", root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match="severities"):
        ImageNetC(severities=(0,), root=str(tmp_path), **SMALL)


class Confident(LightningModule):
    """Bright images get a confident answer."""

    def test_step(self, batch, batch_idx):
        brightness = batch[0].mean(dim=(1, 2, 3))
        return {"logits": torch.stack([brightness, torch.zeros_like(brightness)], 1)}


def test_outliers_are_the_positives(tmp_path):
    def grey(level):
        buffer = BytesIO()
        Image.new("RGB", (32, 32), (level, level, level)).save(buffer, "PNG")
        return buffer.getvalue()

    for wordnet_id in WORDNET_IDS:
        put(tmp_path / "val" / wordnet_id / "v.png", grey(250))
    for number, wordnet_id in enumerate(WORDNET_IDS[10:14]):
        put(tmp_path / "imagenet-o" / wordnet_id / "o.png", grey([200, 150, 255, 180][number]))
    data = ImageNetO(root=str(tmp_path), mean=(0.0,) * 3, std=(0.1,) * 3, **SMALL)
    assert data.class_subset == [10, 11, 12, 13]
    assert [label for _, label in data.samples("test")] == [10, 11, 12, 13, -1, -1, -1, -1]
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=[OutlierPrecision()], **options)
    trainer.test(Confident(), data, verbose=False)
    # Three outliers come first; the one that is brighter than all known images comes last, of 8.
    expected = 3 / 4 * 1 + 1 / 4 * 4 / 8
    assert float(trainer.callback_metrics["test/AUPR"]) == pytest.approx(expected, abs=1e-3)
