"""Files inside uncompressed tar files, located without unpacking, also in nested tar files."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from smmix_pl.data.io.file_lists import is_hidden, warn_ignored
from smmix_pl.data.io.images import SUFFIXES, TarSlice
from smmix_pl.errors import InputError


def images_in_tar(file: Path) -> list[TarSlice]:
    """Return every image in a tar file, sorted by name.

    An image in a nested tar file is named `inner/name`. Hidden files are skipped, and files with
    other suffixes are reported in a warning, as in folders.

    Raises:
        InputError: The file is not a tar file, is compressed, or is truncated.
    """
    return files_in_tar(file, SUFFIXES)


def files_in_tar(file: Path, suffixes: tuple[str, ...]) -> list[TarSlice]:
    """Return every visible file in a tar file with one of the suffixes, sorted by name.

    Only the headers are read.

    Raises:
        InputError: The file is not a tar file, is compressed, or is truncated.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            members = [one for one in _walk(tar, str(file), 0, "") if not is_hidden(one.name)]
    except (tarfile.TarError, OSError, RecursionError) as error:
        raise InputError(
            f"{file}: not readable as an uncompressed tar file ({error}). Download or decompress "
            "it again."
        ) from error
    found = [one for one in members if one.name.lower().endswith(suffixes)]
    length = file.stat().st_size
    for one in found:  # a header can claim any size
        if one.offset + one.size > length:
            raise InputError(f"{file}: truncated inside {one.name}. Download it again.")
    warn_ignored(
        str(file), [one.name for one in members if not one.name.lower().endswith(suffixes)]
    )
    return sorted(found, key=lambda one: one.name)


def _walk(tar: tarfile.TarFile, file: str, start: int, folder: str) -> Iterator[TarSlice]:
    """Yield the files of one tar, which begins at `start` of the outermost file."""
    for member in tar:
        if not member.isfile():  # a link could lead back to the tar that contains it
            continue
        if member.name.endswith(".tar"):
            inner = Path(member.name).stem
            with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as nested:
                yield from _walk(nested, file, start + member.offset_data, f"{folder}{inner}/")
        else:
            offset = start + member.offset_data
            yield TarSlice(file, folder + member.name.removeprefix("./"), offset, member.size)
    # tarfile accepts a list that ends early; a complete one ends in a block of zeros
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or tar.fileobj.tell() == tar.offset:
        raise tarfile.ReadError(f"truncated at byte {start + tar.offset}, between two files")
