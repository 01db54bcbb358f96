"""Images inside uncompressed tar files, found without unpacking, also in tars inside a tar."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from smmix_pl.data.io.images import TarSlice
from smmix_pl.errors import InputError


def images_in_tar(file: Path) -> list[TarSlice]:
    """Every image in a tar file, by name; one in an inner tar is named ``inner/name``.

    Raises:
        InputError: It is no tar file, is compressed, or is cut off.
    """
    return files_in_tar(file, IMG_EXTENSIONS)


def files_in_tar(file: Path, suffixes: tuple[str, ...]) -> list[TarSlice]:
    """Every file in a tar file whose name ends so, by name; only headers are read.

    Raises:
        InputError: It is no tar file, is compressed, or is cut off.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            slices = list(_walk(tar, str(file), 0, "", suffixes))
    except (tarfile.TarError, OSError, RecursionError) as error:
        raise InputError(
            f"{file} cannot be read as an uncompressed tar file ({error}); download it again, or "
            "decompress it"
        ) from error
    length = file.stat().st_size
    for found in slices:  # a header may claim any size
        if found.offset + found.size > length:
            raise InputError(f"{file} is cut off inside {found.name}; download it again")
    return sorted(slices, key=lambda found: found.name)


def _walk(
    tar: tarfile.TarFile, file: str, start: int, folder: str, suffixes: tuple[str, ...]
) -> Iterator[TarSlice]:
    """The files of one tar, which begins at ``start`` of the outer file."""
    for member in tar:
        if not member.isfile():  # a link could lead back to the tar that it is in
            continue
        if member.name.endswith(".tar"):
            inner = Path(member.name).stem
            with tarfile.open(fileobj=tar.extractfile(member), mode="r:") as nested:
                begin = start + member.offset_data
                yield from _walk(nested, file, begin, f"{folder}{inner}/", suffixes)
        elif member.name.lower().endswith(suffixes):
            offset = start + member.offset_data
            yield TarSlice(file, folder + member.name.removeprefix("./"), offset, member.size)
    # tarfile takes a list that breaks off for one that ends; the end is a block of zeros
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or tar.fileobj.tell() == tar.offset:
        raise tarfile.ReadError(f"its list of files breaks off at byte {start + tar.offset}")
