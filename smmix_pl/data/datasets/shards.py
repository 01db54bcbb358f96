"""WebDataset shards."""

from smmix_pl.data.base import Split
from smmix_pl.data.file_data import FileData
from smmix_pl.data.io.file_lists import Samples, incomplete, read_lines
from smmix_pl.data.io.images import SUFFIXES, TarSlice, read_slice
from smmix_pl.data.io.tar import files_in_tar
from smmix_pl.errors import InputError


class Shards(FileData):
    """WebDataset shards on a local or shared disk: `root/<split>-*.tar` and `root/classes.txt`.

    Each image has its class index beside it in a `.cls` file. `smmix make-shards` writes them. A
    missing validation or test split is replaced by the other one. All splits number their classes
    by the one `classes.txt`. Arguments: see `ImageData`.
    """

    def find_classes(self) -> list[str]:
        """Return the lines of `classes.txt`."""
        return read_lines(self.root / "classes.txt")

    def samples(self, split: Split) -> Samples:
        """Locate the images in all tar files of a split."""
        other = {"train": "train", "val": "test", "test": "val"}[split]
        tars = [sorted(self.root.glob(f"{part}-*.tar")) for part in (split, other)]
        found: Samples = []
        for tar in tars[0] or tars[1]:
            images: list[TarSlice] = []
            labels: dict[str, int] = {}
            for place in files_in_tar(tar, (".cls", *SUFFIXES)):
                if place.name.lower().endswith(".cls"):
                    labels[_key(place)] = _class_index(place)
                else:
                    images.append(place)
            for place in images:
                if _key(place) not in labels:
                    raise InputError(f"{place}: no .cls file beside it. Write the shards again.")
                found.append((place, labels[_key(place)]))
        if not found:
            raise incomplete(self.root, f"{split}-*.tar")
        return found


def _class_index(place: TarSlice) -> int:
    """Return the class index in a file."""
    content = read_slice(place)
    try:
        return int(content)
    except ValueError as error:
        raise InputError(
            f"{place}: {content[:20]!r} is not a class index. Write the shards again."
        ) from error


def _key(place: TarSlice) -> str:
    """Return the sample that a file belongs to: its name up to the first dot."""
    folder, _, name = place.name.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"
