"""Rows: what a replay tells, as rows of the lake, held against the rows the lake has.

Separate because both sides come in pieces of any size and in different orders: rows are counted
and their hashes added up by day and by block of entries, so equal sums are equal rows, and memory
is a few numbers a block.  What differs is then looked at row by row, in one block alone.
The hash is DuckDB's, of 64 bits: it tells accidents and bugs, not a forger who reckons with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake import SCHEMAS, SORT_KEYS, FileEntry, Lake, LakeError, Manifest
from analytics.lake_schema import DATE_COLUMNS
from excore_ray.actors.archive_rows import Scales, ledger_rows, market_rows
from excore_ray.core.events import events_of
from excore_ray.core.postings import postings_of
from excore_ray.offline.walk import Walk

BLOCK = 4_096  # entries
EVENTS_MAX = 20_000
ROWS_MAX = 100_000
EXAMPLES_MAX = 5
TABLES = {"market": ("deals", "orders"), "ledger": ("balances",)}

Key = tuple[str, str, int]  # table, date, block


class Sum(NamedTuple):
    """So many rows, and the sum of their hashes."""

    rows: int
    hashes: int


Sums = dict[Key, Sum]


class FilesMoved(Exception):
    """A file is gone because a newer manifest does not name it: begin again with that one."""


class Teller:
    """The rows a walk makes, from `first` to `last` of its entries.

    Its records tell them; take() makes rows of them whenever there are enough.
    """

    def __init__(self, walk: Walk, first: int, last: int, scales: Scales) -> None:
        self._walk = walk
        self._first, self._last = first, last
        self._scales = scales
        self._part = int(walk.stream.partition("-")[2])
        self._events: list[Any] = []
        self._seqs: list[int] = []

    def take(self, at_end: bool = False) -> dict[str, pa.Table]:
        """After a step, or at the end of all: rows by table, none when they are not due."""
        seq = self._walk.seq
        if not at_end and self._first <= seq <= self._last:
            events = self._told()
            self._events += events
            self._seqs += [seq] * len(events)
        if not self._events or not (at_end or len(self._events) >= EVENTS_MAX):
            return {}
        if self._walk.kind == "market":
            made = market_rows(self._events, self._seqs, self._scales.market(self._part))
        else:
            made = ledger_rows(self._events, self._seqs, self._scales)
        self._events.clear()
        self._seqs.clear()
        return made

    def _told(self) -> Sequence[object]:
        """What came of the newest entry, as its record has it and its replay confirmed it."""
        record = self._walk.record
        return events_of(record) if self._walk.kind == "market" else postings_of(record)


class Adder:
    """Adds rows up."""

    def __init__(self) -> None:
        self._db = duckdb.connect(config={"threads": "1"})

    def add(self, sums: Sums, table: str, rows: pa.Table) -> None:
        """Count rows of a table in."""
        if not len(rows):
            return
        days = rows[DATE_COLUMNS[table]].cast(pa.date32()).cast(pa.int32())
        view = rows.append_column("day", days)
        columns = ", ".join(f'"{name}"' for name in SCHEMAS[table].names)
        cursor = self._db.cursor()
        cursor.register("view", view)
        found = cursor.execute(
            f"SELECT (DATE '1970-01-01' + day)::VARCHAR, seq // {BLOCK}, count(*),"
            f" sum(hash({columns})) FROM view GROUP BY ALL"
        ).fetchall()
        cursor.close()
        for date, block, count, hashes in found:
            before = sums.get((table, date, block), Sum(0, 0))
            sums[table, date, block] = Sum(before.rows + count, before.hashes + int(hashes))

    def close(self) -> None:
        """Let go of DuckDB."""
        self._db.close()


def lake_rows(
    lake: Lake, manifest: Manifest, table: str, part: int, seqs: tuple[int, int]
) -> Iterator[tuple[FileEntry, pa.Table | LakeError]]:
    """The rows of a table and part that the entries seqs[0] to seqs[1] made, file by file.

    A file that cannot be read, or is not as it was written, comes with what is wrong with it.
    Raises FilesMoved.
    """
    first, last = seqs
    for entry in manifest.files:
        if (entry.table, entry.part) != (table, part):
            continue
        if entry.last_seq < first or entry.first_seq > last:
            continue
        try:
            for rows in lake.stream(entry, ROWS_MAX):
                inside = pc.and_(
                    pc.greater_equal(rows["seq"], first), pc.less_equal(rows["seq"], last)
                )
                yield entry, rows.filter(inside)
        except LakeError as fault:
            if entry not in lake.manifest().files:
                raise FilesMoved from fault
            yield entry, fault


def differing(told: Sums, found: Sums, spoilt: Iterable[FileEntry]) -> list[Key]:
    """Where the sums differ, in order; not where a file could not be read."""
    lost = [(f.table, f.date, f.first_seq // BLOCK, f.last_seq // BLOCK) for f in spoilt]

    def is_lost(key: Key) -> bool:
        table, date, block = key
        return any((table, date) == each[:2] and each[2] <= block <= each[3] for each in lost)

    keys = sorted(told.keys() | found.keys())
    return [key for key in keys if told.get(key) != found.get(key) and not is_lost(key)]


def compare_rows(table: str, told: pa.Table, found: pa.Table) -> list[str]:
    """What differs between two small tables, row by row; at most EXAMPLES_MAX examples."""
    keys = SORT_KEYS[table]
    ours, theirs = _by_key(keys, told), _by_key(keys, found)
    wrong: list[str] = []
    for key in sorted(ours.keys() | theirs.keys()):
        name = ", ".join(f"{n} {v}" for n, v in zip(keys, key, strict=True))
        have, has = ours.get(key, []), theirs.get(key, [])
        if have == has:
            continue
        if not has:
            wrong.append(f"{name} is missing")
        elif not have:
            wrong.append(f"{name} is no row of the journal")
        elif len(has) != len(have):
            wrong.append(f"{name} is there {len(has)} times")
        else:
            columns = [c for c in have[0] if have[0][c] != has[0][c]]
            said = [f"{c} is {has[0][c]}, not {have[0][c]}" for c in columns]
            wrong.append(f"{name}: {', '.join(said)}")
        if len(wrong) == EXAMPLES_MAX:
            break
    return wrong


def _by_key(keys: list[str], rows: pa.Table) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found
