"""The parser of the commands that are not LightningCLI's."""

from argparse import SUPPRESS
from typing import Any, NoReturn

import jsonargparse

from smmix_pl.cli.input_errors import input_error, parser_error
from smmix_pl.cli.path_settings import expand_settings

BESIDE_DATA = (
    *("seed_everything", "trainer", "model", "name", "test_after_fit", "auto_precision"),
    *("finite", "ckpt_path", "weights_only"),
)
"""What recipes and the configs of runs contain beside the data."""


class ToolParser(jsonargparse.ArgumentParser):
    """Parser that raises `InputError` instead of printing its usage.

    Args:
        command: Name of the command, as the user types it. Without one, the parser is one that
            jsonargparse creates for the arguments of a class.
        description: Text of its help.
    """

    def __init__(self, command: str = "", description: str | None = None, **options: Any) -> None:
        prog = f"smmix {command}".rstrip()
        super().__init__(prog=prog, description=description, **options)

    def add_data_config(self) -> None:
        """Add `--config` for the options of the data. The rest of a recipe is ignored."""
        self.add_argument("--config", action="config", help="Config of a dataset, or a recipe.")
        for name in BESIDE_DATA:
            self.add_argument(f"--{name}", type=Any, default=None, help=SUPPRESS)

    def parse_args(self, *args: Any, **options: Any) -> Any:
        """Parse, and expand paths."""
        return expand_settings(super().parse_args(*args, **options))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error for invalid arguments."""
        raise input_error(ex) or parser_error(message, f"Run `{self.prog} --help`.") from ex
