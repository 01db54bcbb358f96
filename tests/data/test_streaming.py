"""Shards, litdata chunks, and Hugging Face datasets: written, read, and distributed over ranks."""

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import processes
from helpers.data_trees import class_tree, put
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch.utils.data import DistributedSampler

from smmix_pl.data import HuggingFace, LitData, Shards
from smmix_pl.data.io.images import BadImage
from smmix_pl.data.io.shard_writer import write
from smmix_pl.data.validation import examine_splits
from smmix_pl.errors import InputError

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 5), ("val", 2)):
        class_tree(tmp_path / "folder" / part, ["ant", "bee", "cat"], count)
    return tmp_path / "folder"


def originals(folder, part):
    """Count the files by content and class index."""
    names = sorted(path.name for path in (folder / part).iterdir())
    files = (folder / part).rglob("*.JPEG")
    return Counter((path.read_bytes(), names.index(path.parent.name)) for path in files)


def test_shards_contain_the_files_of_the_folder(folder, tmp_path):
    write(folder, tmp_path / "shards", shard_mb=0.001)
    data = Shards(root=str(tmp_path / "shards"), **SMALL)
    assert data.class_names == ["ant", "bee", "cat"]
    assert len(list((tmp_path / "shards").glob("train-*.tar"))) > 3
    for part in ("train", "val"):
        found = Counter()
        for place, label in data.samples(part):
            content = Path(place.tar).read_bytes()[place.offset : place.offset + place.size]
            found[content, label] += 1
        assert found == originals(folder, part)
    assert data.samples("test") == data.samples("val")
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)


