"""The pre-flight check: read every image of a data set, tell what is wrong, give a verdict.

``python -m smmix_pl.data.check --data smmix_pl.data.CUB --data.root DIR``, or with an overlay,
``--config configs/data/cub.yaml --data.root DIR``. Ends with status 1 where the verdict is bad. Set
``--data.check true`` to have a run check what it needs before it starts.
"""

from jsonargparse import auto_cli

from smmix_pl.commands import FunctionParser, one_sentence
from smmix_pl.data.base import ImageData, Split
from smmix_pl.data.inspection import Report, examine, inspect
from smmix_pl.errors import InputError
from smmix_pl.trust import only_named_packages


def check(data: ImageData) -> list[Report]:
    """Reports on the parts of a data set; one on a part that cannot be opened says why.

    Where validation images are held out of train, it may be all that there is.
    """
    reports = []
    splits: tuple[Split, ...] = ("train", "val", "test") if data.trainable else ("test",)
    for part in dict.fromkeys(map(data.part_of, splits)):
        try:
            images = data.images(part, inspect)
        except InputError as error:
            spared = part == "test" and data.held_out > 0
            bad, notes = ([], [str(error)]) if spared else ([str(error)], [])
            reports.append(Report(part, 0, None, bad, notes))
        else:
            reports.append(examine(images, data.classes_in_question, part, data.sizes, data.has_outliers))
    return reports


def tell(data: ImageData, trainer: dict | None = None) -> None:  # type: ignore[type-arg]
    """Read every image of a data set and give a verdict.

    Args:
        data: The data set.
        trainer: What an overlay says of the trainer; a check needs none of it.
    """
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
