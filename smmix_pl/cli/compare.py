"""`smmix compare`: tested runs side by side, with published results or paired by seed."""

from collections.abc import Sequence
from pathlib import Path

from smmix_pl.cli.tool_parser import ToolParser

DESCRIPTION = """Print and write a table of tested runs, with overlaid curves and published results
whose data, backbone, and protocol match. If a folder holds the runs of several seeds, the table
gives the mean of each method, and its difference from the first one, paired by seed."""


def main(words: Sequence[str]) -> None:
    """Compare runs.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("compare", DESCRIPTION)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]RUN",
        help="Folder of a tested run, or of the tested runs of one method.",
    )
    parser.add_argument("--output", type=Path, default=Path("comparison"), help="Folder to write.")
    options = parser.parse_args(list(words))
    from smmix_pl.reporting.comparison import read_runs, write_comparison
    from smmix_pl.reporting.paired_seeds import has_seeds, read_methods, write_paired_comparison

    if has_seeds(options.runs):
        print(write_paired_comparison(read_methods(options.runs), options.output))
    else:
        print(write_comparison(read_runs(options.runs), options.output))
    print(f"Wrote table.md, table.csv, and curves to {options.output}.")
