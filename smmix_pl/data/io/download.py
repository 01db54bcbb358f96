"""Downloads that are verified, resumable, and installed atomically."""

import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from torchvision.datasets.utils import calculate_md5
from tqdm import tqdm  # type: ignore[import-untyped]

from smmix_pl.errors import InputError


class Archive(NamedTuple):
    """One file offered by the owner of a dataset.

    Args:
        url: Address.
        md5: Checksum.
        gives: Name of what it adds to the root: the unpacked top folder, or the file itself.
        inside: Subfolder of the root in which it is unpacked.
    """

    url: str
    md5: str
    gives: str
    inside: str = "."

    @property
    def file(self) -> str:
        """File name."""
        return self.url.rsplit("/", 1)[1]


def fetch(archives: tuple[Archive, ...], root: Path) -> None:
    """Download and unpack the archives that are not in root yet, in one process at a time.

    Args:
        archives: Files to download.
        root: Folder of the dataset.

    Raises:
        InputError: A download fails.
    """
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):
        for archive in archives:
            target = root / archive.inside / archive.gives
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _install(_download(archive, target.parent), target)


def unpack(file: Path, folder: Path) -> None:
    """Unpack a tar or zip archive into a folder. Nothing is written outside the folder.

    Raises:
        InputError: The file is not an archive, is truncated, or names a file outside the folder.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as zipped:  # drops "..", drives, and roots
                zipped.extractall(folder)
        else:
            with tarfile.open(file) as tar:
                tar.extractall(folder, filter="data")  # refuses them
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(
            f"{file}: cannot be unpacked ({error}). Remove it and try again."
        ) from error


def _download(archive: Archive, folder: Path) -> Path:
    """Return the verified file, resuming an earlier partial download."""
    part = folder / f"{archive.file}.part"
    try:
        _append(archive.url, part)
    except (OSError, HTTPException) as error:
        raise InputError(
            f"{archive.url}: download failed ({error}). Run the command again to resume; the data "
            f"received so far is in {part}."
        ) from error
    found = calculate_md5(part)
    if found != archive.md5:
        part.unlink()
        raise InputError(
            f"{archive.url}: downloaded file has MD5 {found}, expected {archive.md5}, and was "
            "removed. Try again or download it manually."
        )
    return part


def _append(url: str, part: Path) -> None:
    """Download what a partial file is missing."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is complete
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        total = int(response.headers.get("Content-Length") or 0) + file.tell()
        with tqdm.wrapattr(
            response, "read", total=total, initial=file.tell(), desc=part.stem
        ) as body:
            shutil.copyfileobj(body, file)
        if total and file.tell() < total:
            raise ConnectionError("the connection was interrupted")


def _install(part: Path, target: Path) -> None:
    """Unpack next to the target and rename, or rename the file itself."""
    if part.name == f"{target.name}.part":
        part.rename(target)
        return
    workplace = target.parent / f".unpacking-{target.name}"
    shutil.rmtree(workplace, ignore_errors=True)
    unpack(part, workplace)
    if not (workplace / target.name).exists():
        raise InputError(f"{part}: no {target.name} inside. Remove this file, a different archive.")
    (workplace / target.name).rename(target)
    shutil.rmtree(workplace)
    part.unlink()
