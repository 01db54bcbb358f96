"""The pre-flight check: read every image of a data set, tell what is wrong, give a verdict.

``python -m smmix_pl.cli.check_data --data smmix_pl.data.CUB --data.root DIR``, or with an overlay,
``--config data/cub.yaml --data.root DIR``. Ends with status 1 where the verdict is bad. Set
``--data.check true`` to have a run check what it needs before it starts.
"""

import sys

from jsonargparse import auto_cli

from smmix_pl.cli.input_errors import FunctionParser, report_input_errors
from smmix_pl.cli.main import resolve_configs
from smmix_pl.cli.trusted_packages import restrict_imports
from smmix_pl.data.datamodule import ImageData, Split


def tell(data: ImageData, trainer: dict | None = None) -> None:  # type: ignore[type-arg]
    """Read every image of a data set and give a verdict.

    Args:
        data: The data set.
        trainer: What an overlay says of the trainer; a check needs none of it.
    """
    splits: tuple[Split, ...] = ("train", "val", "test") if data.trainable else ("test",)
    data.prepare_data()
    good = True
    for report in data.reports(splits):
        print(report, end="\n\n")
        good = good and report.good
    raise SystemExit(0 if good else 1)


def main(args: list[str] | None = None) -> None:
    """Check the data set that the command line describes."""
    with report_input_errors():
        restrict_imports()
        words = resolve_configs(sys.argv[1:] if args is None else args)
        auto_cli(tell, args=words, as_positional=False, parser_class=FunctionParser)


if __name__ == "__main__":
    main()
