"""The exception for invalid user input, and how its message is built."""

from collections.abc import Iterable
from difflib import SequenceMatcher


class InputError(ValueError):
    """Invalid user input. The message names the option, its value, the problem, and the fix.

    Format: `option=value: what is wrong. What to do.` The command line prints the message on one
    line and exits with status 2. Set `SMMIX_DEBUG=1` to see the traceback.
    """


def one_line(message: object) -> str:
    """Return a message on one line, with control characters escaped."""
    line = " ".join(str(message).split())
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in line
    )


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return a hint that names the three known words closest to a wrong one.

    Words are also compared over the length of the wrong one, so that a mistyped beginning of a long
    word finds it. The wrong word itself is never suggested.
    """

    def similarity(word: str) -> tuple[float, float]:
        start = SequenceMatcher(None, wrong, word[: len(wrong)]).ratio()
        return start, SequenceMatcher(None, wrong, word).ratio()

    nearest = sorted(set(known) - {wrong}, key=similarity, reverse=True)[:3]
    return f"Did you mean {' or '.join(nearest)}?"
