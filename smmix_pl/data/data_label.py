"""The name of a dataset in the names of runs."""

from pathlib import Path

from smmix_pl.data import Folder, LitData, SegmentationFolder, Shards


def data_label(kind: type, root: str | Path) -> str:
    """Return the name of a dataset: that of its class or, for a user's own images, of its folder.

    Args:
        kind: Class of the dataset.
        root: Folder of the dataset.
    """
    own = issubclass(kind, Folder | Shards | LitData | SegmentationFolder)
    return (own and Path(root).expanduser().resolve().name) or kind.__name__
