"""Checks of single settings: what is out of range is told with name, value and range."""

from collections.abc import Collection
from math import inf

from smmix_pl.errors import InputError, did_you_mean


def in_range(name: str, value: float, low: float, high: float = inf, hint: str = "") -> None:
    """Refuse a number outside [low, high], infinity and NaN.

    Args:
        name: As the user writes it, such as ``optim.eps``.
        value: What was given.
        low: Smallest allowed value.
        high: Largest allowed value; infinity allows any finite number.
        hint: What is usual, or how to turn it off.

    Raises:
        InputError: It is outside.
    """
    finite = isinstance(value, int | float) and -inf < value < inf
    if not finite or not low <= value <= high:
        allowed = f"at least {low:g}" if high == inf else f"in [{low:.10g}, {high:.10g}]"
        usual = f" ({hint})" if hint else ""
        raise InputError(f"{name} is {value}; it must be a finite number, {allowed}{usual}")


def one_of(name: str, value: str, known: Collection[str]) -> None:
    """Refuse a word that is not known.

    Args:
        name: As the user writes it.
        value: What was given.
        known: All allowed words.

    Raises:
        InputError: It is none of them.
    """
    if value not in known:
        raise InputError(f"{name} is {value!r}; {did_you_mean(value, known)}")


def above_zero(name: str, value: float, usual: float) -> float:
    """The value of a Beta distribution's parameter, or an error.

    Args:
        name: Whose it is, such as ``Mixup's alpha``.
        value: Above 0 and finite.
        usual: What the paper takes.
    """
    if not 0 < value < inf:
        raise InputError(
            f"{name} is {value}; it must be above 0 and finite (the paper takes {usual:g})"
        )
    return value


def probability(name: str, value: float) -> float:
    """The value of a probability, or an error.

    Args:
        name: Whose it is, such as ``SMMix's switch_prob``.
        value: In [0, 1].
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name} is {value}; a probability is in [0, 1]")
    return value
