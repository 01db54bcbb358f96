"""Tiny datasets of noise in their official layouts, to check that a benchmark target works."""

import pickle
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets

from smmix_pl.data import CIFAR100


class _Pickles(datasets.CIFAR100):
    """torchvision's reader, without the checksums of the real files."""

    train_list = [["train", None]]  # noqa: RUF012 - as in torchvision
    test_list = [["test", None]]  # noqa: RUF012
    meta = datasets.CIFAR100.meta | {"md5": None}


class GeneratedCIFAR100(CIFAR100):
    """CIFAR-100 whose pickles contain noise."""

    source = _Pickles


FLAGS = [
    *("--data.image_size", "64", "--data.num_workers", "0", "--model.pretrained", "false"),
    *("--model.backbone_args.depth", "2", "--model.backbone_args.embed_dim", "48"),
    *("--model.backbone_args.num_heads", "3", "--trainer.enable_progress_bar", "false"),
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"),
    *("--trainer.limit_val_batches", "1", "--trainer.accumulate_grad_batches", "1"),
    *("--data.batch_size", "4", "--trainer.precision", "32-true", "--trainer.devices", "1"),
]
"""Options for a small model and one epoch of two steps."""


def flags(data: str) -> list[str]:
    """Return the options of a short run on a generated dataset."""
    generated = ["--data", "smoke_data.GeneratedCIFAR100"] if data == "CIFAR100" else []
    return generated + FLAGS


def cifar100(root: Path) -> Path:
    """Write the pickles of CIFAR-100 with 200 training and 100 test images."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 200), ("test", 100)):
        content = {
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            "fine_labels": [index % 100 for index in range(count)],
        }
        (folder / part).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(
        pickle.dumps({"fine_label_names": [f"class {n}" for n in range(100)]})
    )
    return root


def class_folders(root: Path, parts: tuple[str, str], classes: int, images: int) -> Path:
    """Write two splits of class folders."""
    for part in parts:
        for number in range(classes):
            _write_images(root / part / f"class{number:03d}", images)
    return root


def cars(root: Path) -> Path:
    """Write Stanford Cars as class folders."""
    return class_folders(root, ("train", "test"), 196, 1)


def imagenet(root: Path) -> Path:
    """Write ImageNet's folders with five classes."""
    return class_folders(root, ("train", "val"), 5, 4)


def aircraft(root: Path) -> Path:
    """Write FGVC-Aircraft with images of three variants."""
    data = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "A300B4", "Yak-42", *(f"Variant {n}" for n in range(4, 101))]
    names = _write_images(data / "images", 36)
    (data / "variants.txt").write_text("\n".join(variants) + "\n")
    for part, chosen in (("trainval", names[:24]), ("test", names[24:])):
        lines = [f"{name} {variants[i % 3]}\n" for i, name in enumerate(chosen)]
        (data / f"images_variant_{part}.txt").write_text("".join(lines))
    return root


def cub(root: Path) -> Path:
    """Write CUB-200-2011 with images of three species."""
    folder = root / "CUB_200_2011"
    species = [f"{n:03d}.Bird_{n}" for n in range(1, 201)]
    files = [
        f"{name}/{image}.jpg"
        for name in species[:3]
        for image in _write_images(folder / "images" / name, 8)
    ]
    numbered = list(enumerate(files, start=1))
    lists = {
        "images.txt": [f"{n} {file}" for n, file in numbered],
        "image_class_labels.txt": [f"{n} {int(file[:3])}" for n, file in numbered],
        "train_test_split.txt": [f"{n} {n % 2}" for n, _ in numbered],
        "classes.txt": [f"{n} {name}" for n, name in enumerate(species, start=1)],
    }
    for name, lines in lists.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return root


def _write_images(folder: Path, count: int) -> list[str]:
    """Write JPEGs of noise, and return their names without the suffix."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{index:07d}" for index in range(count)]
    for name in names:
        pixels = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.jpg")
    return names


WRITERS = {
    "CIFAR100": cifar100,
    "StanfordCars": cars,
    "Aircraft": aircraft,
    "CUB": cub,
    "ImageNet": imagenet,
}
