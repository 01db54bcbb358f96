"""Attacks through datasets and archives: no code they contain runs, and each is reported.

Every attack tries to create a file, the marker. SECURITY.md lists what is defended.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers.attacks import Trap, pickled, tar_member, tar_of
from helpers.data_trees import jpeg, put

from smmix_pl import InputError
from smmix_pl.data import CIFAR10, CIFAR10C, CIFAR100, LitData, Shards, StanfordCars
from smmix_pl.data.datasets.imagenet import read_devkit
from smmix_pl.data.io.download import unpack
from smmix_pl.data.io.tar import images_in_tar

SMALL = {"image_size": 16, "batch_size": 2, "num_workers": 0}


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100])
def test_cifar_file_with_a_trap_is_not_unpickled(marker, cls):
    """torchvision unpickles files, but only if their checksum is correct."""
    for name, _ in [*cls.source.train_list, *cls.source.test_list]:
        put(Path(cls.source.base_folder) / name, pickled(marker))
    put(Path(cls.source.base_folder) / cls.source.meta["filename"], pickled(marker))
    data = cls(root=".", **SMALL)
    for stage in ("fit", "test"):
        with pytest.raises(InputError, match=r"data\.root=\."):
            data.setup(stage)


def test_array_with_a_trap_is_not_unpickled(marker):
    trap = io.BytesIO()
    np.save(trap, np.array([Trap(marker)], dtype=object), allow_pickle=True)
    for content in (trap.getvalue(), pickled(marker), b"PK\3\4"):
        for name in ("labels", "gaussian_noise"):
            put(Path(f"CIFAR-10-C/{name}.npy"), content)
        put(Path("classes.txt"), "ant\nbee\n")
        put(Path("test/classes.npy"), content)
        for cls in (CIFAR10C, LitData):
            with pytest.raises(InputError, match=r"\.npy"):
                cls(root=".", **SMALL).images("test", lambda image: image)


def test_matlab_file_with_a_trap_is_reported(marker):
    devkit = Path("ILSVRC2012_devkit_t12/data")
    put(devkit / "meta.mat", pickled(marker))
    put(devkit / "ILSVRC2012_validation_ground_truth.txt", "1\n")
    with pytest.raises(InputError, match=r"meta\.mat"):
        read_devkit(Path("."))
    for name in ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat"):
        put(Path("stanford_cars") / name, pickled(marker))
    put(Path("stanford_cars/cars_train/1.jpg"))
    with pytest.raises(InputError, match=r"cars_meta\.mat"):
        StanfordCars(root=".", **SMALL).prepare_data()


@pytest.mark.filterwarnings("ignore")
def test_pickled_litdata_items_are_rejected(marker):
    from litdata.streaming import Cache

    put(Path("classes.txt"), "ant\nbee\n")
    np.save(Path(put(Path("test/x"), "").parent, "classes.npy"), np.zeros(1, dtype=np.int64))
    Path("test/x").unlink()
    cache = Cache("test", chunk_bytes=1000)
    cache[0] = {"image": Trap(marker), "class": 0}
    cache.done()
    cache.merge()
    with pytest.raises(InputError, match="pickle"):
        LitData(root=".", **SMALL).images("test", lambda image: image)


OUT = {
    "link": [
        tar_member("out", type=tarfile.SYMTYPE, linkname="/tmp"),
        tar_member("out/smmix_marker", b"evil"),
    ],
    "link up": [tar_member("a/out", type=tarfile.SYMTYPE, linkname="../../marker")],
    "hard link": [tar_member("out", type=tarfile.LNKTYPE, linkname="../secret")],
    "device": [tar_member("out", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
    "pipe": [tar_member("out", type=tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", OUT)
def test_links_and_devices_in_an_archive_are_rejected(marker, kind):
    put(Path("secret"), "secret")
    put(Path("evil.tar"), tar_of(*OUT[kind]))
    with pytest.raises(InputError, match=r"evil\.tar"):
        unpack(Path("evil.tar"), Path("inside"))
    assert not Path("/tmp/smmix_marker").exists()
    assert not [path for path in Path("inside").rglob("*") if not path.is_dir()]


def test_link_in_a_zip_becomes_a_text_file(marker):
    link = zipfile.ZipInfo("out")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile("evil.zip", "w") as zipped_:
        zipped_.writestr(link, "../marker")
    unpack(Path("evil.zip"), Path("inside"))
    assert Path("inside/out").read_text() == "../marker"
    assert not Path("inside/out").is_symlink()


def test_tar_members_that_are_not_files_are_skipped(marker):
    """The tar is read in place; names of its members are data, wherever they point."""
    put(
        Path("train.tar"),
        tar_of(
            tar_member("loop.tar", type=tarfile.SYMTYPE, linkname="loop.tar"),
            tar_member("null.tar", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
            tar_member("secret.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            tar_member("../../$(touch marker).jpg", jpeg()),
        ),
    )
    assert [found.name for found in images_in_tar(Path("train.tar"))] == [
        "../../$(touch marker).jpg"
    ]


@pytest.mark.parametrize("sparse", [True, False])
def test_tar_with_wrong_sizes_is_reported(marker, sparse):
    claims = {"GNU.sparse.size": str(2**40)} if sparse else {}
    tar = bytearray(
        tar_of(tar_member("a.jpg", jpeg(), pax_headers=claims), tar_member("b.jpg", jpeg()))
    )
    if not sparse:
        tar[124:136] = b"%011o\0" % 2**32
        tar[148:156] = b" " * 8
        tar[148:156] = b"%06o\0 " % sum(tar[:512])
    put(Path("train.tar"), bytes(tar))
    with pytest.raises(InputError, match=r"train\.tar"):
        images_in_tar(Path("train.tar"))


def test_deeply_nested_tar_is_reported(marker):
    content = tar_of(tar_member("a.jpg", b"x"))
    for _ in range(400):
        content = tar_of(tar_member("a.tar", content))
    put(Path("deep.tar"), content)
    limit = sys.getrecursionlimit()  # some libraries raise it
    sys.setrecursionlimit(1000)
    try:
        with pytest.raises(InputError, match=r"deep\.tar"):
            images_in_tar(Path("deep.tar"))
    finally:
        sys.setrecursionlimit(limit)


def test_code_in_place_of_a_class_index_is_reported(marker):
    put(Path("classes.txt"), "ant\nbee\n")
    tar = tar_of(
        tar_member("1.jpg", jpeg()), tar_member("1.cls", b"__import__('os').system('touch m')")
    )
    put(Path("train-0.tar"), tar)
    with pytest.raises(InputError, match=r"1\.cls"):
        Shards(root=".", **SMALL).samples("train")
