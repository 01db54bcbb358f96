"""A folder of class folders as a few large files: WebDataset shards, or litdata's chunks.

``python -m smmix_pl.data.io.shard_writer FOLDER OUT`` writes ``OUT/<part>-000000.tar`` and so on for each
part of FOLDER (``train/``, ``val/``, ``test/``, those that are there), and ``OUT/classes.txt``.
Each image is an unchanged file with its class number beside it (``.cls``), in random order, as the
webdataset library has them. Read them with `smmix_pl.data.Shards`. With ``--format litdata`` the
parts are folders of chunks, for `smmix_pl.data.LitData`.
"""

import io
import tarfile
from pathlib import Path
from typing import Literal

import numpy as np

from smmix_pl.checks import in_range
from smmix_pl.data.io.file_lists import class_folders, folder_samples
from smmix_pl.errors import InputError

Labeled = tuple[str, int]


def write(
    folder: Path,
    out: Path,
    format: Literal["webdataset", "litdata"] = "webdataset",
    shard_mb: float = 512,
    seed: int = 0,
) -> None:
    """Convert a folder of class folders.

    Args:
        folder: Holds ``train/`` and, if there are, ``val/`` and ``test/``.
        out: Where to; must not hold anything yet.
        format: Which library's files; ``litdata`` needs the extra of that name.
        shard_mb: Size of one file, about, in megabytes.
        seed: Chooses the order of images.

    Raises:
        InputError: The folder is not laid out so, or ``out`` is in use.
    """
    in_range("shard_mb", shard_mb, 0.001, hint="512 is usual")
    in_range("seed", seed, 0)
    names = class_folders(folder / "train")
    for name in names:
        if name.splitlines() != [name]:
            raise InputError(
                f"{folder / 'train'} has a class folder {name!r}, whose name is more than one line "
                "of classes.txt; rename it"
            )
    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"{out} is not empty; remove what an earlier run left, or write to another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        if (folder / part).is_dir():
            found = folder_samples(folder / part, names)
            order = np.random.default_rng(seed).permutation(len(found))
            samples = [(str(found[i][0]), found[i][1]) for i in order]
            if format == "litdata":
                write_chunks(samples, out / part, int(shard_mb * 10**6))
            else:
                write_tars(samples, out, part, int(shard_mb * 10**6))
    # Last, so that shards that were written in part do not look whole
    (out / "classes.txt").write_text("\n".join(names) + "\n")


def write_tars(samples: list[Labeled], out: Path, part: str, shard_bytes: int) -> None:
    """Tar files of about equal size; each image's name in there is its number."""
    shards: list[list[tuple[int, Labeled]]] = [[]]
    filled = 0
    for number, sample in enumerate(samples):
        if filled > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append((number, sample))
        filled += Path(sample[0]).stat().st_size
    for index, shard in enumerate(shards):
        with tarfile.open(out / f"{part}-{index:06d}.tar", "w:") as tar:
            for number, (source, label) in shard:
                suffix = Path(source).suffix.lower().replace(".jpeg", ".jpg")
                _add(tar, f"{number:09d}{suffix}", Path(source).read_bytes())
                _add(tar, f"{number:09d}.cls", str(label).encode())


def write_chunks(samples: list[Labeled], folder: Path, chunk_bytes: int) -> None:
    """Litdata's chunks of about equal size, and all class numbers beside them."""
    from litdata.streaming import Cache

    folder.mkdir()
    np.save(folder / "classes.npy", np.array([label for _, label in samples], dtype=np.int64))
    cache = Cache(str(folder), chunk_bytes=max(1, chunk_bytes))
    for number, (source, label) in enumerate(samples):
        cache[number] = {"image": Path(source).read_bytes(), "class": label}
    cache.done()
    cache.merge()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
