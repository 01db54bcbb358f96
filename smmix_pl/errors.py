"""The one exception that means: the input is at fault, and here is the mend."""

from collections.abc import Iterable
from difflib import SequenceMatcher


class InputError(ValueError):
    """Bad input, told in one sentence that names the value, the place and the mend.

    The command line prints the sentence alone and exits with status 2; set ``SMMIX_DEBUG=1`` to see
    the traceback.
    """


def one_line(told: object) -> str:
    """What to print of a message with names in it: one line, its control characters spelt out."""
    line = " ".join(str(told).split())
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in line
    )


def did_you_mean(wrong: str, known: Iterable[str], count: int = 3) -> str:
    """A hint that names the known words nearest to a wrong one.

    Words are compared over the length of the wrong one, so that a mistyped beginning finds them.
    """

    def likeness(word: str) -> tuple[float, float]:
        start = SequenceMatcher(None, wrong, word[: len(wrong)]).ratio()
        return start, SequenceMatcher(None, wrong, word).ratio()

    return f"did you mean {' or '.join(sorted(known, key=likeness, reverse=True)[:count])}?"
