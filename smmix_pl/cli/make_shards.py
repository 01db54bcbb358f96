"""`smmix make-shards`: class folders to WebDataset or litdata shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from smmix_pl.cli.tool_parser import ToolParser

DESCRIPTION = """Convert a folder of class folders to a few large files. Reads FOLDER/train and, if
present, val and test. Image files are stored unchanged, in random order."""


def main(words: Sequence[str]) -> None:
    """Write the shards.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("make-shards", DESCRIPTION)
    parser.add_argument("folder", type=Path, help="Folder with train/ and optional val/ and test/.")
    parser.add_argument("--output", type=Path, required=True, help="New or empty folder to write.")
    parser.add_argument(
        "--format",
        type=Literal["webdataset", "litdata"],
        default="webdataset",
        help="File format; litdata needs the extra of that name.",
    )
    parser.add_argument("--shard_mb", type=float, default=512, help="Approximate file size in MB.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the image order.")
    options = parser.parse_args(list(words))
    from smmix_pl.data.io.shard_writer import write

    write(options.folder, options.output, options.format, options.shard_mb, options.seed)
    print(f"Wrote shards to {options.output}.")
