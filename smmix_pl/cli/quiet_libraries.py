"""Keeps what libraries print about themselves out of the output of a run."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lightning

from smmix_pl.errors import one_line

PACKAGE = Path(__file__).parent.parent
LIGHTNING = Path(lightning.__file__).parent
REPORTERS = (
    "lightning.fabric.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
    "lightning.pytorch.utilities.rank_zero",
)
"""Loggers of `rank_zero_info`, which Lightning, this package, and user code share, and of seeds."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drop Lightning's notices on hardware, defaults, and other products, and one deprecation.

    Warnings are kept, and so is what callbacks report, such as the reason for an early stop.
    Those of this package and of Lightning are printed on one line, like errors.
    """
    loggers = [logging.getLogger(name) for name in REPORTERS]
    for logger in loggers:
        logger.addFilter(_is_for_the_user)
    format_warning = warnings.formatwarning
    warnings.formatwarning = partial(_format_warning, format_warning)
    try:
        with warnings.catch_warnings():
            # torch deprecated what Lightning calls
            warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
            yield
    finally:
        warnings.formatwarning = format_warning
        for logger in loggers:
            logger.removeFilter(_is_for_the_user)


def _is_for_the_user(record: logging.LogRecord) -> bool:
    source = Path(record.pathname)
    own = LIGHTNING in source.parents and "callbacks" not in source.parts
    return record.levelno > logging.INFO or not own


def _format_warning(
    otherwise: Callable[..., str],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    if not {PACKAGE, LIGHTNING}.isdisjoint(Path(filename).parents):
        return f"warning: {one_line(str(message))}\n"
    return otherwise(message, category, filename, lineno, line)
