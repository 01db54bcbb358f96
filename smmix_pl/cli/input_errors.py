"""Invalid input as one line on stderr with exit status 2, for every command.

Exceptions of other libraries are recognized by type and origin. Only where a library has neither,
is its message read. All regular expressions for messages of Lightning and jsonargparse are here.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from smmix_pl.cli.trusted_packages import PACKAGES
from smmix_pl.errors import InputError, one_line

DISK_ERRORS = {
    getattr(errno, name)
    for name in (
        *("EACCES", "EDQUOT", "EEXIST", "EFBIG", "EIO", "EISDIR", "ELOOP", "EMFILE"),
        *("ENAMETOOLONG", "ENOENT", "ENOSPC", "ENOTDIR", "EPERM", "EROFS", "ESTALE"),
    )
}
REJECTIONS = (
    *("AttributeError", "ImportError", "ModuleNotFoundError", "RuntimeError", "ValueError"),
    *("ZeroDivisionError", "InvalidVersion"),
)
"""What Lightning and the packages that it calls raise for values that they reject."""
TEMPLATES = (
    (r'Parser key "([^"]+)": (.*?)\.? Got value: (.*)', r"\1=\3: \2"),
    (r'Parser key "([^"]+)": (.*)', r"\1: \2"),
    (r"unrecognized arguments: (.*)", r"\1: unknown option"),
    (r"Option '([\w.]+)' is not accepted", r"\1: unknown option"),
    (r"Subcommand '\w+' does not accept option '([\w.]+)'", r"\1: unknown option"),
    (
        r"the following arguments are required: (?:fit\.|validate\.|test\.|predict\.)?(.*)",
        r"\1: required",
    ),
)
"""Messages of jsonargparse, and how they read as `option=value: problem`."""
UNKNOWN_CLASS = re.compile(r"(?:dot import path string: |has no attribute ')(\w+)")
UNKNOWN_OPTION = re.compile(r"(?:[Oo]ption '|unrecognized arguments: --)([\w.]+)")


@contextmanager
def report_input_errors() -> Iterator[None]:
    """Print invalid input and disk errors on one line; other exceptions pass through.

    Raises:
        SystemExit: With status 2, for an exception caused by the input.
    """
    try:
        yield
    except Exception as error:
        cause = input_error(error)
        if cause is None or os.environ.get("SMMIX_DEBUG", "0") not in ("", "0"):
            raise
        print("error:", one_line(f"{cause}{last_good_checkpoint(error)}"), file=sys.stderr)
        raise SystemExit(2) from None


def input_error(error: BaseException | None) -> Exception | None:
    """Return the invalid input behind an exception, or None if the input is not its cause."""
    outermost = error
    while error is not None and not _is_input_error(error):
        error = error.__cause__ or error.__context__
    if isinstance(error, Exception):
        return error
    if outermost is None:
        return None
    if isinstance(outermost, OSError) and outermost.errno in DISK_ERRORS:
        file = outermost.filename or "the run folder"
        return InputError(
            f"{file}: cannot be used ({outermost.strerror}). Check disk space and permissions."
        )
    if type(outermost).__name__ == "PathError":  # jsonargparse's, when it writes the config
        return InputError(f"{outermost}. Check disk space and permissions.")
    if _is_out_of_memory(outermost):
        details = str(outermost).strip()[:200] or "MemoryError"
        return InputError(f"out of memory ({details}). Reduce data.batch_size or data.image_size.")
    if any(_raised_by(outermost, package) for package in ("lightning", "fsspec", "packaging")):
        return InputError(
            f"Lightning rejects the settings ({outermost}). Set SMMIX_DEBUG=1 to see where."
        )
    if _raised_by(outermost, "torch.optim") and "loaded state dict" in str(outermost):
        return InputError(
            f"the checkpoint holds the state of another optimizer ({outermost}). Use the config of "
            "its run, or start from its weights with --model.init_from."
        )
    return None


def _is_input_error(error: BaseException) -> bool:
    return isinstance(error, InputError) or type(error).__name__ == "MisconfigurationException"


def _is_out_of_memory(error: BaseException) -> bool:
    """Return True for the memory of the host or of a device; torch has no type for the host's."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ == "OutOfMemoryError"
        or (type(error) is RuntimeError and "DefaultCPUAllocator" in str(error))
    )


def _raised_by(error: BaseException, package: str) -> bool:
    """Return True if a package's own code rejects how it is used; it has no type for that."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if type(error).__name__ not in REJECTIONS or not frames:
        return False
    return str(frames[-1].f_globals.get("__name__")).startswith(f"{package}.")


def last_good_checkpoint(error: BaseException) -> str:
    """Return where a failed run can resume from, as `Preemption` found it."""
    path = getattr(error, "last_good", None)
    return "" if path is None else f" --ckpt_path last resumes from {path}."


def plain(message: str) -> str:
    """Return a message of jsonargparse about a value without Python's notation of types."""
    message = " ".join(message.split())
    union = re.search(r"Does not validate against any of the Union .*?Errors: (.*)", message)
    if union is not None:
        reasons, _, given = union[1].partition(" Given value type: ")
        value = given.rpartition("Given value: ")[2]
        expected = " or ".join(dict.fromkeys(reasons.removeprefix("- ").split(" - ")))
        message = (
            message[: union.start()]
            + expected.replace(" or Expected", " or")
            + (f". Got value: {value}" if value else "")
        )
    # a class may also be given as a path in place of its name
    message = re.sub(r"- Expected a path but \S+ either not accessible or invalid - ", "", message)
    # jsonargparse ends with all of what it was about to build
    message = re.sub(r"(?: or [\w ]+)*\. Got value: Namespace\(.*", "", message)
    message = re.sub(r"(?:a )?<class '(?:[\w.]+\.)?(\w+)'>", r"\1", message).replace("typing.", "")
    message = message.replace("NoneType", "null")
    no_class = r"Expected a dot import path string: (\S+?)\.?(?: or null)?(?=$|\. )"
    return re.sub(no_class, r"no class \1", message)


def parser_error(message: str, hint: str) -> InputError:
    """Return the error for what jsonargparse does not accept.

    Args:
        message: As jsonargparse words it.
        hint: Sentence that says what to do.
    """
    denied = re.search(r"Importing '([\w.]+)' is not allowed", message)
    if denied is not None:
        return InputError(
            f"{denied[1]}: not in a package that configs may import from ({', '.join(PACKAGES)}). "
            f"If you trust it, set SMMIX_PACKAGES={denied[1].split('.')[0]}."
        )
    text = plain(message).rstrip(".")
    for pattern, template in TEMPLATES:
        found = re.fullmatch(pattern, text)
        if found is not None:
            text = found.expand(template).replace(": Expected", ": expected")
            break
    return InputError(f"{text}. {hint}".rstrip())
