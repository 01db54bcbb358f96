"""The command line, installed as `smmix` and `lightning`: training commands and tools.

Only what a command needs is imported, so that help and mistyped commands answer at once.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from smmix_pl import __version__
from smmix_pl.cli.input_errors import report_input_errors
from smmix_pl.errors import InputError, did_you_mean
from smmix_pl.runs.stop_signals import exit_on_signals

TRAINING = {
    "fit": "Train a model.",
    "validate": "Evaluate a checkpoint on the validation set.",
    "test": "Evaluate a checkpoint on the test set: accuracy, calibration, robustness.",
    "predict": "Predict the class of images.",
}
"""Commands of LightningCLI."""
TOOLS = {
    "calibrate": "Scale a checkpoint by the temperature that fits the validation set.",
    "average": "Average the weights of checkpoints of one model.",
    "export": "Export a checkpoint for timm (safetensors or folder) or ONNX.",
    "push": "Upload a checkpoint to the Hugging Face hub, with a model card.",
    "compare": "Compare tested runs with each other and with published results.",
    "report": "Write one HTML page about one or several runs.",
    "dashboard": "Create a W&B workspace and report for a project.",
    "attend": "Draw what a model attends to in your images, and what mixers make of them.",
    "check-data": "Read every image of a dataset and report problems.",
    "make-shards": "Convert class folders to WebDataset or litdata shards.",
    "plan": "Estimate the training time and memory of a recipe on this machine.",
}
"""Further commands; each is a module of this package with a `main` function."""
HELP = """usage: smmix COMMAND [options]        (smmix COMMAND --help lists the options)

SMMix trains vision transformers on mixed images. The most-attended region of one
image is pasted over the least-attended region of another, and the attention is
that of the model being trained.

Training (LightningCLI):
{training}

Tools:
{tools}

Recipes (--config NAME): {recipes}
Overlays, added with a further --config: {overlays}

Examples:
  smmix fit --config digits.yaml
  smmix fit --config deit_t.yaml --data.root /path/to/imagenet
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: Words of the command line. None uses those of the process. Invalid input prints a
            one-line error and exits with status 2. `SMMIX_DEBUG=1` prints the traceback instead.
    """
    words = list(sys.argv[1:] if args is None else args)
    command = words[0] if words else "--help"
    with exit_on_signals(), report_input_errors():
        if command in ("-h", "--help"):
            print(help_text(), end="")
        elif command == "--version":
            print(f"smmix_pl {__version__}")
        elif command in TOOLS:
            module = import_module(f"smmix_pl.cli.{command.replace('-', '_')}")
            module.main(words[1:])
        elif command in TRAINING:
            import_module("smmix_pl.cli.config_paths").resolve_configs(words)
            import_module("smmix_pl.cli.option_names").check_names(words)
            import_module("smmix_pl.cli.lightning_cli").run(words)
        elif command.startswith("-"):
            raise InputError(f"{command}: a command must come first. Run `smmix --help`.")
        else:
            hint = did_you_mean(command, [*TRAINING, *TOOLS])
            raise InputError(f"{command}: unknown command. {hint}")


def help_text() -> str:
    """Return what `smmix --help` prints."""
    from smmix_pl.cli.config_paths import configs_folder

    folder = configs_folder()
    recipes = sorted(path.name for path in folder.glob("[!_]*.yaml"))
    # `evidence` holds lists of methods and `sweeps` those of W&B, not overlays
    folders = {path.name for path in folder.iterdir() if path.is_dir()} - {"evidence", "sweeps"}
    overlays = sorted(f"{name}/" for name in folders)
    return HELP.format(
        training=_listing(TRAINING),
        tools=_listing(TOOLS),
        recipes=_wrapped(recipes),
        overlays=_wrapped(overlays),
    )


def _listing(commands: dict[str, str]) -> str:
    return "\n".join(f"  {name:<12} {description}" for name, description in commands.items())


def _wrapped(names: list[str]) -> str:
    import textwrap

    return "\n" + textwrap.fill(" ".join(names), 80, initial_indent="  ", subsequent_indent="  ")
