"""Rows of CSV, TSV, and Parquet files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smmix_pl.errors import InputError

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*SEPARATORS, ".parquet")


def read_columns(file: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the values of some columns, row by row, as text without surrounding spaces.

    An empty text stands for a missing value.

    Args:
        file: A `.csv`, `.tsv`, or `.parquet` file. The first two are UTF-8, with a header.
        columns: Names of the columns.

    Raises:
        InputError: The file is missing or damaged, or has no such column.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise InputError(f"data.file={file}: unknown format. Use {', '.join(SUFFIXES)}.")
    if not file.is_file():
        raise InputError(f"data.file={file}: no such file. Set it relative to data.root.")
    read = _read_parquet if file.suffix.lower() == ".parquet" else _read_text
    return [tuple(map(_text, row)) for row in read(file, columns)]


def _read_text(file: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.reader(lines, delimiter=SEPARATORS[file.suffix.lower()], strict=True)
            header = [name.strip() for name in next(table, [])]
            _require(file, columns, header)
            places = [header.index(name) for name in columns]
            rows = []
            for row in table:
                if row and len(row) != len(header):
                    raise InputError(
                        f"{file}: line {table.line_num} has {len(row)} columns, the header "
                        f"{len(header)}. Fix the line."
                    )
                if row:
                    rows.append(tuple(row[place] for place in places))
            return rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a table in UTF-8 ({error}). Save it again.") from error


def _read_parquet(file: Path, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise InputError(
            f"data.file={file}: {error}. Install the package with pip install 'smmix-pl[parquet]', "
            "or save the table as .csv."
        ) from error
    try:
        with ParquetFile(file) as table:
            _require(file, columns, table.schema_arrow.names)
            found = table.read(columns=list(dict.fromkeys(columns)))
            return list(zip(*(found.column(name).to_pylist() for name in columns), strict=True))
    except (ArrowException, OSError) as error:
        raise InputError(f"{file}: not a Parquet file ({error}). Save it again.") from error


def _require(file: Path, columns: Sequence[str], header: Sequence[str]) -> None:
    for name in columns:
        count = header.count(name)
        if count != 1:
            found = ", ".join(map(repr, header)) or "no header"
            raise InputError(
                f"{file}: {count or 'no'} columns named {name!r} (found {found}). Set data.image, "
                "data.label, or data.split."
            )


def _text(value: Any) -> str:
    """Return a value as text. A whole number has no decimals, whatever its type."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
