"""`smmix export`: a trained backbone for timm or ONNX."""

from collections.abc import Sequence
from pathlib import Path

from smmix_pl.cli.tool_parser import ToolParser

DESCRIPTION = """Export the backbone of a checkpoint, without the token head. The suffix of the
output selects the format: FILE.safetensors (timm weights), FILE.onnx, or a folder for
timm.create_model("local-dir:FOLDER"), with a model card. A run with EMA exports the averaged
weights, and a linear probe its best classifier."""


def main(words: Sequence[str]) -> None:
    """Export a checkpoint.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("export", DESCRIPTION)
    parser.add_argument("checkpoint", type=Path, help="Checkpoint written by `smmix fit`.")
    parser.add_argument(
        "--output", type=Path, required=True, help="FILE.safetensors, FILE.onnx, or a folder."
    )
    parser.add_argument(
        "--crop_pct",
        type=float | None,
        default=None,
        help="Crop ratio stored for timm. Default: eval_transform.crop_ratio of the run.",
    )
    options = parser.parse_args(list(words))
    from smmix_pl.reporting.model_card import export_with_card
    from smmix_pl.runs.export_weights import export

    write = export if options.output.suffix else export_with_card
    print(write(options.checkpoint, options.output, options.crop_pct))
