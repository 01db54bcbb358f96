"""`smmix demo`: what SMMix, CutMix, and Mixup make of your images, with a trained model."""

from collections.abc import Sequence
from pathlib import Path

from smmix_pl.checks import in_range
from smmix_pl.cli.tool_parser import ToolParser
from smmix_pl.errors import InputError
from smmix_pl.mixing import Readout

DESCRIPTION = """Draw what SMMix, CutMix, and Mixup make of your images, as one PNG. Each image is
mixed with one from the other end of the folder, and named after its file. The attention is that of
a checkpoint or of a pretrained timm model."""


def main(words: Sequence[str]) -> None:
    """Draw the figure.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("demo", DESCRIPTION)
    parser.add_argument("images", type=Path, help="Folder of at least two images.")
    parser.add_argument(
        "--checkpoint", type=Path | None, default=None, help="Checkpoint written by `smmix fit`."
    )
    parser.add_argument("--backbone", help="Name of a timm model, instead of a checkpoint.")
    parser.add_argument(
        "--init_from", type=Path, help="Weights of the timm model. Default: download timm's."
    )
    parser.add_argument(
        "--image_size", type=int, default=224, help="Image side in pixels for the timm model."
    )
    parser.add_argument(
        "--readout",
        type=Readout,
        default="tokens",
        help="Attention of the timm model: of all image tokens, as in the paper, of the class "
        "token, similarity to the class token, or others that model.guide.readout has.",
    )
    parser.add_argument("--output", type=Path, default=Path("mixing.png"), help="PNG to write.")
    parser.add_argument("--examples", type=int, default=4, help="Number of rows, two images each.")
    parser.add_argument(
        "--side", type=int | None, default=None, help="Region side in tokens. Default: half."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of CutMix and Mixup.")
    options = parser.parse_args(list(words))
    in_range("--seed", options.seed, 0)
    in_range("--examples", options.examples, 1)
    if options.output.suffix.lower() != ".png":
        raise InputError(f"--output={options.output}: must end in .png.")
    if (options.checkpoint is None) == (options.backbone is None):
        raise InputError("--checkpoint, --backbone: give one of the two.")
    from smmix_pl.cli.demonstration import demonstration, from_checkpoint, from_timm

    if options.backbone is None:
        guide = from_checkpoint(options.checkpoint)
    else:
        guide = from_timm(options.backbone, options.init_from, options.image_size, options.readout)
    figure = demonstration(options.images, guide, options.examples, options.side, options.seed)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, dpi=120)
    print(f"Wrote {options.output}.")
