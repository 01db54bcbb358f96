"""Every dataset in the layout of its owner's archive."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import data_trees
from helpers.data_trees import class_tree, put
from helpers.sampling import every
from torchvision import datasets

from smmix_pl.data import (
    CIFAR10,
    CIFAR100,
    CUB,
    Aircraft,
    Flowers102,
    Folder,
    ImageNet,
    Imagenette,
    INaturalist,
    OxfordPets,
    StanfordCars,
    Table,
    TinyImageNet,
)
from smmix_pl.errors import InputError

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}


def labels(data, split):
    return list(data.images(split, np.asarray).targets)


def opens(data):
    """Every image of every split can be read at the requested size."""
    data.setup("fit")
    data.setup("test")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        for images, classes in loader:
            assert images.dtype == torch.uint8
            assert images.shape[1:] == (3, 32, 32)
            assert images.shape[0] == len(classes)


def test_cub(tmp_path):
    data = CUB(root=str(data_trees.cub(tmp_path)), **SMALL)
    assert data.class_names[:2] == ["Black footed Albatross", "Laysan Albatross"]
    assert data.num_classes == len(data.class_names) == 200
    assert labels(data, "train") == [0, 0, 1, 1, 2, 2]
    assert labels(data, "val") == labels(data, "test") == [0, 1, 2]
    opens(data)


def test_root_may_be_the_unpacked_folder_itself(tmp_path):
    data_trees.cub(tmp_path)
    assert len(CUB(root=str(tmp_path / "CUB_200_2011"), **SMALL).class_names) == 200


@pytest.mark.parametrize("wrapped", ["stanford_cars", "."])
def test_cars_devkit(tmp_path, wrapped):
    data = StanfordCars(root=str(data_trees.cars(tmp_path, wrapped)), **SMALL)
    assert data.class_names[:2] == ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"]
    assert labels(data, "train") == [0, 0, 1]
    assert labels(data, "val") == labels(data, "test") == [1, 0]
    opens(data)


def test_cars_class_folders(tmp_path):
    names = ["Acura RL Sedan 2012", *(f"Car {number:03d}" for number in range(195))]
    for part, count in (("train", 2), ("test", 1)):
        class_tree(tmp_path / part, names, count)
    data = StanfordCars(root=str(tmp_path), **SMALL)
    assert data.class_names == names
    assert labels(data, "train")[:4] == [0, 0, 1, 1]
    assert labels(data, "test") == list(range(196))


def test_aircraft_trains_on_train_and_val(tmp_path):
    data = Aircraft(root=str(data_trees.aircraft(tmp_path)), **SMALL)
    assert data.class_names[:2] == ["707-320", "F-16A/B"]
    assert labels(data, "train") == [0, 1, 0, 1]
    assert labels(data, "test") == [0, 1]
    opens(data)


@pytest.mark.parametrize("wrapped", ["flowers-102", "."])
def test_flowers(tmp_path, wrapped):
    folder = data_trees.flowers(tmp_path, wrapped) / wrapped

    class TinyFlowers(Flowers102):
        archives = tuple(
            archive._replace(md5=hashlib.md5((folder / archive.gives).read_bytes()).hexdigest())
            for archive in Flowers102.archives
            if archive.gives.endswith(".mat")
        )

    data = TinyFlowers(root=str(tmp_path), **SMALL)
    assert data.num_classes == 102
    assert [labels(data, part) for part in ("train", "val", "test")] == [
        [0, 1],
        [2, 2],
        [0, 1, 101],
    ]
    opens(data)
    with pytest.raises(InputError, match=r"imagelabels\.mat.*checksum"):
        Flowers102(root=str(tmp_path), **SMALL).images("train", np.asarray)
    (folder / "setid.mat").unlink()
    with pytest.raises(InputError, match=r"setid\.mat"):
        data.images("train", np.asarray)


@pytest.mark.parametrize("wrapped", ["oxford-iiit-pet", "."])
def test_pets(tmp_path, wrapped):
    data = OxfordPets(root=str(data_trees.pets(tmp_path, wrapped)), **SMALL)
    assert data.class_names[:2] == ["Abyssinian", "American Bulldog"]
    assert labels(data, "train")[:3] == [0, 1, 0]
    assert labels(data, "test") == [1]
    opens(data)


@pytest.mark.parametrize("year", ["2018", "2019"])
def test_inaturalist(tmp_path, year):
    data = INaturalist(version=year, root=str(data_trees.inaturalist(tmp_path, year)), **SMALL)
    assert data.num_classes == {"2018": 8142, "2019": 1010}[year]
    assert data.class_names[:2] == ["Parus major", "Rosa canina"]
    assert labels(data, "train") == [0, 0, 1]
    assert labels(data, "val") == labels(data, "test") == [1]
    opens(data)


def test_tiny_imagenet(tmp_path):
    data = TinyImageNet(root=str(data_trees.tiny_imagenet(tmp_path)), **SMALL)
    assert data.class_names[:2] == ["goldfish", "Egyptian cat"]
    assert labels(data, "train") == list(range(200))
    assert labels(data, "val") == labels(data, "test") == [1, 0]
    opens(data)


@pytest.mark.parametrize("wrapped", ["imagenette2-320", "."])
def test_imagenette(tmp_path, wrapped):
    data = Imagenette(root=str(data_trees.imagenette(tmp_path, wrapped)), shots=1, **SMALL)
    assert data.class_names[:2] == ["tench", "English springer"]
    assert labels(data, "train") == [number for number in range(10) for _ in range(2)]
    assert labels(data, "val") == labels(data, "test") == list(range(10))
    opens(data)
    assert data.counts == {"train": 10, "val": 10, "test": 10}


def test_folder_with_parts(tmp_path):
    for part, count in (("train", 3), ("val", 1), ("test", 2)):
        class_tree(tmp_path / part, ["ant", "bee"], count, ".png")
    data = Folder(root=str(tmp_path), test="test", **SMALL)
    assert [len(labels(data, part)) for part in ("train", "val", "test")] == [6, 2, 4]
    assert len(labels(Folder(root=str(tmp_path), **SMALL), "test")) == 2


def test_folder_without_parts_holds_out(tmp_path):
    class_tree(tmp_path, ["ant", "bee"], 10)
    data = Folder(train=".", val=None, held_out=0.2, root=str(tmp_path), **SMALL)
    data.setup("fit")
    assert len(data.train_dataloader()) == 8
    assert [len(classes) for _, classes in data.val_dataloader()] == [2, 2]
    with pytest.raises(InputError, match=r"data\.test"):
        data.setup("test")


def write_cifar(root: Path, kind: str) -> type:
    """Write CIFAR's pickled batches, and return torchvision's reader with their checksums."""
    rng = np.random.default_rng(0)
    source = datasets.CIFAR10 if kind == "10" else datasets.CIFAR100
    folder = root / source.base_folder
    key = "labels" if kind == "10" else "fine_labels"
    sums = {}
    for name, _ in source.train_list + source.test_list:
        pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        batch = {"data": pixels, key: [n % int(kind) for n in range(20)]}
        put(folder / name, pickle.dumps(batch))
    meta = put(folder / source.meta["filename"], pickle.dumps({source.meta["key"]: ["x"] * 100}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    lists = {
        "train_list": [[name, sums[name]] for name, _ in source.train_list],
        "test_list": [[name, sums[name]] for name, _ in source.test_list],
        "meta": {**source.meta, "md5": sums[meta.name]},
    }
    return type("Tiny", (source,), lists)


@pytest.mark.parametrize(("cls", "train"), [(CIFAR10, 100), (CIFAR100, 20)])
def test_cifar(tmp_path, cls, train):
    tiny = type("TinyCIFAR", (cls,), {"source": write_cifar(tmp_path, cls.__name__[5:])})
    data = tiny(root=str(tmp_path), **SMALL)
    assert len(labels(data, "train")) == train
    assert labels(data, "test")[:3] == [0, 1, 2]
    assert len(data.class_names) == int(cls.__name__[5:])
    opens(data)


@pytest.mark.parametrize(
    "cls",
    [
        CUB,
        StanfordCars,
        Aircraft,
        Flowers102,
        OxfordPets,
        INaturalist,
        TinyImageNet,
        Imagenette,
        ImageNet,
        Folder,
        Table,
    ],
)
def test_an_empty_folder_is_refused_before_a_run_starts(tmp_path, cls):
    with pytest.raises(InputError, match=str(tmp_path)):
        cls(root=str(tmp_path), **SMALL).prepare_data()
    with pytest.raises(InputError, match=r"none.*data\.root"):
        cls(root=str(tmp_path / "none"), **SMALL)


@pytest.mark.parametrize(
    ("cls", "tree", "lost"),
    [
        (CUB, data_trees.cub, "CUB_200_2011/train_test_split.txt"),
        (StanfordCars, data_trees.cars, "stanford_cars/cars_test_annos_withlabels.mat"),
        (Aircraft, data_trees.aircraft, "fgvc-aircraft-2013b/data/variants.txt"),
        (OxfordPets, data_trees.pets, "oxford-iiit-pet/annotations/test.txt"),
        (TinyImageNet, data_trees.tiny_imagenet, "tiny-imagenet-200/val/val_annotations.txt"),
        (INaturalist, data_trees.inaturalist, "val2018.json"),
    ],
)
def test_an_incomplete_archive_is_refused(tmp_path, cls, tree, lost):
    (tree(tmp_path) / lost).unlink()
    with pytest.raises(InputError, match=lost.rsplit("/", 1)[-1]):
        cls(root=str(tmp_path), **SMALL).images("test", np.asarray)


def test_duplicate_class_names_are_refused(tmp_path):
    data_trees.cub(tmp_path)
    names = ["Wren", "Wren", *(f"Bird {number}" for number in range(3, 201))]
    lines = "".join(f"{n} {n:03d}.{name}\n" for n, name in enumerate(names, start=1))
    put(tmp_path / "CUB_200_2011" / "classes.txt", lines)
    with pytest.raises(InputError, match=r"2 classes.*'Wren'"):
        CUB(root=str(tmp_path), **SMALL).setup("fit")


def test_a_list_with_too_few_classes_is_refused(tmp_path):
    data_trees.cub(tmp_path)
    put(tmp_path / "CUB_200_2011" / "classes.txt", "1 001.Wren\n2 002.Tern\n")
    data = CUB(root=str(tmp_path), **SMALL)
    assert data.num_classes == 200
    with pytest.raises(InputError, match=r"2 classes.*200"):
        data.setup("fit")


def test_validation_classes_must_equal_those_of_train(tmp_path):
    class_tree(tmp_path / "train", ["ant", "bee"])
    class_tree(tmp_path / "val", ["ant", "cat"])
    with pytest.raises(InputError, match="'bee'"):
        Folder(root=str(tmp_path), **SMALL).setup("fit")


def test_hidden_folders_are_not_classes(tmp_path):
    for part in ("train", "val"):
        class_tree(tmp_path / part, ["ant", "bee"])
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    put(tmp_path / "val" / ".cache" / "thumbnail.jpg")
    data = Folder(root=str(tmp_path), **SMALL)
    assert data.class_names == ["ant", "bee"]
    opens(data)


def test_a_folder_named_like_an_image_is_searched(tmp_path):
    class_tree(tmp_path / "train", ["ant", "bee"])
    file = put(tmp_path / "new" / "holiday.jpg" / "1.jpg")
    data = Folder(predict_dir=str(tmp_path / "new"), root=str(tmp_path), **SMALL)
    data.setup("predict")
    assert [names for _, names in data.predict_dataloader()] == [(str(file),)]


def test_a_label_out_of_range_is_refused(tmp_path):
    data_trees.cub(tmp_path)
    rows = (tmp_path / "CUB_200_2011" / "image_class_labels.txt").read_text().replace(" 3", " 201")
    put(tmp_path / "CUB_200_2011" / "image_class_labels.txt", rows)
    with pytest.raises(InputError, match=r"label 200.*200 classes"):
        CUB(root=str(tmp_path), **SMALL).setup("fit")


def flat_imagenet(root):
    class_tree(root / "train", ["n01440764", "n01443537"])
    for number in (1, 2):
        put(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    return data_trees.devkit(root, ["n01440764", "n01443537"], [2, 1])


LISTED = {
    Aircraft: data_trees.aircraft,
    CUB: data_trees.cub,
    Flowers102: data_trees.flowers,
    ImageNet: flat_imagenet,
    INaturalist: data_trees.inaturalist,
    OxfordPets: data_trees.pets,
    StanfordCars: data_trees.cars,
    TinyImageNet: data_trees.tiny_imagenet,
}
DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "a line short": lambda content: content[: content.rstrip().rfind(b"\n") + 1],
    "of another dataset": lambda content: b"7\n8\n9\n",
    "not a list": lambda content: b"\xff\xfe binary, \x00\x01",
}


@pytest.mark.parametrize("damage", every(3, DAMAGE))
@pytest.mark.parametrize("cls", LISTED, ids=lambda cls: cls.__name__)
def test_a_damaged_list_gives_one_clear_error(tmp_path, cls, damage):
    """Either the dataset opens (a damaged list can still be valid), or the error names it."""
    refused = 0
    root = LISTED[cls](tmp_path / "root")
    for file in [one for one in root.rglob("*") if one.suffix in (".txt", ".mat", ".json")]:
        if file.name.endswith("_boxes.txt"):
            continue
        content = file.read_bytes()
        file.write_bytes(DAMAGE[damage](content))
        try:
            data = cls(root=str(root), num_workers=0, image_size=32, batch_size=1)
            for stage in ("fit", "test"):
                data.setup(stage)
        except InputError as error:
            refused += 1
            assert str(root) in str(error)
            assert "\n" not in str(error)
        file.write_bytes(content)
    assert refused
