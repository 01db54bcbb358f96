"""`smmix check-data`: read every image of a dataset and report problems."""

from collections.abc import Sequence

from smmix_pl.cli.config_paths import resolve_configs
from smmix_pl.cli.tool_parser import ToolParser
from smmix_pl.cli.trusted_packages import restrict_imports

DESCRIPTION = """Read every image of a dataset, print a report on each split, and exit with status 1
if something is wrong.

  smmix check-data --config data/cub.yaml --data.root DIR
  smmix check-data --data CUB --data.root DIR

`--data.check true` makes a run check the splits that it needs before it starts."""


def main(words: Sequence[str]) -> None:
    """Check a dataset.

    Args:
        words: Words of the command line after the command.

    Raises:
        SystemExit: With status 1, if the dataset has problems.
    """
    restrict_imports()
    from argparse import RawDescriptionHelpFormatter

    from smmix_pl.data import ImageData
    from smmix_pl.data.validation import examine_splits

    parser = ToolParser("check-data", DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_data_config()
    parser.add_subclass_arguments(ImageData, "data", required=True, help="The dataset.")
    options = parser.parse_args(resolve_configs(list(words)))
    data = parser.instantiate_classes(options).data
    data.prepare_data()
    good = True
    for report in examine_splits(data, ("train", "val", "test") if data.trainable else ("test",)):
        print(report, end="\n\n")
        good = good and report.good
    if not good:
        raise SystemExit(1)
