"""`smmix report`: one HTML page about one or several runs."""

from collections.abc import Sequence
from pathlib import Path

from smmix_pl.cli.tool_parser import ToolParser

DESCRIPTION = """Write one HTML page about a run, or about several runs side by side. The page needs
no network and no scripts. Runs in one folder are the seeds of one method."""


def main(words: Sequence[str]) -> None:
    """Write the report.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("report", DESCRIPTION)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="[NAME=]RUN",
        help="Folder of a run, or of runs with several seeds.",
    )
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="File to write.")
    options = parser.parse_args(list(words))
    from smmix_pl.reporting.html_report import html
    from smmix_pl.reporting.logged_run import read_reported

    page = html(read_reported(options.runs))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page)
    print(f"Wrote {options.output} ({options.output.stat().st_size / 2**20:.1f} MiB).")
