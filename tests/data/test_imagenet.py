"""ImageNet in each of its original layouts."""

import tarfile

import numpy as np
import pytest
from helpers.data_trees import class_tree, devkit, jpeg, put

from smmix_pl.data import ImageNet, ImageNetReaL
from smmix_pl.data.datasets.imagenet import WORDNET_IDS, readable_names
from smmix_pl.data.validation import examine_splits
from smmix_pl.errors import InputError

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}
TWO = ["n01440764", "n02102040"]


def flat_names(count):
    return [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, count + 1)]


def labels(data, split):
    return list(data.images(split, np.asarray).targets)


def make_tar(file, folder):
    """Write a tar of the contents of a folder, like `tar -cf file -C folder .`."""
    with tarfile.open(file, "w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                tar.add(path, str(path.relative_to(folder)))
    return file


def test_class_folders(tmp_path):
    class_tree(tmp_path / "train", TWO, 3)
    class_tree(tmp_path / "val", TWO, 1)
    data = ImageNet(root=str(tmp_path), **SMALL)
    assert data.class_names == ["tench", "English springer"]
    assert labels(data, "train") == [0, 0, 0, 1, 1, 1]
    assert labels(data, "val") == labels(data, "test") == [0, 1]
    assert data.sizes is None  # the size of a subset is unknown


def test_the_check_compares_the_sizes_of_all_classes(tmp_path):
    class_tree(tmp_path / "train", WORDNET_IDS, 1)
    class_tree(tmp_path / "val", WORDNET_IDS, 1)
    train, val = examine_splits(ImageNet(root=str(tmp_path), **SMALL), ["train", "val", "test"])
    assert [report.expected for report in (train, val)] == [1_281_167, 50_000]
    assert [len(report.faults()) for report in (train, val)] == [1, 1]
    assert ImageNetReaL(root=str(tmp_path), **SMALL).sizes.val == 46_837


def test_flat_validation_folder_with_devkit(tmp_path):
    class_tree(tmp_path / "train", TWO)
    for name in flat_names(3):
        put(tmp_path / "val" / name)
    (tmp_path / "val" / ".cache").mkdir()
    with pytest.raises(InputError, match="devkit"):
        ImageNet(root=str(tmp_path), **SMALL).images("val", np.asarray)
    devkit(tmp_path, [TWO[1], TWO[0]], [1, 2, 2])  # the devkit has its own class order
    assert labels(ImageNet(root=str(tmp_path), **SMALL), "val") == [1, 0, 0]
    put(tmp_path / "val" / flat_names(4)[-1])
    with pytest.raises(InputError, match=r"4 flat validation images.* 3"):
        ImageNet(root=str(tmp_path), **SMALL).images("val", np.asarray)


def test_a_flat_validation_image_of_a_class_without_a_folder_is_refused(tmp_path):
    class_tree(tmp_path / "train", TWO)
    for name in flat_names(2):
        put(tmp_path / "val" / name)
    devkit(tmp_path, [TWO[1], "n01443537"], [1, 2])
    with pytest.raises(InputError, match=r"'n01443537'.*train/"):
        ImageNet(root=str(tmp_path), **SMALL).setup("fit")


def test_original_tars(tmp_path):
    inner = tmp_path / "inner"
    for seed, name in enumerate(TWO):
        put(tmp_path / "raw" / name / f"{name}_1.JPEG", jpeg(seed))
        put(inner / f"{name}.tar", "")
        make_tar(inner / f"{name}.tar", tmp_path / "raw" / name)
    root = tmp_path / "root"
    root.mkdir()
    make_tar(root / "ILSVRC2012_img_train.tar", inner)
    for name in flat_names(2):
        put(tmp_path / "flat" / name)
    make_tar(root / "ILSVRC2012_img_val.tar", tmp_path / "flat")
    devkit(root, TWO, [2, 1])
    data = ImageNet(root=str(root), **SMALL)
    assert data.num_classes == 1000
    assert labels(data, "train") == [WORDNET_IDS.index(name) for name in TWO]
    assert labels(data, "val") == [WORDNET_IDS.index(name) for name in reversed(TWO)]
    sources = [source for source, _ in data.samples("train")]
    for seed, source in enumerate(sources):
        with open(source.tar, "rb") as file:
            file.seek(source.offset)
            assert file.read(source.size) == jpeg(seed)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)


def test_one_tar_of_class_folders(tmp_path):
    class_tree(tmp_path / "raw" / "train", TWO, 2)
    class_tree(tmp_path / "raw" / "val", TWO, 1)
    (tmp_path / "root").mkdir()
    make_tar(tmp_path / "root" / "imagenet.tar", tmp_path / "raw")
    data = ImageNet(root=str(tmp_path / "root"), **SMALL)
    assert len(labels(data, "train")) == 4
    assert len(labels(data, "val")) == 2


def test_a_truncated_tar_is_refused(tmp_path):
    class_tree(tmp_path / "raw" / "train", TWO, 2)
    tar = make_tar(tmp_path / "imagenet.tar", tmp_path / "raw")
    tar.write_bytes(tar.read_bytes()[:2000])
    data = ImageNet(root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match=r"imagenet\.tar"):
        data.images("train", np.asarray)


@pytest.mark.parametrize("rest", [b"", b"train/n0", b"x" * 1024], ids=["none", "cut", "other"])
def test_a_tar_truncated_between_two_files_is_refused(tmp_path, rest):
    """tarfile itself would read it as a shorter one."""
    class_tree(tmp_path / "raw" / "train", TWO, 2)
    file = make_tar(tmp_path / "imagenet.tar", tmp_path / "raw")
    with tarfile.open(file) as tar:
        end = tar.getmembers()[2].offset
    file.write_bytes(file.read_bytes()[:end] + rest)
    with tarfile.open(file) as tar:
        assert len(tar.getmembers()) == 2
    data = ImageNet(root=str(tmp_path), **SMALL)
    with pytest.raises(InputError, match=rf"imagenet\.tar.*{end}"):
        data.images("train", np.asarray)


def test_identical_class_names_keep_their_ids():
    names = readable_names(WORDNET_IDS)
    assert len(set(names)) == 1000
    assert "crane (n02012849)" in names
    assert readable_names(["ant", "bee"]) == ["ant", "bee"]