def test_the_webdataset_library_reads_the_shards(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write(folder, tmp_path / "shards")
    urls = sorted(map(str, (tmp_path / "shards").glob("train-*.tar")))
    rows = webdataset.WebDataset(urls, shardshuffle=False)
    assert Counter((row["jpg"], int(row["cls"])) for row in rows) == originals(folder, "train")


def test_shards_of_the_webdataset_library_are_read(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    put(tmp_path / "classes.txt", "ant\nbee\ncat\n")
    with webdataset.TarWriter(str(tmp_path / "train-000.tar")) as writer:
        for number, (content, label) in enumerate(originals(folder, "train").elements()):
            writer.write({"__key__": f"sample{number}", "jpg": content, "cls": label})
    data = Shards(root=str(tmp_path), **SMALL)
    assert Counter(label for _, label in data.samples("train")) == {0: 5, 1: 5, 2: 5}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_train_on_equal_parts_and_evaluate_every_image_once(folder, tmp_path, ranks):
    write(folder, tmp_path / "shards")
    images = Shards(root=str(tmp_path / "shards"), **SMALL).images("train", np.asarray)
    parts = [list(DistributedSampler(images, ranks, r, drop_last=True)) for r in range(ranks)]
    assert len({len(part) for part in parts}) == 1
    assert len(set().union(*parts)) == 15 // ranks * ranks
    evaluated = [
        index
        for r in range(ranks)
        for index in UnrepeatedDistributedSampler(images, ranks, r, shuffle=False)
    ]
    assert sorted(evaluated) == list(range(15))


def test_shards_are_not_written_over_others(folder, tmp_path):
    put(tmp_path / "half" / "train-000000.tar")  # of an interrupted conversion
    with pytest.raises(InputError, match="half"):
        write(folder, tmp_path / "half")


def test_the_check_reads_shards(folder, tmp_path):
    write(folder, tmp_path / "shards")
    train, val = examine_splits(
        Shards(root=str(tmp_path / "shards"), **SMALL), ["train", "val", "test"]
    )
    assert (train.images, val.images) == (15, 6)
    assert train.good
    assert val.good
    assert train.notes == val.notes == []


def test_an_image_without_a_class_is_refused(tmp_path):
    put(tmp_path / "classes.txt", "ant\nbee\n")
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        tar.add(put(tmp_path / "1.jpg"), "1.jpg")
        tar.add(put(tmp_path / "1.cls", "0"), "1.cls")
        tar.add(tmp_path / "1.jpg", "2.jpg")
    with pytest.raises(InputError, match=r"2\.jpg.*\.cls"):
        Shards(root=str(tmp_path), **SMALL).samples("train")


def test_missing_shards_are_named(tmp_path):
    put(tmp_path / "classes.txt", "ant\nbee\n")
    with pytest.raises(InputError, match=r"train-\*\.tar"):
        Shards(root=str(tmp_path), **SMALL).setup("fit")


def test_litdata(folder, tmp_path):
    pytest.importorskip("litdata")
    write(folder, tmp_path / "chunks", format="litdata", shard_mb=1)
    data = LitData(root=str(tmp_path / "chunks"), **SMALL)
    assert data.class_names == ["ant", "bee", "cat"]
    for part in ("train", "val"):
        images = data.images(part, np.asarray)
        assert originals(folder, part) == Counter(
            (images.items[index]["image"], label) for index, label in enumerate(images.targets)
        )
    assert data.images("test", np.asarray).targets == data.images("val", np.asarray).targets
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)
    (tmp_path / "chunks/train/index.json").unlink()
    with pytest.raises(InputError, match="chunks/train"):
        data.images("train", np.asarray)
    np.save(tmp_path / "chunks/val/classes.npy", np.zeros(2, dtype=np.int64))
    with pytest.raises(InputError, match=r"6 items.* 2 "):
        data.images("val", np.asarray)
    with pytest.raises(InputError, match=r"classes\.txt"):
        LitData(root=str(tmp_path), **SMALL).prepare_data()


def test_the_check_reads_litdata(tmp_path):
    """One thread does: litdata drops a chunk when another thread opens the next."""
    pytest.importorskip("litdata")
    for part in ("train", "val"):
        class_tree(tmp_path / "folder" / part, ["ant", "bee"], 60)
    write(tmp_path / "folder", tmp_path / "chunks", format="litdata", shard_mb=0.002)
    assert len(list((tmp_path / "chunks" / "train").glob("*.bin"))) > 10
    reports = examine_splits(
        LitData(root=str(tmp_path / "chunks"), **SMALL), ["train", "val", "test"]
    )
    assert [(report.part, report.images, report.faults()) for report in reports] == [
        ("train", 120, []),
        ("val", 120, []),
    ]


def test_workers_read_each_item_of_litdata_once(folder, tmp_path):
    pytest.importorskip("litdata")
    write(folder, tmp_path / "chunks", format="litdata", shard_mb=1)
    data = LitData(root=str(tmp_path / "chunks"), **SMALL | {"num_workers": 2})
    data.setup("validate")
    labels = [label for _, labels in data.val_dataloader() for label in labels.tolist()]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


RANK = """
import sys
import numpy as np
import torch.distributed as dist
from smmix_pl.data import LitData

dist.init_process_group("gloo")
data = LitData(root=sys.argv[1], image_size=32, batch_size=2, num_workers=0)
images = data.images("train", np.asarray)
print("rank", dist.get_rank(), len(images), len(np.unique([images[i][0].sum() for i in range(15)])))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_litdata_on_two_ranks_is_complete_on_each(folder, tmp_path):
    """The library counts the items of one rank; the sampler distributes the images."""
    pytest.importorskip("litdata")
    write(folder, tmp_path / "chunks", format="litdata", shard_mb=1)
    script = put(tmp_path / "rank.py", RANK)
    ranks = processes.run_ranks(2, script, tmp_path / "chunks", cwd=tmp_path)
    for rank, result in enumerate(ranks):
        assert result.returncode == 0, result.stderr[-2000:]
        assert f"rank {rank} 15 5" in result.stdout


def test_hugging_face(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache")
    )
    root = str(tmp_path / "saved")
    saved.save_to_disk(root)
    data = HuggingFace(root=root, **SMALL)
    assert data.num_classes == 3
    assert data.class_names == ["ant", "bee", "cat"]
    assert Counter(data.images("train", np.asarray).targets) == {0: 5, 1: 5, 2: 5}
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)
    assert sum(len(classes) for _, classes in data.val_dataloader()) == 6
    assert [report.part for report in examine_splits(data, ["train", "val", "test"])] == [
        "train",
        "val",
    ]
    named = HuggingFace(str(folder), "default", root=str(tmp_path / "cache"), **SMALL)
    assert named.class_names == data.class_names


def test_hugging_face_settings_that_do_not_fit_are_refused(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache")
    )
    root = str(tmp_path / "saved")
    saved.save_to_disk(root)
    saved["train"].save_to_disk(str(tmp_path / "one"))
    cases = [
        ({"image": "label", "root": root}, r"data\.image=label.*image"),
        ({"label": "image", "root": root}, r"data\.label=image.*label"),
        ({"test": "test", "root": root}, r"data\.test=test.*train, validation"),
        ({"root": str(tmp_path / "one")}, r"one.*DatasetDict"),
        ({"root": str(tmp_path / "none")}, r"none.*data\.root"),
        ({"name": str(folder), "config": "nothing", "root": root}, r"nothing.*data\.name"),
    ]
    for settings, expected in cases:
        data = HuggingFace(**settings, **SMALL)
        with pytest.raises(InputError, match=expected):
            _ = data.num_classes


def hub_rows(labels, names, images=None):
    """Return a split whose images show their class: gray of level 50 times its index in `abc`."""
    datasets = pytest.importorskip("datasets")
    levels = [0 if label is None or label < 0 else "abc".index(names[label][0]) for label in labels]
    pixels = [np.full((8, 8, 3), 50 * level, dtype=np.uint8) for level in levels]
    columns = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    rows = {"image": images or pixels, "label": labels}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(columns))


def hub_data(tmp_path, **splits):
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return HuggingFace(root=str(tmp_path / "saved"), **SMALL)


def test_hugging_face_splits_are_matched_by_class_name(tmp_path):
    train = hub_rows([0, 1, 2], ["a", "b", "c"])
    data = hub_data(tmp_path, train=train, validation=hub_rows([0, 1, 2], ["c", "a", "b"]))
    data.setup("validate")
    for images, classes in data.val_dataloader():
        assert [50 * label for label in classes.tolist()] == images[:, 0, 0, 0].tolist()
    assert all(report.good for report in examine_splits(data, ["train", "val"]))


@pytest.mark.parametrize("names", [["a", "b", "d"], ["a", "b"], ["a", "b", "c", "d"]])
def test_hugging_face_splits_with_other_classes_are_refused(tmp_path, names):
    train = hub_rows([0, 1, 2], ["a", "b", "c"])
    data = hub_data(tmp_path, train=train, validation=hub_rows([0, 1], names))
    with pytest.raises(InputError, match="validation") as error:
        data.setup("fit")
    assert repr("d" if "d" in names else "c") in str(error.value)


def test_a_hugging_face_split_without_labels_is_refused(tmp_path):
    train = hub_rows([0, 1], ["a", "b"])
    validation = hub_rows([0, 1], ["a", "b"]).remove_columns("label")
    data = hub_data(tmp_path, train=train, validation=validation)
    with pytest.raises(InputError, match=r"data\.label=label.*validation"):
        data.setup("fit")


@pytest.mark.parametrize(("label", "expected"), [(None, "row 1"), (-1, "label -1")])
def test_a_missing_hugging_face_label_is_refused(tmp_path, label, expected):
    train = hub_rows([0, 1], ["a", "b"])
    data = hub_data(tmp_path, train=train, validation=hub_rows([0, label], ["b", "a"]))
    with pytest.raises(InputError, match=expected) as error:
        data.setup("validate")
    assert "saved" in str(error.value)


def test_a_missing_hugging_face_image_is_a_bad_image(tmp_path):
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    train = hub_rows([0, 1], ["a", "b"], images=[image, None])
    data = hub_data(tmp_path, train=train, validation=hub_rows([0, 1], ["a", "b"]))
    with pytest.raises(BadImage, match="#1"):
        data.images("train", np.asarray)[1]
    train, val = examine_splits(data, ["train", "val"])
    assert [len(report.bad) for report in (train, val)] == [1, 0]
