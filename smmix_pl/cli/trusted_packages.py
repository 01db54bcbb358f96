"""The packages whose classes and functions a config may name."""

import os

from smmix_pl.errors import InputError

PACKAGES = ("smmix_pl", "lightning")


def restrict_imports() -> None:
    """Let configs and command lines import from this package, Lightning, and trusted ones only.

    `SMMIX_PACKAGES=mine,theirs` adds packages. Call this before parsing.

    Raises:
        InputError: The variable does not hold names of packages.
    """
    from jsonargparse import set_parsing_settings

    named = [name.strip() for name in os.environ.get("SMMIX_PACKAGES", "").split(",")]
    try:
        set_parsing_settings(
            import_path_denylist=["*"], import_path_allowlist=[*PACKAGES, *filter(None, named)]
        )
    except ValueError as error:
        raise InputError(
            f"SMMIX_PACKAGES={','.join(named)}: not a list of package names. Set it to names such "
            "as mine,theirs."
        ) from error
