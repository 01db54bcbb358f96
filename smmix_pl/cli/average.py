"""`smmix average`: a uniform soup of checkpoints of one model."""

from collections.abc import Sequence
from pathlib import Path

from smmix_pl.cli.tool_parser import ToolParser

DESCRIPTION = """Average the weights of several checkpoints of one model (uniform soup): of one run,
or of runs that were fine-tuned from the same weights. The result can be tested, calibrated, and
exported. An average of models that were trained from scratch on their own is of no use."""


def main(words: Sequence[str]) -> None:
    """Average checkpoints.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("average", DESCRIPTION)
    parser.add_argument(
        "checkpoints",
        nargs="+",
        type=Path,
        metavar="CHECKPOINT",
        help="Checkpoint written by `smmix fit`.",
    )
    parser.add_argument("--output", type=Path, required=True, help="Checkpoint to write.")
    options = parser.parse_args(list(words))
    from smmix_pl.runs.averaged_weights import average

    average(options.checkpoints, options.output)
    print(f"Wrote {options.output}, the mean of {len(options.checkpoints)} checkpoints.")
