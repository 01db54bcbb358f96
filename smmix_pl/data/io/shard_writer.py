"""Writes a folder of class folders as a few large files: WebDataset shards or litdata chunks.

For each split of the folder (`train/`, and `val/` and `test/` if they exist), it writes
`<split>-000000.tar` and following numbers, and `classes.txt` for all. Each image is an unchanged
file with its class index beside it (`.cls`), in random order, as in the webdataset library. Read
them with `smmix_pl.data.Shards`. With the format `litdata`, each split is a folder of chunks for
`smmix_pl.data.LitData`.
"""

import io
import tarfile
from pathlib import Path
from typing import Literal

import numpy as np

from smmix_pl.checks import in_range
from smmix_pl.data.io.file_lists import class_folders, folder_samples
from smmix_pl.data.io.progress import with_progress
from smmix_pl.errors import InputError

Labeled = tuple[str, int]


def write(
    folder: Path,
    out: Path,
    format: Literal["webdataset", "litdata"] = "webdataset",
    shard_mb: float = 512,
    seed: int = 0,
) -> None:
    """Convert a folder of class folders to shards.

    Args:
        folder: Folder with `train/` and optionally `val/` and `test/`.
        out: Output folder, missing or empty.
        format: File format. `litdata` requires the extra of that name.
        shard_mb: Approximate size of one file in megabytes.
        seed: Seed of the order of images.

    Raises:
        InputError: The folder has another layout, or `out` is not empty.
    """
    in_range("shard_mb", shard_mb, 0.001, hint="512 is common")
    in_range("seed", seed, 0)
    names = class_folders(folder / "train")
    for name in names:
        if name.splitlines() != [name]:
            raise InputError(
                f"{folder / 'train'}: the name of class folder {name!r} does not fit in one line "
                "of classes.txt. Rename it."
            )
    if out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"{out}: not empty. Remove the output of an earlier run, or use another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        if (folder / part).is_dir():
            found = folder_samples(folder / part, names)
            order = np.random.default_rng(seed).permutation(len(found))
            samples = [(str(found[i][0]), found[i][1]) for i in order]
            print(f"{part}: {len(samples):,} images in {len(names):,} classes", flush=True)
            if format == "litdata":
                write_chunks(samples, out / part, int(shard_mb * 10**6))
            else:
                write_tars(samples, out, part, int(shard_mb * 10**6))
    # Written last, so that an interrupted conversion cannot be read
    (out / "classes.txt").write_text("\n".join(names) + "\n")


def write_tars(samples: list[Labeled], out: Path, part: str, shard_bytes: int) -> None:
    """Write tar files of about equal size, with images named by their position."""
    shards: list[list[tuple[int, Labeled]]] = [[]]
    filled = 0
    for number, sample in enumerate(samples):
        if filled > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append((number, sample))
        filled += Path(sample[0]).stat().st_size
    for index, shard in enumerate(with_progress(shards, len(shards), f"Shards of {part}")):
        with tarfile.open(out / f"{part}-{index:06d}.tar", "w:") as tar:
            for number, (source, label) in shard:
                suffix = Path(source).suffix.lower().replace(".jpeg", ".jpg")
                _add(tar, f"{number:09d}{suffix}", Path(source).read_bytes())
                _add(tar, f"{number:09d}.cls", str(label).encode())


def write_chunks(samples: list[Labeled], folder: Path, chunk_bytes: int) -> None:
    """Write litdata's chunks of about equal size, with all class indices beside them."""
    from litdata.streaming import Cache

    folder.mkdir()
    np.save(folder / "classes.npy", np.array([label for _, label in samples], dtype=np.int64))
    cache = Cache(str(folder), chunk_bytes=max(1, chunk_bytes))
    for number, (source, label) in enumerate(with_progress(samples, len(samples), folder.name)):
        cache[number] = {"image": Path(source).read_bytes(), "class": label}
    cache.done()
    cache.merge()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
