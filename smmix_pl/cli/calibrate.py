"""`smmix calibrate`: temperature scaling of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from smmix_pl.cli.config_paths import resolve_configs
from smmix_pl.cli.tool_parser import ToolParser
from smmix_pl.cli.trusted_packages import restrict_imports
from smmix_pl.errors import InputError

DESCRIPTION = """Fit the temperature of a checkpoint's softmax, or of its sigmoids with several
labels per image, on validation images, and write a checkpoint whose class head is divided by it.
Predictions stay the same; their probabilities are calibrated, in `smmix test` and `smmix predict`
as well as in exports. The images are those of the run's own validation set, or of --config or
--data, and are normalized and cropped as in the training unless data.mean, data.std, and
data.eval_transform.crop_ratio are set."""


def main(words: Sequence[str]) -> None:
    """Calibrate a checkpoint.

    Args:
        words: Words of the command line after the command.
    """
    restrict_imports()
    from smmix_pl.cli.pretrained_settings import prepare_as_trained
    from smmix_pl.cli.temperature_fit import calibrate
    from smmix_pl.data import ImageData
    from smmix_pl.runs.run_files import read_config

    parser = ToolParser("calibrate", DESCRIPTION)
    parser.add_argument("checkpoint", type=Path, help="Checkpoint written by `smmix fit`.")
    parser.add_argument(
        "--output", type=Path | None, default=None, help="Default: CHECKPOINT_calibrated.ckpt."
    )
    parser.add_argument("--accelerator", type=str, default="auto", help="cpu, cuda, mps, or auto.")
    parser.add_data_config()
    parser.add_subclass_arguments(ImageData, "data", help="The dataset.", required=False)
    for file in filter(Path.is_file, map(Path, words)):  # an output does not exist yet
        if file.suffix == ".ckpt":
            parser.set_defaults({"data": read_config(file.parent.parent).get("data")})
    options = parser.parse_args(resolve_configs(list(words)))
    if options.data is None:
        raise InputError(
            f"{options.checkpoint}: not in the folder of a run, so that its images are unknown. "
            "Add --config RECIPE or --data CLASS."
        )
    checkpoint: Path = options.checkpoint
    output = options.output or checkpoint.with_stem(f"{checkpoint.stem}_calibrated")
    if output.suffix != ".ckpt" or output == checkpoint:
        raise InputError(f"--output={output}: must be another file that ends in .ckpt.")
    prepare_as_trained(options.data, checkpoint)
    data = parser.instantiate_classes(options).data
    print(calibrate(checkpoint, data, output, options.accelerator))
