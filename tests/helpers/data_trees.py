"""Tiny datasets of real JPEG files in the layouts of the owners' archives.

They list all classes of the original, but have images of a few.
"""

import json
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from smmix_pl.data.datasets.corrupted import CORRUPTIONS


@cache
def jpeg(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """Return a JPEG of random colors, with the given width and height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def put(file: Path, content: bytes | str | None = None) -> Path:
    """Write a file, by default a JPEG, and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        file.write_text(content)
    else:
        file.write_bytes(jpeg() if content is None else content)
    return file


def class_tree(root: Path, names, per_class: int = 2, suffix: str = ".JPEG") -> Path:
    """Write class folders of JPEGs."""
    for name in names:
        for index in range(per_class):
            put(root / name / f"{name}_{index}{suffix}", jpeg(index))
    return root


def cub(root: Path) -> Path:
    """200 species; three of them have two training images and one test image."""
    folder = root / "CUB_200_2011"
    species = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    rows = [(s, f"{name}/{name[4:]}_{i}.jpg") for s, name in enumerate(species) for i in range(3)]
    species += [f"{number:03d}.Bird_{number}" for number in range(4, 201)]
    for _, name in rows:
        put(folder / "images" / name)
    numbered = list(enumerate(rows, start=1))
    lists = {
        "images.txt": [f"{n} {name}" for n, (_, name) in numbered],
        "image_class_labels.txt": [f"{n} {s + 1}" for n, (s, _) in numbered],
        "train_test_split.txt": [
            f"{n} {int(not name.endswith('2.jpg'))}" for n, (_, name) in numbered
        ],
        "classes.txt": [f"{s} {name}" for s, name in enumerate(species, start=1)],
        "bounding_boxes.txt": [f"{n} {n}.0 2.0 20.0 25.0" for n, _ in numbered],
    }
    for name, lines in lists.items():
        put(folder / name, "\n".join(lines) + "\n")
    return root


def cars(root: Path, wrapped: str = "stanford_cars") -> Path:
    """196 models, of which two have images, with the original devkit."""
    folder = root / wrapped
    kinds = np.dtype([("fname", object), ("class", np.uint8)])
    parts = {"train": [1, 1, 2], "test": [2, 1]}
    (folder / "devkit").mkdir(parents=True)
    files = {
        "train": folder / "devkit" / "cars_train_annos.mat",
        "test": folder / "cars_test_annos_withlabels.mat",
    }
    for part, labels in parts.items():
        names = [f"{i:05d}.jpg" for i in range(1, len(labels) + 1)]
        for name in names:
            put(folder / f"cars_{part}" / name)
        rows = np.array(list(zip(names, labels, strict=True)), dtype=kinds)
        savemat(files[part], {"annotations": rows})
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    names += [f"Car {number}" for number in range(3, 197)]
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})
    return root


def aircraft(root: Path) -> Path:
    """100 variants; two of them have one image each in train, val and test."""
    data = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "F-16A/B", *(f"Variant {number}" for number in range(3, 101))]
    put(data / "variants.txt", "\n".join(variants) + "\n")
    for number, part in enumerate(("train", "val", "test")):
        lines = []
        for label, name in enumerate(("707-320", "F-16A/B")):
            image = f"{1000000 + 10 * number + label}"
            put(data / "images" / f"{image}.jpg")
            lines.append(f"{image} {name}")
        put(data / f"images_variant_{part}.txt", "\n".join(lines) + "\n")
    both = [(data / f"images_variant_{part}.txt").read_text() for part in ("train", "val")]
    put(data / "images_variant_trainval.txt", "".join(both))
    return root


def flowers(root: Path, wrapped: str = "flowers-102") -> Path:
    """Seven images of three of the 102 species."""
    folder = root / wrapped
    for number in range(1, 8):
        put(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 3, 1, 2, 102, 3]])})
    parts = {
        "trnid": np.array([[1, 2]]),
        "valid": np.array([[3, 7]]),
        "tstid": np.array([[4, 5, 6]]),
    }
    savemat(folder / "setid.mat", parts)
    return root


def pets(root: Path, wrapped: str = "oxford-iiit-pet") -> Path:
    """37 breeds with one training image or two; only the second has a test image."""
    folder = root / wrapped
    others = [f"breed_{number}_1 {number} 2 1" for number in range(3, 38)]
    lists = {
        "trainval": [
            *("Abyssinian_1 1 1 1", "american_bulldog_7 2 2 1", "Abyssinian_2 1 1 1"),
            *others,
        ],
        "test": ["american_bulldog_9 2 2 1"],
    }
    for part, lines in lists.items():
        put(folder / "annotations" / f"{part}.txt", "\n".join(lines) + "\n")
        for line in lines:
            put(folder / "images" / f"{line.split()[0]}.jpg")
    trimap = np.full((30, 40), 2, dtype=np.uint8)
    trimap[10:20, 5:25], trimap[12:18, 8:20] = 3, 1
    (folder / "annotations" / "trimaps").mkdir()
    Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / "american_bulldog_9.png")
    return root


