"""The pre-flight check: read every image of a data set, tell what is wrong, give a verdict.

``python -m smmix_pl.data.check --data smmix_pl.data.CUB --data.root DIR``, or with an overlay,
``--config configs/data/cub.yaml --data.root DIR``. Ends with status 1 where the verdict is bad. Set
``--data.check true`` to have a run check what it needs before it starts.
"""

from jsonargparse import auto_cli

from smmix_pl.commands import FunctionParser, one_sentence
from smmix_pl.data.base import ImageData
from smmix_pl.data.inspection import Report, examine, inspect
from smmix_pl.errors import InputError
from smmix_pl.trust import only_named_packages


def check(data: ImageData) -> list[Report]:
    """Reports on all parts of a data set; one on a part that cannot be opened says why."""
    reports = []
    for part in ("train", "val", "test"):
        try:
            images = data.images(part, inspect)
        except InputError as error:
            reports.append(Report(part, 0, None, bad=[str(error)]))
        else:
            reports.append(examine(images, data.class_names, part, data.sizes))
    return reports


def tell(data: ImageData) -> None:
    """Read every image of a data set and give a verdict."""
    reports = check(data)
    print("\n\n".join(map(str, reports)))
    raise SystemExit(0 if all(report.good for report in reports) else 1)


def main(args: list[str] | None = None) -> None:
    """Check the data set that the command line describes."""
    with one_sentence():
        only_named_packages()
        auto_cli(tell, args=args, as_positional=False, parser_class=FunctionParser)


if __name__ == "__main__":
    main()
