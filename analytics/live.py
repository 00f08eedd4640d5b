"""Live: the lake and its tail, the rows that are in no file yet, asked as one from many threads.

Separate from the warehouse, whose views show files alone: whoever writes a lake knows rows before
they are in it, and what it names for each question are just the files that question needs, so
that an answer does not become slower with every day the lake is kept.  It must not know where
rows come from.

A scope is one moment: the files of one manifest, and the rows of the tail beyond its watermarks
up to what was known then.  So rows are there once, whatever is flushed or compacted meanwhile.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

import duckdb
import pyarrow as pa

from analytics.lake import FileEntry, Manifest
from analytics.lake_schema import DATE_COLUMNS, PART_NAMES
from analytics.warehouse import Dates, Scope, columns_of, connect_bare, source_of

Answer = TypeVar("Answer")

TAIL_TABLES = ("deals", "orders", "balances")
_AGAIN_S = 0.1  # until a question that was given up, and goes on, is interrupted again
_RECENT = 2  # manifests whose files are kept sorted: the newest, and the one before
# A deal that no bar has yet is a bar of its own: who reads bars puts the parts together.
_BARS_OF_DEALS = (
    "date_trunc('minute', time) AS minute, price AS open, price AS close, price AS high,"
    " price AS low, amount AS volume, deal AS amount, 1::BIGINT AS deals,"
    " deal_id AS first_deal_id, deal_id AS last_deal_id"
)

Question = Callable[[duckdb.DuckDBPyConnection, Scope], Answer]
Place = tuple[str, int]  # a table, and the number of a market or shard


class Moment(NamedTuple):
    """What a question may see.

    after_seqs, until_seqs: by place, the entries whose rows are in the tail and not in a file.
    shards: which may keep a user, none for all.
    """

    manifest: Manifest
    after_seqs: Mapping[Place, int]
    until_seqs: Mapping[Place, int]
    shards: Callable[[int], Collection[int]]


class _Tail:
    """The rows of one place: all of them that entries beyond after_seq made, up to until_seq."""

    __slots__ = ("after_seq", "name", "rows", "until_seq")

    def __init__(self, place: Place) -> None:
        self.name = f"tail_{place[0]}_{place[1]}"
        self.rows = 0
        self.after_seq = self.until_seq = 0


class Live:
    """One DuckDB over the files at `url` and a tail of its own.

    pools: how many threads each kind of question has.  memory_mb: DuckDB's, for all of them.
    extend, trim and moment are for one thread, the writer's; ask runs questions in others.
    """

    def __init__(self, url: str, pools: Mapping[str, int], memory_mb: int = 1024) -> None:
        self._connection, self._root = connect_bare(url)
        # Footers have statistics of each row group: parsed anew, they are most of a small question.
        self._connection.execute("SET GLOBAL parquet_metadata_cache = true")
        # DuckDB's own limit is most of the machine, which others need.
        self._connection.execute(f"SET GLOBAL memory_limit = '{int(memory_mb)}MB'")
        self._tails: dict[Place, _Tail] = {}
        self._files: dict[int, dict[Place, list[FileEntry]]] = {}
        self._local = threading.local()
        self._pools = {
            name: ThreadPoolExecutor(count, thread_name_prefix=f"{name} question")
            for name, count in pools.items()
        }

    # For the writer.

    def until_seq(self, place: Place) -> int:
        """The newest entry whose rows are in the tail of a place, 0 for none."""
        tail = self._tails.get(place)
        return tail.until_seq if tail is not None else 0

    def extend(self, place: Place, rows: pa.Table, until_seq: int) -> None:
        """Add the rows that the entries up to `until_seq` made beyond those that are here."""
        tail = self._tails.get(place)
        if tail is None:
            tail = _Tail(place)
            self._connection.execute(f"CREATE TABLE {tail.name} AS {_empty(place[0])}")
            self._tails[place] = tail
        if len(rows):
            # A view of this connection alone, gone before anybody else could look.
            self._connection.register("arriving", rows)
            try:
                self._connection.execute(f"INSERT INTO {tail.name} FROM arriving")
            finally:
                self._connection.unregister("arriving")
        tail.rows += len(rows)
        tail.until_seq = until_seq

    def trim(self, place: Place, up_to_seq: int) -> None:
        """Let go of the rows of entries up to `up_to_seq`, which no question needs any more."""
        tail = self._tails.get(place)
        if tail is None or not tail.rows or up_to_seq <= tail.after_seq:
            return
        # Made anew: rows deleted in place would keep their memory.
        self._connection.execute(
            f"CREATE OR REPLACE TABLE {tail.name} AS FROM {tail.name} WHERE seq > {up_to_seq}"
        )
        [(tail.rows,)] = self._connection.execute(f"SELECT count(*) FROM {tail.name}").fetchall()
        tail.after_seq = up_to_seq

    def moment(
        self,
        manifest: Manifest,
        watermark_of: Callable[[Place], int],
        shards: Callable[[int], Collection[int]],
    ) -> Moment:
        """What a question that is asked now sees.

        watermark_of: of the manifest, by place.  shards: which may keep a user, none for all.
        """
        after = {place: watermark_of(place) for place, tail in self._tails.items() if tail.rows}
        until = {place: self._tails[place].until_seq for place in after}
        return Moment(manifest, after, until, shards)

    def places(self) -> list[Place]:
        """Where there are rows in the tail."""
        return [place for place, tail in self._tails.items() if tail.rows]

    def close(self) -> None:
        """Wait for the questions under way, and let go of everything."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)
        self._connection.close()

    # For questions.

    def ask(self, pool: str, moment: Moment, question: Question[Answer]) -> Asked[Answer]:
        """Have a thread of a pool answer a question about a moment."""
        scope = LiveScope(self._root, moment, self._sorted_files(moment.manifest))
        return Asked(self._pools[pool], self._cursor, question, scope)

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """The cursor of this thread."""
        found: duckdb.DuckDBPyConnection | None = getattr(self._local, "cursor", None)
        if found is None:
            found = self._local.cursor = self._connection.cursor()
        return found

    def _sorted_files(self, manifest: Manifest) -> dict[Place, list[FileEntry]]:
        """The files of each place, by date."""
        found = self._files.get(manifest.version)
        if found is None:
            found = {}
            for entry in manifest.files:
                found.setdefault((entry.table, entry.part), []).append(entry)
            self._files[manifest.version] = found
            for version in sorted(self._files)[:-_RECENT]:
                self._files.pop(version, None)
        return found


