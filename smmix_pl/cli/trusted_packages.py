"""Which packages a config may name classes and functions of: ours, Lightning's, those you say."""

import os

from jsonargparse import set_parsing_settings

from smmix_pl.errors import InputError

PACKAGES = ("smmix_pl", "lightning")


def restrict_imports() -> None:
    """Let values of configs and command lines import from named packages only, before they do.

    ``SMMIX_PACKAGES=mine,theirs`` names more.

    Raises:
        InputError: It does not name packages.
    """
    named = [name.strip() for name in os.environ.get("SMMIX_PACKAGES", "").split(",")]
    try:
        set_parsing_settings(
            import_path_denylist=["*"], import_path_allowlist=[*PACKAGES, *filter(None, named)]
        )
    except ValueError as error:
        raise InputError(
            f"SMMIX_PACKAGES is {','.join(named)!r}; give names of packages, as mine,theirs"
        ) from error
