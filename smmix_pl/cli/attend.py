"""`smmix attend`: what a model attends to in your images, and what mixers make of them."""

from collections.abc import Sequence
from pathlib import Path

from smmix_pl.checks import in_range
from smmix_pl.cli.tool_parser import ToolParser
from smmix_pl.errors import InputError
from smmix_pl.mixing import Readout

DESCRIPTION = """Draw what a model attends to in your images: the attention of all image tokens and
of the class token, and the similarity to the class token, as far as the model has them. Each map
has the windows that SMMix would choose. Beside them, each image is mixed with its partner from the
other end of the folder. The model is that of a checkpoint, or any timm model."""


def main(words: Sequence[str]) -> None:
    """Write the page.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("attend", DESCRIPTION)
    parser.add_argument("images", type=Path, help="Folder of at least two images.")
    parser.add_argument(
        "--checkpoint", type=Path | None, default=None, help="Checkpoint written by `smmix fit`."
    )
    parser.add_argument("--backbone", help="Name of a timm model, instead of a checkpoint.")
    parser.add_argument(
        "--init_from", type=Path, help="Weights of the timm model. Default: download timm's."
    )
    parser.add_argument(
        "--image_size",
        type=int | None,
        default=None,
        help="Image side in pixels for the timm model. Default: what it was trained with.",
    )
    parser.add_argument(
        "--readout",
        type=Readout | None,
        default=None,
        help="What guides the mixing: tokens, class, or similarity. Default: that of the "
        "checkpoint's run, else the first that the model has.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("attention.png"),
        help="FILE.png, or FILE.html for a page without scripts and network access.",
    )
    parser.add_argument("--pairs", type=int, default=4, help="Number of pairs, two images each.")
    parser.add_argument(
        "--side", type=int | None, default=None, help="Region side in tokens. Default: half."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of CutMix and Mixup.")
    options = parser.parse_args(list(words))
    in_range("--seed", options.seed, 0)
    in_range("--pairs", options.pairs, 1)
    if options.image_size is not None:
        in_range("--image_size", options.image_size, 1)
    suffix = options.output.suffix.lower()
    if suffix not in (".png", ".html"):
        raise InputError(f"--output={options.output}: must end in .png or .html.")
    if (options.checkpoint is None) == (options.backbone is None):
        raise InputError("--checkpoint, --backbone: give one of the two.")
    from smmix_pl.cli.attended_images import attended_pairs, from_checkpoint, from_timm, html_page
    from smmix_pl.plots import attention_figure
    from smmix_pl.plots.style import add_note
    from smmix_pl.runs.run_files import write_atomic

    if options.backbone is None:
        viewer = from_checkpoint(options.checkpoint, options.readout)
    else:
        viewer = from_timm(options.backbone, options.init_from, options.image_size, options.readout)
    pairs = attended_pairs(options.images, viewer, options.pairs, options.side, options.seed)
    if suffix == ".html":
        write_atomic(options.output, html_page(pairs, viewer).encode())
    else:
        figure = attention_figure([image for pair in pairs for image in pair])
        note = f"{viewer.name}, SMMix guided by {viewer.guide}, n = {2 * len(pairs)}"
        add_note(figure, note)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.output, dpi=120)
    print(f"Wrote {options.output}.")
