"""Downloads that are verified, go on where they stopped, and never look whole before they are."""

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
    """One file that a data set's owner offers.

    Args:
        url: Where.
        md5: Its checksum.
        gives: What it leaves in the root: its unpacked top folder, or the file itself.
        inside: Folder below the root that it is unpacked in.
    """

    url: str
    md5: str
    gives: str
    inside: str = "."

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.url.rsplit("/", 1)[1]


def fetch(archives: tuple[Archive, ...], root: Path, name: str) -> None:
    """Download and unpack what is not there yet; one process at a time does so.

    Raises:
        InputError: The owner offers no open download, or the file cannot be had.
    """
    if not archives:
        raise InputError(
            f"{name} cannot be downloaded from here; get it from its owner, unpack it into {root} "
            "and set data.download to false"
        )
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".download.lock"):
        for archive in archives:
            target = root / archive.inside / archive.gives
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                _install(_download(archive, target.parent), target)


def unpack(file: Path, folder: Path) -> None:
    """Unpack a tar or zip archive into a folder; nothing can be written outside it.

    Raises:
        InputError: It is no archive, is cut off, or names a file outside the folder.
    """
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as zipped:  # drops "..", and drives and roots
                zipped.extractall(folder)
        else:
            with tarfile.open(file) as tar:
                tar.extractall(folder, filter="data")  # refuses them
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"{file} cannot be unpacked ({error}); remove it and try again") from error


def _download(archive: Archive, folder: Path) -> Path:
    """The verified file; a part of it from an earlier try is completed."""
    part = folder / f"{archive.file}.part"
    try:
        _append(archive.url, part)
    except (OSError, HTTPException) as error:
        raise InputError(
            f"{archive.url} cannot be downloaded ({error}); what has come stays in {part}, run "
            "the command again to go on"
        ) from error
    found = calculate_md5(part)
    if found != archive.md5:
        part.unlink()
        raise InputError(
            f"{archive.url} gave a file with MD5 {found} where {archive.md5} is expected; it was "
            "removed, try again or download it by hand"
        )
    return part


def _append(url: str, part: Path) -> None:
    """Append what a partial file lacks."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return
        raise
    with response, part.open("ab" if response.status == 206 else "wb") as file:
        total = int(response.headers.get("Content-Length") or 0) + file.tell()
        with tqdm.wrapattr(
            response, "read", total=total, initial=file.tell(), desc=part.stem
        ) as body:
            shutil.copyfileobj(body, file)
        if total and file.tell() < total:
            raise ConnectionError("the connection broke off")


def _install(part: Path, target: Path) -> None:
    """Unpack beside the target and move it into place in one step, or move the file itself."""
    if part.name == f"{target.name}.part":
        part.rename(target)
        return
    workplace = target.parent / f".unpacking-{target.name}"
    shutil.rmtree(workplace, ignore_errors=True)
    unpack(part, workplace)
    if not (workplace / target.name).exists():
        raise InputError(f"{part} does not hold {target.name}; it is another archive")
    (workplace / target.name).rename(target)
    shutil.rmtree(workplace)
    part.unlink()
