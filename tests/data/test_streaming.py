"""Shards and Hugging Face data sets: written, read back, shared out over ranks and workers."""

import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.data_trees import class_tree, put
from torch.utils.data import DistributedSampler

from smmix_pl.data import HuggingFace, LitData, Shards
from smmix_pl.data.io.shard_writer import main, write
from smmix_pl.data.samplers import EvaluationSampler
from smmix_pl.errors import InputError

SMALL = {"image_size": 32, "batch_size": 2, "num_workers": 0}


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 5), ("val", 2)):
        class_tree(tmp_path / "folder" / part, ["ant", "bee", "cat"], count)
    return tmp_path / "folder"


def originals(folder, part):
    """Each file's content and the number of its class."""
    names = sorted(path.name for path in (folder / part).iterdir())
    files = (folder / part).rglob("*.JPEG")
    return Counter((path.read_bytes(), names.index(path.parent.name)) for path in files)


def test_shards_hold_what_the_folder_holds(folder, tmp_path):
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


def test_the_webdataset_library_reads_our_shards(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    write(folder, tmp_path / "shards")
    urls = sorted(map(str, (tmp_path / "shards").glob("train-*.tar")))
    rows = webdataset.WebDataset(urls, shardshuffle=False)
    assert Counter((row["jpg"], int(row["cls"])) for row in rows) == originals(folder, "train")


def test_we_read_shards_of_the_webdataset_library(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    put(tmp_path / "classes.txt", "ant\nbee\ncat\n")
    with webdataset.TarWriter(str(tmp_path / "train-000.tar")) as writer:
        for number, (content, label) in enumerate(originals(folder, "train").elements()):
            writer.write({"__key__": f"sample{number}", "jpg": content, "cls": label})
    data = Shards(root=str(tmp_path), **SMALL)
    assert Counter(label for _, label in data.samples("train")) == {0: 5, 1: 5, 2: 5}


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_rank_has_its_share_and_evaluation_misses_nothing(folder, tmp_path, ranks):
    write(folder, tmp_path / "shards")
    images = Shards(root=str(tmp_path / "shards"), **SMALL).images("train", np.asarray)
    shares = [list(DistributedSampler(images, ranks, r, drop_last=True)) for r in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    assert len(set().union(*shares)) == 15 // ranks * ranks
    evaluated = [index for r in range(ranks) for index in EvaluationSampler(images, ranks, r)]
    assert sorted(evaluated) == list(range(15))


def test_the_command(folder, tmp_path, capsys):
    words = [str(folder), str(tmp_path / "out"), "--shard_mb", "1"]
    main(words)
    assert (tmp_path / "out" / "train-000000.tar").is_file()
    with pytest.raises(SystemExit) as status:
        main(words)
    assert status.value.code == 2
    assert "out is not empty" in capsys.readouterr().err
    put(tmp_path / "half" / "train-000000.tar")  # of a run that was killed
    with pytest.raises(InputError, match="half is not empty"):
        write(folder, tmp_path / "half")


def test_the_check_reads_shards(folder, tmp_path):
    write(folder, tmp_path / "shards")
    train, val = Shards(root=str(tmp_path / "shards"), **SMALL).reports(["train", "val", "test"])
    assert (train.images, val.images) == (15, 6)
    assert train.good
    assert val.good
    assert train.notes == val.notes == []


def test_an_image_without_its_class_is_told(tmp_path):
    put(tmp_path / "classes.txt", "ant\nbee\n")
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        tar.add(put(tmp_path / "1.jpg"), "1.jpg")
        tar.add(put(tmp_path / "1.cls", "0"), "1.cls")
        tar.add(tmp_path / "1.jpg", "2.jpg")
    with pytest.raises(InputError, match=r"2\.jpg has no \.cls file beside it"):
        Shards(root=str(tmp_path), **SMALL).samples("train")


def test_missing_shards_are_told(tmp_path):
    put(tmp_path / "classes.txt", "ant\nbee\n")
    with pytest.raises(InputError, match=r"train-\*\.tar"):
        Shards(root=str(tmp_path), **SMALL).setup("fit")


def test_litdata(folder, tmp_path):
    pytest.importorskip("litdata")
    main([str(folder), str(tmp_path / "chunks"), "--format", "litdata", "--shard_mb", "1"])
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
    with pytest.raises(InputError, match="has no litdata chunks"):
        data.images("train", np.asarray)
    np.save(tmp_path / "chunks/val/classes.npy", np.zeros(2, dtype=np.int64))
    with pytest.raises(InputError, match="has 6 items and 2 class numbers"):
        data.images("val", np.asarray)
    with pytest.raises(InputError, match=r"classes\.txt"):
        LitData(root=str(tmp_path), **SMALL)


def test_the_check_reads_litdata(tmp_path):
    """One thread does: the library forgets a chunk that another goes on to."""
    pytest.importorskip("litdata")
    for part in ("train", "val"):
        class_tree(tmp_path / "folder" / part, ["ant", "bee"], 60)
    write(tmp_path / "folder", tmp_path / "chunks", format="litdata", shard_mb=0.002)
    assert len(list((tmp_path / "chunks" / "train").glob("*.bin"))) > 10
    reports = LitData(root=str(tmp_path / "chunks"), **SMALL).reports(["train", "val", "test"])
    assert [(report.part, report.images, report.faults()) for report in reports] == [
        ("train", 120, []),
        ("val", 120, []),
    ]


def test_litdata_is_shared_out_over_workers(folder, tmp_path):
    pytest.importorskip("litdata")
    write(folder, tmp_path / "chunks", format="litdata", shard_mb=1)
    data = LitData(root=str(tmp_path / "chunks"), **SMALL | {"num_workers": 2})
    data.setup("validate")
    labels = [label for _, labels in data.val_dataloader() for label in labels.tolist()]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


def test_hugging_face(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    saved = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache")
    )
    saved.save_to_disk(str(tmp_path / "saved"))
    data = HuggingFace(root=str(tmp_path / "saved"), **SMALL)
    assert data.class_names == ["ant", "bee", "cat"]
    assert Counter(data.images("train", np.asarray).targets) == {0: 5, 1: 5, 2: 5}
    data.setup("fit")
    assert next(iter(data.train_dataloader()))[0].shape == (2, 3, 32, 32)
    assert sum(len(classes) for _, classes in data.val_dataloader()) == 6
    assert [report.part for report in data.reports(["train", "val", "test"])] == ["train", "val"]
    with pytest.raises(InputError, match=r"'label' .* holds no images; set data\.image to .*image"):
        HuggingFace(image="label", root=str(tmp_path / "saved"), **SMALL)
    saved["train"].save_to_disk(str(tmp_path / "one"))
    with pytest.raises(InputError, match="it is one split; save a DatasetDict"):
        HuggingFace(root=str(tmp_path / "one"), **SMALL)
    with pytest.raises(InputError, match=r"cannot be loaded \(.*'nothing'.*set data\.name"):
        HuggingFace(str(folder), "nothing", root=str(tmp_path / "cache"), **SMALL)
    named = HuggingFace(str(folder), "default", root=str(tmp_path / "cache"), **SMALL)
    assert named.class_names == data.class_names
    with pytest.raises(InputError, match="no split 'test'"):
        HuggingFace(test="test", root=str(tmp_path / "saved"), **SMALL)
    with pytest.raises(InputError, match="cannot be loaded"):
        HuggingFace(root=str(tmp_path / "none"), **SMALL)


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


def test_litdata_on_two_ranks_is_whole_on_each(folder, tmp_path):
    """The library counts a rank's share; the sampler deals the images out."""
    pytest.importorskip("litdata")
    write(folder, tmp_path / "chunks", format="litdata", shard_mb=1)
    script = put(tmp_path / "rank.py", RANK)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [sys.executable, *launcher, str(script), str(tmp_path / "chunks")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    for rank in (0, 1):
        assert f"rank {rank} 15 5" in result.stdout
