"""Rows as a command gives them: printed as a table, CSV or JSON, or written into a file.

Separate because no command cares which of these it is.  It must not know what the rows mean.

Quantities stay exact: plain decimals without an exponent, in JSON as strings.  Times are ISO 8601.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics.history_rows import plain_text
from analytics.lake_schema import QUANTITY

TABLE_ROWS_MAX = 1_000  # what is shown as a table; other forms have all rows
_WIDE = 10_000  # columns of what is no terminal: no line is broken

Batches = Iterable[pa.RecordBatch]


class CannotWrite(Exception):
    """A file cannot be written; the message names it."""


class Output(NamedTuple):
    """Where rows go and how.  form: table, csv, json or parquet.  path: None to print them."""

    form: str
    path: Path | None


def output_of(text: str) -> Output:
    """Where `text` says that rows should go.  ValueError when it says nothing known."""
    path = Path(text)
    if text in ("table", "csv", "json"):
        return Output(text, None)
    if path.suffix in (".parquet", ".csv", ".json"):
        return Output(path.suffix[1:], path)
    raise ValueError(f"{text} is not table, csv or json, nor a file .parquet, .csv or .json")


def emit(schema: pa.Schema, batches: Batches, output: Output | None) -> None:
    """Give the rows, batch by batch; output: None for a table.

    A file is there as a whole or not at all.  CannotWrite when it cannot be written; what
    `batches` raises goes through.
    """
    form, path = output or Output("table", None)
    if path is None:
        _PRINTERS[form](schema, batches, sys.stdout)
        return
    with _replacing(path) as temporary:
        if form == "parquet":
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                _PRINTERS[form](schema, batches, file)
    print(f"written to {path}")


def emit_table(rows: pa.Table, output: Output | None) -> None:
    """See `emit`."""
    emit(rows.schema, rows.to_batches(), output)


def decimals(values: Sequence[Decimal]) -> pa.Array:
    """Quantities as a column; totals too large for the type of all others get a wider one."""
    try:
        return pa.array(values, QUANTITY)
    except pa.ArrowInvalid:
        return pa.array(values, pa.decimal256(76, QUANTITY.scale))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when all went well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        yield temporary
        temporary.replace(path)
    except OSError as fault:
        # Rows are read by DuckDB, whose faults are its own: this one is of the file.
        raise CannotWrite(f"{path} cannot be written: {fault.strerror or fault}") from fault
    finally:
        temporary.unlink(missing_ok=True)


def _rows(schema: pa.Schema, batches: Batches) -> Iterator[tuple[Any, ...]]:
    """Row by row; not as dictionaries, for two columns may bear one name."""
    for batch in batches:
        columns = [column.to_pylist() for column in batch.columns]
        yield from zip(*columns, strict=True)


def _print_table(schema: pa.Schema, batches: Batches, file: IO[str]) -> None:
    numeric = [pa.types.is_decimal(kind) or pa.types.is_primitive(kind) for kind in schema.types]
    numeric = [
        each and not pa.types.is_temporal(kind)
        for each, kind in zip(numeric, schema.types, strict=True)
    ]
    table = Table(box=None)
    for name, right in zip(schema.names, numeric, strict=True):
        # What is cut off in the middle of a number would be another number.
        table.add_column(Text(name), justify="right" if right else "left", overflow="fold")
    rows = _rows(schema, batches)
    for row in islice(rows, TABLE_ROWS_MAX):
        table.add_row(*(Text(_text(value)) for value in row))
    console = Console(file=file, highlight=False, width=None if file.isatty() else _WIDE)
    console.print(table)
    if next(rows, None) is not None:
        note = f"only the first {TABLE_ROWS_MAX} rows are shown: --output csv prints all"
        Console(stderr=True, highlight=False, soft_wrap=True).print(note)


def _print_csv(schema: pa.Schema, batches: Batches, file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(schema.names)
    for row in _rows(schema, batches):
        writer.writerow([_text(value) for value in row])


def _print_json(schema: pa.Schema, batches: Batches, file: IO[str]) -> None:
    names = _distinct(schema.names)
    lead = "["
    for row in _rows(schema, batches):
        fields = dict(zip(names, map(_plain, row), strict=True))
        file.write(f"{lead}\n{json.dumps(fields, ensure_ascii=False)}")
        lead = ","
    file.write("[]\n" if lead == "[" else "\n]\n")


_PRINTERS: dict[str, Callable[[pa.Schema, Batches, IO[str]], None]] = {
    "table": _print_table,
    "csv": _print_csv,
    "json": _print_json,
}


def _distinct(names: list[str]) -> list[str]:
    """The names, a repeated one with its number: an object has each key once."""
    found: list[str] = []
    for name in names:
        number, free = 2, name
        while free in found:
            number, free = number + 1, f"{name}_{number}"
        found.append(free)
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            # JSON has no word for what is not finite.
            return value if abs(value) < float("inf") else str(value)
        case Decimal():
            return plain_text(value)
        case datetime() | date() | time_of_day():
            return value.isoformat()
        case bytes():
            return value.hex()
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    return str(value)


def _text(value: Any) -> str:
    """A value as a cell of a table or of CSV: null is empty."""
    plain = _plain(value)
    if plain is None:
        return ""
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
