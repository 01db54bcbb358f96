"""Long tables of cases: `make test` runs a part, the slow tests the others."""

from collections.abc import Iterable
from typing import Any

import pytest


def every(step: int, cases: Iterable[Any]) -> list[Any]:
    """Return cases for `parametrize`, of which only every `step`-th is not marked slow.

    A tuple holds the values of several arguments.
    """
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[] if place % step == 0 else pytest.mark.slow,
        )
        for place, case in enumerate(cases)
    ]
