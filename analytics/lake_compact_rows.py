"""Rows on their way from files of the lake into one: their keys, and whether they belong there.

Separate because what reads a file, what merges and what writes the outcome look at rows by the
same eyes.  It must not know where files lie, nor why they are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake_schema import DATE_COLUMNS, SCHEMAS, SORT_KEYS

# The values of SORT_KEYS of one row; a time counts in microseconds.
Key = tuple[int, ...]


class KeyColumns:
    """The keys of rows of `table`, by their place: keys[0] is that of the first."""

    def __init__(self, table: str, rows: pa.Table) -> None:
        names = SORT_KEYS[table]
        self._columns = [rows[name].combine_chunks().cast(pa.int64()) for name in names]
        self._values = [_values(column) for column in self._columns]
        self._count = len(rows)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Key:
        return tuple([values[place] for values in self._values])

    def ascend(self) -> bool:
        """Whether each key is greater than the one before."""
        before, after = slice(0, max(self._count - 1, 0)), slice(1, self._count)
        # From the last column to the first: a column decides where those before it are equal.
        ascending = pa.array([False] * max(self._count - 1, 0), pa.bool_())
        for column in reversed(self._columns):
            one, two = column[before], column[after]
            ascending = pc.or_(pc.less(one, two), pc.and_(pc.equal(one, two), ascending))
        return bool(pc.all(ascending, min_count=0).as_py())


class Checked:
    """Rows on their way into or out of a file, and whether they may be there.

    rows: how many have passed.  first, last: the keys of the first and of the newest of them.
    """

    def __init__(self, table: str, date: str, seqs: tuple[int, int]) -> None:
        self.table = table
        self.rows = 0
        self.first: Key | None = None
        self.last: Key | None = None
        self._date = date
        self._seqs = seqs

    def each(self, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same rows; ValueError when one is out of order, twice there, or belongs elsewhere."""
        for rows in batches:
            if not len(rows):
                continue
            self._expect_place(rows)
            keys = KeyColumns(self.table, rows)
            if (self.last is not None and keys[0] <= self.last) or not keys.ascend():
                names = ", ".join(SORT_KEYS[self.table])
                raise ValueError(f"{names} do not grow from row to row near {keys[0]}")
            self.first = keys[0] if self.first is None else self.first
            self.last = keys[len(rows) - 1]
            self.rows += len(rows)
            yield rows

    def _expect_place(self, rows: pa.Table) -> None:
        """ValueError unless all rows are of the date and the entries of the file."""
        if rows.schema != SCHEMAS[self.table]:
            raise ValueError(f"the columns are not those of {self.table}")
        days = pc.min_max(rows[DATE_COLUMNS[self.table]].cast(pa.date32())).as_py()
        if {day.isoformat() for day in days.values()} != {self._date}:
            raise ValueError(f"rows of {days['min']} to {days['max']}, not of {self._date}")
        if "seq" in rows.column_names:
            found = pc.min_max(rows["seq"]).as_py()
            if not self._seqs[0] <= found["min"] <= found["max"] <= self._seqs[1]:
                raise ValueError(f"rows of entries {found}, not of {self._seqs}")


def _values(column: pa.Array) -> memoryview:
    """The numbers where Arrow has them: to reach one through Arrow takes ten times as long."""
    if not len(column):
        return memoryview(b"")
    numbers = memoryview(column.buffers()[1]).cast("q")
    return numbers[column.offset : column.offset + len(column)]