class Asked(Generic[Answer]):
    """A question under way.  future: of its answer."""

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        cursor: Callable[[], duckdb.DuckDBPyConnection],
        question: Question[Answer],
        scope: LiveScope,
    ) -> None:
        self._cursor = cursor
        self._scope = scope
        # Held so that an interrupt meets this question, and not the next one of its thread.
        self._lock = threading.Lock()
        self._running: duckdb.DuckDBPyConnection | None = None
        self.future: Future[Answer] = pool.submit(self._run, question)

    def interrupt(self) -> None:
        """Give the question up: its future raises duckdb.InterruptException, or is cancelled."""
        if self.future.cancel() or self.future.done():
            return
        with self._lock:
            self._scope.given_up = True
            if self._running is not None:
                self._running.interrupt()
        # DuckDB forgets an interrupt when the next statement begins.  The scope does not, but the
        # statement may have been between the two.
        again = threading.Timer(_AGAIN_S, self.interrupt)
        again.daemon = True
        again.start()

    def _run(self, question: Question[Answer]) -> Answer:
        cursor = self._cursor()
        with self._lock:
            self._running = cursor
        try:
            return question(cursor, self._scope)
        finally:
            with self._lock:
                self._running = None


class LiveScope:
    """A Scope of one moment.

    given_up: whether nobody waits for the answer any more; then tables() raises
    duckdb.InterruptException.
    """

    def __init__(
        self, root: str, moment: Moment, files: Mapping[Place, Sequence[FileEntry]]
    ) -> None:
        self._root = root
        self._moment = moment
        self._files = files
        self.given_up = False

    def tables(
        self, *tables: str, parts: Collection[int], dates: Dates = None, tail: bool = True
    ) -> str:
        """See Scope."""
        if self.given_up:
            raise duckdb.InterruptException("the question was given up")
        chosen = (f"{table} AS ({self._rows(table, parts, dates, tail)})" for table in tables)
        return f"WITH {', '.join(chosen)} "

    def dates(self, table: str, parts: Collection[int]) -> Sequence[str]:
        """See Scope."""
        return sorted(
            {entry.date for place in self._places(table, parts) for entry in self._files[place]}
        )

    def shards_of(self, user: int) -> Collection[int]:
        """See Scope."""
        return self._moment.shards(user)

    def _places(self, table: str, parts: Collection[int]) -> list[Place]:
        if parts:
            # A part that is named twice has its rows once all the same.
            places = [(table, part) for part in dict.fromkeys(parts)]
            return [place for place in places if place in self._files]
        return [place for place in self._files if place[0] == table]

    def _rows(self, table: str, parts: Collection[int], dates: Dates, tail: bool) -> str:
        paths = []
        for place in self._places(table, parts):
            entries = self._files[place]
            if dates is not None:
                first = bisect_left(entries, dates[0], key=_date_of)
                entries = entries[first : bisect_right(entries, dates[1], key=_date_of)]
            paths += [f"{self._root}/{entry.path}" for entry in entries]
        columns = [*columns_of(table), *_no_names(table), "date"]
        chosen = [f"SELECT {', '.join(columns)} FROM {source_of(table, paths)}"] if paths else []
        if tail:
            held = "deals" if table == "bars" else table
            for place, after_seq in self._moment.after_seqs.items():
                if place[0] == held and (not parts or place[1] in parts):
                    chosen.append(self._tail_rows(table, place, after_seq))
        return " UNION ALL ".join(chosen) or f"FROM memory.main.{table}"

    def _tail_rows(self, table: str, place: Place, after_seq: int) -> str:
        until_seq = self._moment.until_seqs[place]
        part = PART_NAMES[table]
        if table == "bars":
            columns = [_BARS_OF_DEALS, f"{place[1]} AS market_no"]
            moment = "time"
        else:
            columns = columns_of(table)
            columns[-1] = columns[-1].replace(part, f"{place[1]}", 1)
            if table == "balances":
                columns[-1] += f" AS {part}"
            moment = DATE_COLUMNS[table]
        columns += [*_no_names(table), f"{moment}::DATE AS date"]
        return (
            f"SELECT {', '.join(columns)} FROM tail_{place[0]}_{place[1]}"
            f" WHERE seq > {after_seq} AND seq <= {until_seq}"
        )


def _no_names(table: str) -> list[str]:
    """The columns with names, empty: who asks here knows numbers and wants numbers."""
    names = ["NULL::VARCHAR AS market"]
    return [*names, "NULL::VARCHAR AS asset"] if table == "balances" else names


def _empty(table: str) -> str:
    """No rows of the columns that the files of a table have."""
    return f"SELECT * EXCLUDE ({PART_NAMES[table]}, date) FROM {source_of(table, [])}"


def _date_of(entry: FileEntry) -> str:
    return entry.date