def inaturalist(root: Path, year: str = "2018") -> Path:
    """All species, of which two have images; category ids are not consecutive."""
    count = {"2018": 8142, "2019": 1010}[year]
    names = {
        "train": ["Aves/3/a.jpg", "Aves/3/b.jpg", "Plantae/7/c.jpg"],
        "val": ["Plantae/7/d.jpg"],
    }
    for part, files in names.items():
        files = [f"train_val{year}/{name}" for name in files]
        for name in files:
            put(root / name)
        entries = {
            "images": [{"id": n, "file_name": name} for n, name in enumerate(files)],
            "annotations": [
                {"id": n, "image_id": n, "category_id": int(name.split("/")[2])}
                for n, name in enumerate(files)
            ],
            "categories": [
                {"id": 7, "name": "Rosa canina"},
                {"id": 3, "name": "Parus major"},
                *({"id": n, "name": f"Species {n}"} for n in range(8, count + 6)),
            ],
        }
        put(root / f"{part}{year}.json", json.dumps(entries))
    return root


def imagenette(root: Path, wrapped: str = "imagenette2-320") -> Path:
    """Ten classes with two training images and one test image each."""
    names = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]
    names += ["n03394916", "n03417042", "n03425413", "n03445777", "n03888257"]
    for part, count in (("train", 2), ("val", 1)):
        class_tree(root / wrapped / part, names, count)
    return root


def tiny_imagenet(root: Path) -> Path:
    """200 classes; `wnids.txt` is not sorted, as in the archive."""
    folder = root / "tiny-imagenet-200"
    names = ["n02124075", "n01443537", *(f"n9{number:07d}" for number in range(198))]
    put(folder / "wnids.txt", "\n".join(names) + "\n")
    for name in names:
        put(folder / "train" / name / "images" / f"{name}_0.JPEG")
        put(folder / "train" / name / f"{name}_boxes.txt", "")
    rows = ["val_0.JPEG\tn02124075\t0\t0\t9\t9", "val_1.JPEG\tn01443537\t0\t0\t9\t9"]
    for row in rows:
        put(folder / "val" / "images" / row.split("\t")[0])
    put(folder / "val" / "val_annotations.txt", "\n".join(rows) + "\n")
    put(folder / "test" / "images" / "test_0.JPEG")
    return root


def devkit(root: Path, classes: list[str], truth: list[int]) -> Path:
    """Write ImageNet's devkit: leaves numbered from 1, then inner nodes, and the ground truth."""
    kinds = [
        ("ILSVRC2012_ID", object),
        ("WNID", object),
        ("words", object),
        ("num_children", object),
    ]
    rows = [(n, name, "words", 0) for n, name in enumerate(classes, start=1)]
    rows.append((len(classes) + 1, "n00001740", "entity", 2))
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    lines = "\n".join(map(str, truth))
    put(data / "ILSVRC2012_validation_ground_truth.txt", lines + "\n")
    return root


def write_cifar_c(folder: Path, count: int = 10) -> None:
    """Image i is gray of level i % 10; at severity s, the first s of a corruption are wrong."""
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


def voc(root: Path) -> Path:
    """Two images with masks: a dog with a void border, and a cat with a person."""
    folder = root / "VOCdevkit" / "VOC2012"
    objects = {
        "2007_000001": [("dog", (5, 5, 20, 24))],
        "2007_000002": [("person", (1, 1, 10, 10)), ("cat", (11, 3, 40, 30))],
    }
    for name, boxes in objects.items():
        put(folder / "JPEGImages" / f"{name}.jpg")
        entries = "".join(
            f"<object><name>{category}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
            f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
            for category, box in boxes
        )
        put(folder / "Annotations" / f"{name}.xml", f"<annotation>{entries}</annotation>")
        mask = np.zeros((30, 40), dtype=np.uint8)
        for category, (left, top, right, bottom) in boxes:
            mask[top - 1 : bottom, left - 1 : right] = {"dog": 12, "person": 15, "cat": 8}[category]
        mask[:2] = 255
        (folder / "SegmentationClass").mkdir(exist_ok=True)
        Image.fromarray(mask).convert("P").save(folder / "SegmentationClass" / f"{name}.png")
    for image_set in ("Segmentation", "Main"):
        for part in ("train", "val", "trainval"):
            put(folder / "ImageSets" / image_set / f"{part}.txt", "\n".join(objects) + "\n")
    return root


def coco(root: Path) -> Path:
    """Two categories with the ids 3 and 7, and four images; the last has no object but a crowd."""
    runs = {"size": [30, 40], "counts": [0, 60, 1140]}  # the two leftmost columns
    triangle = [20, 10, 36, 10, 20, 26]
    crowd = {"category_id": 3, "bbox": [0, 0, 2, 30], "segmentation": runs, "iscrowd": 1}
    rows = [
        {"image_id": 1, "category_id": 7, "bbox": [4, 6, 20, 12], "iscrowd": 0},
        {"image_id": 1} | crowd,
        {"image_id": 2, "category_id": 3, "bbox": [20, 10, 16, 16], "segmentation": [triangle]},
        {"image_id": 3, "category_id": 7, "bbox": [1, 1, 30, 20], "segmentation": []},
        {"image_id": 4} | crowd,
    ]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in (1, 2, 3, 4)]
    content = {
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "images": images,
        "annotations": [{"id": n} | row for n, row in enumerate(rows)],
    }
    for part in ("train2017", "val2017"):
        for image in images:
            put(root / part / str(image["file_name"]))
        put(root / "annotations" / f"instances_{part}.json", json.dumps(content))
    return root
