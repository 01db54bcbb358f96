"""Checks of single settings, with errors that give the option, its value, and the allowed range."""

from collections.abc import Collection
from math import inf

from smmix_pl.errors import InputError, did_you_mean


def in_range(name: str, value: float, low: float, high: float = inf, hint: str = "") -> None:
    """Reject a number outside [low, high], and NaN and infinity.

    Args:
        name: Option as the user types it, such as `model.optim.eps`.
        value: Its value.
        low: Smallest allowed value.
        high: Largest allowed value. Infinity allows any finite number.
        hint: Sentence about the usual value or how to turn the option off.

    Raises:
        InputError: The value is out of range.
    """
    finite = isinstance(value, int | float) and -inf < value < inf
    if not finite or not low <= value <= high:
        allowed = f"at least {low:g}" if high == inf else f"in [{low:.10g}, {high:.10g}]"
        raise InputError(f"{name}={value}: must be a finite number, {allowed}.{_spaced(hint)}")


def positive(name: str, value: float, hint: str = "") -> float:
    """Return a number, or reject it if it is not above 0 and finite.

    Args:
        name: Option as the user types it.
        value: Its value.
        hint: Sentence about the usual value.

    Raises:
        InputError: The value is out of range.
    """
    if not 0 < value < inf:
        raise InputError(f"{name}={value}: must be above 0 and finite.{_spaced(hint)}")
    return value


def probability(name: str, value: float) -> float:
    """Return a number, or reject it if it is not in [0, 1].

    Args:
        name: Option as the user types it.
        value: Its value.

    Raises:
        InputError: The value is out of range.
    """
    if not 0 <= value <= 1:
        raise InputError(f"{name}={value}: must be in [0, 1], because it is a probability.")
    return value


def one_of(name: str, value: str, known: Collection[str]) -> None:
    """Reject a value that is not among the known ones.

    Args:
        name: Option as the user types it.
        value: Its value.
        known: All allowed values.

    Raises:
        InputError: The value is unknown.
    """
    if value not in known:
        raise InputError(f"{name}={value}: unknown value. {did_you_mean(value, known)}")


def _spaced(hint: str) -> str:
    return f" {hint.rstrip('.')}." if hint else ""
