"""Checks of the settings that several mixers have in common."""

from math import inf

from smmix_pl.errors import InputError


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
