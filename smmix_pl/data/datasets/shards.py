"""WebDataset shards."""

from torchvision.datasets.folder import IMG_EXTENSIONS

from smmix_pl.data.datamodule import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, incomplete, read_lines
from smmix_pl.data.io.images import TarSlice, read_slice
from smmix_pl.data.io.tar import files_in_tar
from smmix_pl.errors import InputError


class Shards(FileData):
    """WebDataset shards on a local or shared disk: ``root/<part>-*.tar`` and ``root/classes.txt``.

    Each image has its class number beside it in a ``.cls`` file. ``python -m smmix_pl.data.io.shard_writer``
    writes them. Without ``val`` shards the ``test`` ones validate, and the other way round.
    Arguments: see `ImageData`.
    """

    def find_classes(self) -> list[str]:
        """The lines of ``classes.txt``."""
        return read_lines(self.root / "classes.txt")

    def samples(self, split: Split) -> Samples:
        """Places of the images in all tars of a part."""
        other = {"train": "train", "val": "test", "test": "val"}[split]
        tars = [sorted(self.root.glob(f"{part}-*.tar")) for part in (split, other)]
        found: Samples = []
        for tar in tars[0] or tars[1]:
            images: list[TarSlice] = []
            labels: dict[str, int] = {}
            for place in files_in_tar(tar, (".cls", *IMG_EXTENSIONS)):
                if place.name.lower().endswith(".cls"):
                    labels[_key(place)] = _number(place)
                else:
                    images.append(place)
            for place in images:
                if _key(place) not in labels:
                    raise InputError(f"{place} has no .cls file beside it; write the shards again")
                found.append((place, labels[_key(place)]))
        if not found:
            raise incomplete(self.root, f"{split}-*.tar")
        return found


def _number(place: TarSlice) -> int:
    """The class number in a file."""
    content = read_slice(place)
    try:
        return int(content)
    except ValueError as error:
        raise InputError(
            f"{place} holds {content[:20]!r} where a class number is expected; write it again"
        ) from error


def _key(place: TarSlice) -> str:
    """What a file shares with those that belong to it: its name up to the first dot."""
    folder, _, name = place.name.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"
