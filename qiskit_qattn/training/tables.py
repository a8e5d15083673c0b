"""Files of labelled sentences: TSV, CSV and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qiskit_qattn.errors import DataError
from qiskit_qattn.untrusted import MOST_TEXT, one_line, read_bytes

FORMATS = (".tsv", ".csv", ".parquet")
Row = tuple[str, ...]  # the sentences, then the label


def read_columns(path: Path, wanted: Sequence[str]) -> list[Row]:
    """Return the sentences and the label of each row of a file.

    Args:
        path: The file.
        wanted: Names of the columns, that of the label last; numbers from 0 on, as text, for a file without a header.

    Raises:
        DataError: If it cannot be read, lacks a column, or a row has no sentence or label.
    """
    columns, rows = read_table(path)
    if all(name.isdigit() for name in wanted):  # of a file without a header
        rows = [list(columns), *rows]
        columns = [str(i) for i in range(len(columns))]
    missing = [name for name in wanted if name not in columns]
    if missing:
        found = ", ".join(one_line(name)[:40] for name in columns[:20])
        raise DataError(
            f"{str(path)!r} has no column {' and no '.join(missing)}; it must have sentence and label, or sentence1,"
            f" sentence2 and label. It has: {found or 'none'}."
        )
    places = [list(columns).index(name) for name in wanted]
    found_rows = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise DataError(f"{str(path)!r} has {len(row)} columns in row {number}, but {len(columns)} in its header.")
        chosen = tuple(row[i].strip() for i in places)
        if not all(chosen[:1]) or not chosen[-1]:
            what = "sentence" if chosen[-1] else "label"
            raise DataError(f"{str(path)!r} has no {what} in row {number}.")
        found_rows.append(chosen)
    if not found_rows:
        raise DataError(f"{str(path)!r} has no rows.")
    return found_rows


def read_table(path: Path) -> tuple[Sequence[str], list[list[str]]]:
    """Return the header and the rows of a TSV, CSV or Parquet file.

    Raises:
        DataError: If it is no such file.
    """
    if path.suffix not in FORMATS:
        raise DataError(f"{str(path)!r} must be a file of the formats {', '.join(FORMATS)}.")
    try:
        content = read_bytes(path, MOST_TEXT)
        if path.suffix == ".parquet":
            return _parquet(content)
        lines = (tsv_rows if path.suffix == ".tsv" else _csv_rows)(content.decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"Cannot read {str(path)!r}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{str(path)!r} is not UTF-8 text: {error.reason} at byte {error.start}.") from error
    except ValueError as error:
        raise DataError(f"{str(path)!r} is no {path.suffix[1:]} file: {one_line(str(error))[:200]}") from error
    if not lines:
        raise DataError(f"{str(path)!r} is empty.")
    return lines[0], lines[1:]


def tsv_rows(text: str) -> list[list[str]]:
    """Return the fields of each line; there is no quoting, as in GLUE's files."""
    return [line.rstrip("\r").split("\t") for line in text.split("\n") if line.strip()]


def _csv_rows(text: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _parquet(content: bytes) -> tuple[Sequence[str], list[list[str]]]:
    """Return the columns of a Parquet file as text."""
    from pyarrow import ArrowException, BufferReader, parquet

    try:
        table = parquet.read_table(BufferReader(content))
        columns: Mapping[str, list[Any]] = table.to_pydict()
    except (ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    names = list(columns)
    texts = [["" if value is None else str(value) for value in columns[name]] for name in names]
    return names, [list(row) for row in zip(*texts, strict=True)]
