"""Lake part: what one stream must have made of the lake, and what the lake has of it.

Separate from `rows.py`, which adds up and compares any rows, because this is one stream's part:
which entries both sides have, and which days the lake no longer keeps.  It must not know
machines.
"""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake import SCHEMAS, FileEntry, Lake, LakeError, Manifest
from analytics.lake_schema import DATE_COLUMNS
from excore_ray.actors.archive_rows import Scales
from excore_ray.offline.rows import (
    BLOCK,
    TABLES,
    Adder,
    FilesMoved,
    Key,
    Sums,
    Teller,
    compare_rows,
    differing,
    lake_rows,
)
from excore_ray.offline.walk import Walk
from excore_ray.storage.journal import JournalReader

_TRIES = 5
_LOOKED_AT_MAX = 3  # blocks that are looked at row by row, a table


class TableFigures(msgspec.Struct, frozen=True):
    """What was compared of one table and stream.

    first_seq, last_seq: the entries whose rows both sides have.  rows: of the lake.
    older: rows the replay makes of days that the lake does not keep any more.
    """

    table: str
    stream: str
    first_seq: int
    last_seq: int
    rows: int
    files: int
    older: int


class LakePart:
    """What a walk makes of entries up to `last`.  take() belongs after every step."""

    def __init__(self, walk: Walk, last: int, scales: Scales) -> None:
        self._walk = walk
        self._scales = scales
        self._seqs = walk.start + 1, last
        self._part = int(walk.stream.partition("-")[2])
        self._teller = Teller(walk, *self._seqs, scales)
        self._adder = Adder()
        self._told: Sums = {}

    def take(self, at_end: bool = False) -> None:
        """Take in what was told."""
        for table, rows in self._teller.take(at_end).items():
            self._adder.add(self._told, table, rows)

    def compare(
        self, lake: Lake, manifest: Manifest, reader: JournalReader
    ) -> tuple[list[TableFigures], list[tuple[str, str]]]:
        """What was compared, and what is wrong: where, and a sentence.

        The walk must be over.  Raises UnknownScale, ValueError, OSError, LakeError.
        """
        self.take(at_end=True)
        try:
            figures: list[TableFigures] = []
            wrong: list[tuple[str, str]] = []
            for table in TABLES[self._walk.kind]:
                one, said = self._compare_table(lake, manifest, reader, table)
                figures.append(one)
                wrong += [(f"{table} of {self._walk.stream}", what) for what in said]
            return figures, wrong
        finally:
            self._adder.close()

    def _compare_table(
        self, lake: Lake, manifest: Manifest, reader: JournalReader, table: str
    ) -> tuple[TableFigures, list[str]]:
        manifest, found, spoilt = self._read(lake, manifest, table)
        wrong = [f"{entry.path}: {fault}" for entry, fault in spoilt.items()]
        # Whole days are let go of, of all streams alike.
        kept_from = min((entry.date for entry in manifest.files), default="")
        told: Sums = {}
        older = 0
        for key, each in self._told.items():
            if key[0] == table and key[1] < kept_from:
                older += each.rows
            elif key[0] == table:
                told[key] = each
        keys = differing(told, found, spoilt)
        for key in keys[:_LOOKED_AT_MAX]:
            wrong += self._look(lake, manifest, reader, key)
        if len(keys) > _LOOKED_AT_MAX:
            wrong.append(f"and rows of {len(keys) - _LOOKED_AT_MAX} more blocks of entries differ")
        figures = TableFigures(
            table,
            self._walk.stream,
            *self._seqs,
            sum(each.rows for each in found.values()),
            sum((f.table, f.part) == (table, self._part) for f in manifest.files),
            older,
        )
        return figures, wrong

    def _read(
        self, lake: Lake, manifest: Manifest, table: str
    ) -> tuple[Manifest, Sums, dict[FileEntry, LakeError]]:
        """What the lake has.  Files that were merged meanwhile are read as the merged ones."""
        for again in range(_TRIES, 0, -1):
            found: Sums = {}
            spoilt: dict[FileEntry, LakeError] = {}
            try:
                for entry, rows in lake_rows(lake, manifest, table, self._part, self._seqs):
                    if isinstance(rows, LakeError):
                        spoilt[entry] = rows
                    else:
                        self._adder.add(found, table, rows)
                return manifest, found, spoilt
            except FilesMoved:
                if again == 1:
                    raise LakeError("the files changed faster than they could be read") from None
                manifest = lake.manifest()
        raise AssertionError("unreachable")

    def _look(self, lake: Lake, manifest: Manifest, reader: JournalReader, key: Key) -> list[str]:
        """What differs in one block of entries on one day, row by row."""
        table, date, block = key
        seqs = max(self._seqs[0], block * BLOCK), min(self._seqs[1], (block + 1) * BLOCK - 1)
        walk = Walk(reader, self._walk.start, seqs[1])
        teller = Teller(walk, *seqs, self._scales)
        pieces: list[pa.Table] = []
        for _ in walk.steps():
            pieces += [rows for name, rows in teller.take().items() if name == table]
        pieces += [rows for name, rows in teller.take(at_end=True).items() if name == table]
        there = [
            rows
            for _, rows in lake_rows(lake, manifest, table, self._part, seqs)
            if not isinstance(rows, LakeError)
        ]
        said = compare_rows(table, _of_day(table, date, pieces), _of_day(table, date, there))
        where = f"entries {seqs[0]} to {seqs[1]}, {date}"
        return [f"{where}: {what}" for what in said] or [f"{where}: rows differ, and hide how"]


def _of_day(table: str, date: str, pieces: list[pa.Table]) -> pa.Table:
    rows = pa.concat_tables([SCHEMAS[table].empty_table(), *pieces])
    days = rows[DATE_COLUMNS[table]].cast(pa.date32()).cast(pa.string())
    return rows.filter(pc.equal(days, date))
