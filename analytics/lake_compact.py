"""Compaction and retention: which files of a lake become one, and which are let go of.

Separate from the lake because it decides, and a lake only does: `plan` and `expired` look at a
manifest and nothing else, `merge` writes the file that may replace others.  It must not know the
clock, nor commit: whoever owns the manifest does, by `Lake.commit(remove=merge.files, add=...)`.
Until then the lake is as it was, and a file that never came to be live is swept.

The rules, for the files of one table, part and date in order of their entries:
- Only neighbours are merged, so that the ranges of entries still do not meet.
- A file is small below `bytes_min`.  Others are final, but for the last rule.
- The date is not over: at least `factor` small neighbours are merged when together they have so
  many rows that each of them rises by a tier, where tier n has factor**n rows or more.  So a row
  is written again no more often than there are tiers: the logarithm of the rows to the base
  `factor`.
- The date is over: all small neighbours are merged, into as few files as `bytes_max` allows.
- Such a date's remainder that is still small joins the smaller of its neighbours, final or not,
  if the two have `bytes_max` at most.
So a date that is over has one file, or files from bytes_min to bytes_max, except for a remainder
between two that leave no room.  Sizes of files to come are taken for the sum of what they replace,
which is nearly always more than they will have.  More than `files_max` neighbours take several
rounds: plan, merge and commit until the plan is empty.

Source: the tiers are the manner of Apache Lucene's log merge policy.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from itertools import chain, groupby, pairwise

import pyarrow as pa
import pyarrow.compute as pc

from analytics.lake import GROUP_ROWS_MAX, Lake
from analytics.lake_compact_rows import Key, KeyColumns
from analytics.lake_manifest import FileEntry, LakeError, Manifest
from analytics.lake_schema import SCHEMAS, SORT_KEYS
from analytics.lake_values import fold_bars

MIB = 1 << 20
BYTES_TARGET_MIN = 64 * MIB
BYTES_TARGET_MAX = 512 * MIB
# Decoded rows that all files of a merge hold together, waiting for their turn.
_WAITING_ROWS_MAX = 200_000


@dataclass(frozen=True)
class Settings:
    """When files are merged.  ValueError when the numbers would not work together.

    bytes_min, bytes_max: of a file that is large enough, and that a merge may make.
    factor: rows of a tier to rows of the tier below, and the files that make a merge worth while.
    files_max: that a merge reads at once, each with an open handle.
    """

    bytes_min: int = BYTES_TARGET_MIN
    bytes_max: int = BYTES_TARGET_MAX
    factor: int = 8
    files_max: int = 64

    def __post_init__(self) -> None:
        # With less room, a remainder could not always be filled up from the file before it.
        if not 1 <= self.bytes_min <= self.bytes_max // 4:
            raise ValueError(f"bytes_max {self.bytes_max} is less than 4 * {self.bytes_min}")
        if not 2 <= self.factor <= self.files_max:
            raise ValueError(f"factor {self.factor} is not from 2 to {self.files_max}")


@dataclass(frozen=True)
class Merge:
    """Files to become one: at least two neighbours of one table, part and date, in order."""

    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        for one, two in pairwise(self.files):
            if _partition(one) != _partition(two) or two.first_seq <= one.last_seq:
                raise ValueError(f"{one.path} and {two.path} are not in order")
        if len(self.files) < 2:
            raise ValueError("a merge takes two files or more")


Files = list[FileEntry]


def plan(manifest: Manifest, today: str, settings: Settings = Settings()) -> list[Merge]:
    """What is worth merging now, by the rules above; in the order of the manifest.

    today: UTC date, YYYY-MM-DD; dates before it are over.  While a stream is far behind, an
    earlier one: a date that still grows would be taken for over, and merged whole each time.
    The merges have no file in common, so each can be committed as soon as it is done.  With the
    sizes it expects the next plan is empty, unless files_max has cut a run.
    """
    _expect_date(today)
    merges = []
    for (_, _, of_date), files in groupby(manifest.files, _partition):
        divide = _over if of_date < today else _growing
        runs = divide(list(files), settings)
        merges += [Merge(tuple(run)) for run in runs if len(run) > 1]
    return merges


def merge(lake: Lake, chosen: Merge, version: int) -> list[FileEntry]:
    """Write the one file with the rows of the chosen ones; what to add when they are removed.

    version: of the manifest that they were chosen from.  Bars of one minute become one bar.
    LakeError names a file that is gone or damaged, or the new one when the rows do not fit
    together; the lake stays as it is.
    Memory: about two row groups of each file, for deals of one, _WAITING_ROWS_MAX rows, and the new
    file.  Cost: about 2 us a row.
    """
    files = chosen.files
    table, part, of_date = _partition(files[0])
    rows_max = min(max(_WAITING_ROWS_MAX // len(files), 1), GROUP_ROWS_MAX)
    with ExitStack() as open_files:
        streams = [
            open_files.enter_context(closing(lake.stream(entry, rows_max))) for entry in files
        ]
        # A market counts its deals, so those of later entries come later.
        rows = chain.from_iterable(streams) if table == "deals" else _merged(table, streams)
        where = f"{files[0].path} to {files[-1].path}"
        if table == "bars":
            rows = _folded(rows, where)
        seqs = files[0].first_seq, files[-1].last_seq
        made = lake.write_merged(table, part, of_date, seqs, version, rows)
    # Arrow would keep hundreds of megabytes for a next merge that may be hours away.
    pa.default_memory_pool().release_unused()
    expected = sum(entry.rows for entry in files)
    if table != "bars" and made.rows != expected:
        raise LakeError(f"{made.path}: {made.rows} rows, not {expected} as in {where}")
    return [made]


def expired(manifest: Manifest, today: str, keep_days: Mapping[str, int] | int) -> list[FileEntry]:
    """The files that may be removed: all their rows are older than `keep_days` whole days.

    today: UTC date, YYYY-MM-DD.  keep_days: for each table, one that is missing is kept; or for
    all but the bars, which are small and which klines need.  0 keeps for ever.
    ValueError when it is negative, or there is no such table.
    """
    first_of_today = _expect_date(today)
    of_table = keep_days
    if isinstance(of_table, int):
        of_table = {table: of_table for table in SCHEMAS if table != "bars"}
    for table, days in of_table.items():
        if table not in SCHEMAS or days < 0:
            raise ValueError(f"{table!r} cannot be kept for {days} days")
    kept_from = {
        table: (first_of_today - timedelta(days=days)).isoformat()
        for table, days in of_table.items()
        if days
    }
    return [entry for entry in manifest.files if entry.date < kept_from.get(entry.table, "")]


def _partition(entry: FileEntry) -> tuple[str, int, str]:
    return entry.table, entry.part, entry.date


def _expect_date(text: str) -> date:
    """The date; ValueError unless it is written as dates of the lake are, which order as texts."""
    found = date.fromisoformat(text)
    if found.isoformat() != text:
        raise ValueError(f"{text!r} is no date like {found}")
    return found


def _bytes(files: Iterable[FileEntry]) -> int:
    return sum(entry.bytes for entry in files)


def _rows(files: Iterable[FileEntry]) -> int:
    return sum(entry.rows for entry in files)


def _runs(files: Files, wanted: Callable[[FileEntry], bool]) -> list[tuple[bool, Files]]:
    """The files as runs of neighbours, each with whether its files are wanted."""
    return [(is_wanted, list(run)) for is_wanted, run in groupby(files, wanted)]


def _growing(files: Files, settings: Settings) -> list[Files]:
    """The runs to merge of a date that is not over."""
    runs = _runs(files, lambda entry: entry.bytes < settings.bytes_min)
    return [found for small, run in runs if small for found in _rising(run, settings)]


def _rising(run: Files, settings: Settings) -> list[Files]:
    """The parts of a run of small files that are enough for each file to rise by a tier."""
    if len(run) < settings.factor:
        return []
    pieces = _cut(run, settings)
    if len(pieces) > 1:
        large = settings.bytes_min
        return [
            found
            for piece in pieces
            for found in ([piece] if _bytes(piece) >= large else _rising(piece, settings))
        ]
    rows_most = max(entry.rows for entry in run)
    rows_above = settings.factor
    while rows_above <= rows_most:
        rows_above *= settings.factor
    if _rows(run) >= rows_above:
        return [run]
    # No run with a file of the highest tier is enough; between them there may be one.
    below = _runs(run, lambda entry: entry.rows < rows_above // settings.factor)
    return [found for lower, each in below if lower for found in _rising(each, settings)]


def _over(files: Files, settings: Settings) -> list[Files]:
    """The files of a date that is over, divided into what shall be one file each."""
    pieces: list[Files] = []
    for small, run in _runs(files, lambda entry: entry.bytes < settings.bytes_min):
        pieces += _cut(run, settings) if small else [[entry] for entry in run]
    place = 0
    while place < len(pieces):
        sides = [side for side in (place - 1, place + 1) if 0 <= side < len(pieces)]
        sides = [side for side in sides if _fit(pieces[side] + pieces[place], settings)]
        if _bytes(pieces[place]) >= settings.bytes_min or not sides:
            place += 1
            continue
        first = min(place, min(sides, key=lambda side: _bytes(pieces[side])))
        pieces[first : first + 2] = [pieces[first] + pieces[first + 1]]
        place = first
    return pieces


def _fit(files: Files, settings: Settings) -> bool:
    return _bytes(files) <= settings.bytes_max and len(files) <= settings.files_max


def _cut(run: Files, settings: Settings) -> list[Files]:
    """A run of small files in as few pieces as fit, the last filled up from the one before."""
    pieces: list[Files] = [[]]
    for entry in run:
        if not _fit([*pieces[-1], entry], settings):
            pieces.append([])
        pieces[-1].append(entry)
    if len(pieces) > 1:
        before, last = pieces[-2:]
        while _bytes(last) < settings.bytes_min <= _bytes(before[:-1]) and _fit(
            [before[-1], *last], settings
        ):
            last.insert(0, before.pop())
    return pieces


class _Cursor:
    """One file on its way into a merge: the rows that were read and have not been passed on."""

    def __init__(self, table: str, stream: Iterator[pa.Table]) -> None:
        self._table = table
        self._stream = stream
        self._place = 0
        self._rows = SCHEMAS[table].empty_table()
        self._keys = KeyColumns(table, self._rows)
        self.last: Key = ()

    def fill(self) -> bool:
        """Whether there are rows, after reading some when there were none."""
        if self._place == len(self._keys):
            rows = next(self._stream, None)
            if rows is None:
                return False
            self._rows, self._place = rows, 0
            self._keys = KeyColumns(self._table, rows)
            self.last = self._keys[len(rows) - 1]
        return True

    def take(self, last: Key) -> pa.Table:
        """The rows up to the key `last`, which are passed on by this."""
        until = bisect_right(self._keys, last, self._place)
        taken = self._rows.slice(self._place, until - self._place)
        self._place = until
        return taken


def _merged(table: str, streams: Iterable[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """The rows of sorted streams, sorted; in memory is what each of them gives at a time.

    Each turn passes on what no row to come can precede: up to the smallest of the last keys read.
    Whole keys, because one user may have more rows than fit into memory.
    """
    order = [(key, "ascending") for key in SORT_KEYS[table]]
    cursors = [_Cursor(table, stream) for stream in streams]
    while cursors := [cursor for cursor in cursors if cursor.fill()]:
        last = min(cursor.last for cursor in cursors)
        pieces = [taken for cursor in cursors if len(taken := cursor.take(last))]
        yield pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).sort_by(order)


def _folded(batches: Iterable[pa.Table], where: str) -> Iterator[pa.Table]:
    """The bars with one for each minute, of sorted parts; LakeError when a sum has changed."""
    before, after = _Sums(), _Sums()
    waiting = SCHEMAS["bars"].empty_table()
    for rows in chain(batches, [None]):
        if rows is not None:
            before.add(rows)
            waiting = pa.concat_tables([waiting, rows])
        # Parts of the last minute may still come.
        last = waiting["minute"][-1] if rows is not None else None
        done = waiting if last is None else waiting.filter(pc.less(waiting["minute"], last))
        waiting = waiting.slice(len(done))
        try:
            bars = fold_bars(done)
        except (ValueError, pa.ArrowException) as error:
            raise LakeError(f"{where}: {error}; write them again from the deals") from error
        after.add(bars)
        yield bars
    if before != after:
        raise LakeError(f"{where}: {before} became {after}; nothing was written")


@dataclass
class _Sums:
    """What bars say in all, exactly."""

    deals: int = 0
    volume: Fraction = Fraction(0)
    amount: Fraction = Fraction(0)

    def add(self, bars: pa.Table) -> None:
        """Count these too."""
        if len(bars):
            wide = pa.decimal256(76, 20)
            self.deals += pc.sum(bars["deals"]).as_py()
            self.volume += Fraction(pc.sum(bars["volume"].cast(wide)).as_py())
            self.amount += Fraction(pc.sum(bars["amount"].cast(wide)).as_py())
