"""`smmix push`: a trained backbone with its model card, to the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from smmix_pl.cli.tool_parser import ToolParser
from smmix_pl.errors import InputError

DESCRIPTION = """Upload the backbone of a checkpoint to the Hugging Face hub, in timm's format and
with a model card: how to load it, test results, settings, and license. Needs a login (`hf auth
login`, or the variable HF_TOKEN); with --output, only the folder is written."""


def main(words: Sequence[str]) -> None:
    """Push a checkpoint.

    Args:
        words: Words of the command line after the command.
    """
    parser = ToolParser("push", DESCRIPTION)
    parser.add_argument("checkpoint", type=Path, help="Checkpoint written by `smmix fit`.")
    parser.add_argument("repo", metavar="REPO", help="USER/NAME of the repository to create.")
    parser.add_argument(
        "--private", type=bool, default=False, help="Create a repository only its owner can see."
    )
    parser.add_argument(
        "--overwrite",
        type=bool,
        default=False,
        help="If the repository exists, replace its files in a new commit.",
    )
    parser.add_argument(
        "--license",
        type=str | None,
        default=None,
        help="License of the weights, as an identifier of the hub such as apache-2.0.",
    )
    parser.add_argument(
        "--crop_pct",
        type=float | None,
        default=None,
        help="Crop ratio stored for timm. Default: eval_transform.crop_ratio of the run.",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Write the files to this folder instead of uploading them. Needs no network.",
    )
    options = parser.parse_args(list(words))
    from smmix_pl.reporting.model_card import export_with_card
    from smmix_pl.runs.hub_upload import check_login, check_repo, upload_folder

    check_repo(options.repo)
    settings = options.crop_pct, options.repo, options.license
    if options.output is not None:
        if options.output.suffix:
            raise InputError(f"--output={options.output}: must be a folder, without a suffix.")
        export_with_card(options.checkpoint, options.output, *settings)
        print(f"Wrote {options.output}.")
        return
    check_login(options.repo)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        code = export_with_card(options.checkpoint, folder, *settings)
        address = upload_folder(folder, options.repo, options.private, options.overwrite)
    print(f"{address}\n{code}")
