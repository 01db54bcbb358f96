"""What all programs share: bad input is told in one sentence on stderr, with exit status 2."""

import argparse
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from errno import (
    EACCES,
    EDQUOT,
    EEXIST,
    EFBIG,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
    ENOENT,
    ENOSPC,
    ENOTDIR,
    EPERM,
    EROFS,
    ESTALE,
)
from typing import NoReturn

import jsonargparse
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from packaging.version import InvalidVersion

from smmix_pl.cli.trusted_packages import PACKAGES
from smmix_pl.errors import InputError, one_line

DISK = (
    ENOENT,
    ENOSPC,
    EDQUOT,
    EFBIG,
    EROFS,
    EACCES,
    EPERM,
    EIO,
    ESTALE,
    EEXIST,
    ENOTDIR,
    EISDIR,
    ELOOP,
    EMFILE,
    ENAMETOOLONG,
)


SPOKEN = (AttributeError, ImportError, RuntimeError, ValueError, ZeroDivisionError, InvalidVersion)
"""What Lightning, and what it asks, raise on values that they refuse."""


@contextmanager
def report_input_errors() -> Iterator[None]:
    """Tell bad input and what the disk refuses; set ``SMMIX_DEBUG=1`` to see the traceback.

    Raises:
        SystemExit: Status 2, for an exception that is the input's fault; others go through.
    """
    try:
        yield
    except Exception as error:
        cause = input_error(error)
        if cause is None or os.environ.get("SMMIX_DEBUG", "0") not in ("", "0"):
            raise
        print("error:", one_line(f"{cause}{last_good(error)}"), file=sys.stderr)
        raise SystemExit(2) from None


def input_error(error: BaseException | None) -> Exception | None:
    """The bad input behind an exception, ours or what Lightning calls misconfiguration, if any."""
    outermost = error
    while error is not None and not isinstance(error, (InputError, MisconfigurationException)):
        error = error.__cause__ or error.__context__
    if error is None and isinstance(outermost, OSError) and outermost.errno in DISK:
        file = outermost.filename or "the run's folder"
        return InputError(f"{file} cannot be used ({outermost.strerror}); look at disk and rights")
    if error is None and outermost is not None:
        if _out_of_memory(outermost):
            return InputError(
                f"the memory does not suffice ({str(outermost).strip()[:200] or 'MemoryError'}); "
                "lower data.batch_size, data.image_size or what else is large"
            )
        if type(outermost).__name__ == "PathError":  # jsonargparse's, on writing the config
            return InputError(f"{outermost}; look at disk and rights")
        if any(_raised_by(outermost, package) for package in ("lightning", "fsspec", "packaging")):
            return InputError(f"Lightning refuses this: {outermost}; SMMIX_DEBUG=1 shows where")
        if _raised_by(outermost, "torch.optim") and "loaded state dict" in str(outermost):
            return InputError(
                f"the checkpoint's optimizer is another one ({outermost}); use the config it was "
                "trained with, or start from its weights with --model.init_from"
            )
    return error


def _out_of_memory(error: BaseException) -> bool:
    """Of the host or of a device; torch has no type for the host's."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        type(error) is RuntimeError and "DefaultCPUAllocator" in str(error)
    )


def _raised_by(error: BaseException, package: str) -> bool:
    """Whether a package's own code says that it is not used rightly; it has no type for that."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if type(error) not in SPOKEN or not frames:
        return False
    return str(frames[-1].f_globals.get("__name__")).startswith(f"{package}.")


def last_good(error: BaseException) -> str:
    """Where a run that failed can go on from, as `Preemption` found it."""
    path = getattr(error, "last_good", None)
    return "" if path is None else f"; --ckpt_path last goes on from the last good one, {path}"


def plain(message: str) -> str:
    """What jsonargparse says about a value, in words: without types as Python prints them."""
    message = " ".join(message.split())
    union = re.search(r"Does not validate against any of the Union .*?Errors: (.*)", message)
    if union is not None:
        reasons, _, given = union[1].partition(" Given value type: ")
        value = given.rpartition("Given value: ")[2]
        told = " or ".join(dict.fromkeys(reasons.removeprefix("- ").split(" - ")))
        message = (
            message[: union.start()]
            + told.replace(" or Expected", " or")
            + (f". Got value: {value}" if value else "")
        )
    # jsonargparse ends in the whole of what it was about to build
    message = re.sub(r"(?: or [\w ]+)*\. Got value: Namespace\(.*", "", message)
    message = re.sub(r"(?:a )?<class '(?:[\w.]+\.)?(\w+)'>", r"\1", message).replace("typing.", "")
    return message.replace("NoneType", "null")


def refused(message: str, mend: str) -> InputError:
    """What jsonargparse does not accept, and the mend."""
    denied = re.search(r"Importing '([\w.]+)' is not allowed", message)
    if denied is not None:
        return InputError(
            f"{denied[1]} is of no package that configs may name ({', '.join(PACKAGES)}); "
            f"if you trust it, set SMMIX_PACKAGES={denied[1].split('.')[0]}"
        )
    return InputError(plain(message) + mend)


class WordsParser(argparse.ArgumentParser):
    """Of a program with a few words."""

    def error(self, message: str) -> NoReturn:
        """Raise an `InputError` instead of printing the usage."""
        raise InputError(f"{message}; --help tells what is allowed")


class FunctionParser(jsonargparse.ArgumentParser):
    """Of a program that is a function's signature."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise an `InputError` instead of printing the usage."""
        raise input_error(ex) or refused(message, "; --help tells what is allowed") from ex
