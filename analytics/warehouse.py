"""DuckDB over the lake: views of its live files, and the questions of sql/ as table macros.

Separate because what DuckDB is told to open is the one thing that decides whether an answer is
whole: the files of one manifest, each by its name, and no other.  It must not know what the
answers are for (history.py does), nor write a file.

A notebook uses the connection itself: `connect(url).sql("FROM kline('BTC_USDT', 0, 86400, 3600)")`.
Times are TIMESTAMPTZ in UTC; a column called user must be quoted in DuckDB ("user").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from analytics.lake import SCHEMAS, Lake, LakeError, Manifest
from analytics.lake_schema import PART_NAMES
from analytics.lake_store import file_system

# In the order in which they need each other: a macro is checked when it is made.
QUESTIONS = (
    "bucket total buckets bars_1m kline status status_today deal_sides"
    " user_deals order_deals finished finished_detail balance_history deals_after fee_revenue"
).split()

Dates = tuple[str, str] | None

# Nothing is fetched from a network: what this needs is part of DuckDB's own library.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_TYPES = {
    pa.int8(): "TINYINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.string(): "VARCHAR",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
}
_TABLES = {
    "assets": "asset_id INTEGER, asset VARCHAR, prec_save INTEGER, prec_show INTEGER",
    "markets": "market_no INTEGER, market VARCHAR, stock_id INTEGER, money_id INTEGER,"
    " stock VARCHAR, money VARCHAR, stock_prec INTEGER, money_prec INTEGER",
    "lake_files": '"table" VARCHAR, path VARCHAR, part INTEGER, date DATE, first_seq BIGINT,'
    " last_seq BIGINT, rows BIGINT, bytes BIGINT",
}
# Columns that hold a number whose name the view shows beside it.
_RENAMED = {("balances", "asset"): "asset_id", ("balances", "market"): "market_no"}


def connect(url: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory whose views are the live files of the lake at `url`, as of now.

    url: a directory, or any URL that fsspec opens.  Views: deals, orders, bars (the parts of
    minutes as they are stored), bars_1m, balances, each with the current names of its market and
    asset beside their numbers, and the UTC date of its file; tables: assets, markets, lake_files.
    A lake without files, or none at all, gives empty views.  Use `connection.cursor()` in other
    threads.  LakeError names a manifest or file that cannot be read.
    """
    connection, _ = _connect(url, None)
    return connection


def connect_bare(url: str) -> tuple[duckdb.DuckDBPyConnection, str]:
    """A DuckDB like that of `connect` whose views are empty, and the root of the lake for it.

    For one who names the files of each question, see `Scope`.  The root stands before the path
    of a file.  LakeError when the lake lies where it cannot be asked.
    """
    return _connect(url, Manifest())


def refresh(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    """Lets the views of `connect` show the newest manifest of the lake at `url`.

    All change together; a question that runs meanwhile in another cursor keeps what it saw.
    LakeError names a manifest or file that cannot be read, and then nothing has changed.
    """
    _show(connection, Lake(url).manifest(), _root(connection, url))


class Scope(Protocol):
    """Which rows a question looks at.  Dates are the UTC dates of files, YYYY-MM-DD."""

    def tables(
        self, *tables: str, parts: Collection[int], dates: Dates = None, tail: bool = True
    ) -> str:
        """What stands before a question so that `tables` hold these rows: "", or WITH ... .

        parts: numbers of markets, for "balances" of shards; none for all.  dates: the first and
        the last, both included; None for all.  tail: whether rows that are in no file yet belong
        to it.  There may be more rows than that.
        """

    def dates(self, table: str, parts: Collection[int]) -> Sequence[str] | None:
        """The dates of the files, sorted; None when the question must not be cut by dates."""

    def shards_of(self, user: int) -> Collection[int]:
        """The shards that may keep the user; none for all."""


class _Whole:
    """All that the views of a connection show."""

    def tables(
        self, *tables: str, parts: Collection[int], dates: Dates = None, tail: bool = True
    ) -> str:
        """See Scope."""
        return ""

    def dates(self, table: str, parts: Collection[int]) -> Sequence[str] | None:
        """See Scope."""
        return None

    def shards_of(self, user: int) -> Collection[int]:
        """See Scope."""
        return ()


WHOLE: Scope = _Whole()


def newest_first(
    scope: Scope,
    table: str,
    parts: Collection[int],
    between: tuple[str | None, str | None],
    more: Callable[[int], int] = lambda dates: dates + 1,
) -> Iterator[tuple[Dates, bool]]:
    """Windows of dates from the newest to the oldest, for Scope.tables; the first has one date.

    between: the first and the last date wanted, None for any.  more: how many dates the next
    window has, of how many there were so far; one more than all of them, by default.  Only the
    first window has the tail, whose rows are mostly newer than any file.  Without dates there is
    one window of all.
    """
    found = scope.dates(table, parts)
    if found is None:
        yield None, True
        return
    first, last = between
    dates = [d for d in found if (first is None or d >= first) and (last is None or d <= last)]
    end, step = len(dates), 1
    nothing = ("", "")
    while True:
        begin = max(0, end - step)
        yield ((dates[begin], dates[end - 1]) if end else nothing), end == len(dates)
        end = begin
        if not end:
            return
        step = more(len(dates) - end)


def _connect(url: str, manifest: Manifest | None) -> tuple[duckdb.DuckDBPyConnection, str]:
    """A DuckDB that shows a manifest, the newest by default, and the root of the lake for it."""
    # Where DuckDB puts what does not fit into memory: by default that is wherever one stands.
    spill = Path(gettempdir()) / f"excore-lake-{os.getpid()}"
    connection = duckdb.connect(config={**_CONFIG, "temp_directory": str(spill)})
    try:
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        root = _root(connection, url)
        _show(connection, Lake(url).manifest() if manifest is None else manifest, root)
        for question in QUESTIONS:
            text = files("analytics").joinpath("sql", f"{question}.sql").read_text("utf-8")
            connection.execute(text)
    except BaseException:
        connection.close()
        raise
    return connection, root


def _show(connection: duckdb.DuckDBPyConnection, manifest: Manifest, root: str) -> None:
    """Makes the views show the files of a manifest."""
    connection.begin()
    try:
        _make_tables(connection, manifest, root)
        for table in SCHEMAS:
            connection.execute(_view(table, manifest, root))
        connection.execute(_market_number(manifest))
    except BaseException as error:
        connection.rollback()
        paths = [f"{root}/{entry.path}" for entry in manifest.files]
        if isinstance(error, duckdb.Error):
            _accuse(connection, paths, error)
        raise
    connection.commit()


def ask(
    connection: duckdb.DuckDBPyConnection, question: str, *parameters: object
) -> list[tuple[Any, ...]]:
    """All rows that answer `question`, SQL whose ? are `parameters`.

    LakeError names the file when one is missing or cannot be read; else duckdb.Error.
    """
    with _naming_the_file(connection):
        return connection.execute(question, parameters).fetchall()


def ask_columns(
    connection: duckdb.DuckDBPyConnection, question: str, *parameters: object
) -> pa.Table:
    """What `ask` answers, as columns: dearer to begin with, and cheaper from 1,000 rows on.

    Raises what `ask` raises.
    """
    with _naming_the_file(connection):
        return connection.sql(question, params=parameters).to_arrow_table()


@contextmanager
def _naming_the_file(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Makes an error of DuckDB a LakeError when a file is why."""
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        rows = connection.execute("SELECT path FROM lake_files").fetchall()
        _accuse(connection, [path for (path,) in rows], error)
        raise


def _accuse(
    connection: duckdb.DuckDBPyConnection, paths: Sequence[str], error: duckdb.Error
) -> None:
    """Raises LakeError with the file that made DuckDB fail, if it was one of `paths`.

    Not every error of DuckDB names the file: then they are read one by one until one fails.
    """
    named = [path for path in paths if path in str(error)]
    for path in named or paths:
        try:
            # A hash needs every value, and no value has to come to Python.
            question = "SELECT bit_xor(hash(f)) FROM read_parquet(?) AS f"
            connection.execute(question, [path]).fetchall()
            _expect_whole(path)
        except (duckdb.Error, OSError, pa.ArrowException) as found:
            raise LakeError(
                f"{path}: cannot be read ({found}); if it was compacted away, refresh and ask"
                " again, else restore it from a backup or flush it again from the journal"
            ) from error
    if named:
        raise LakeError(
            f"{named[0]}: is not what its table needs ({error}); flush it again from the journal"
        ) from error


def _expect_whole(path: str) -> None:
    """An error when a file is damaged.

    DuckDB does not look at checksums: now and then it takes what is no page for one, and fails in
    one question and not in the next.
    """
    system, place = file_system(path)
    with system.open(place, "rb") as source:
        for _ in pq.ParquetFile(source, page_checksum_verification=True).iter_batches():
            pass


def _root(connection: duckdb.DuckDBPyConnection, url: str) -> str:
    """The root of the lake as DuckDB spells it; it learns of the filesystem if it must."""
    filesystem, path = file_system(url)
    if any(mark in path for mark in "*?["):
        raise LakeError(f"{url}: DuckDB takes *, ? and [ for patterns: move the lake")
    if any(folder.startswith(("market=", "shard=", "date=")) for folder in path.split("/")):
        raise LakeError(f"{url}: a folder above would pass for one of the lake's: move the lake")
    if isinstance(filesystem, LocalFileSystem):
        return str(path).rstrip("/")
    protocols = filesystem.protocol
    name = protocols if isinstance(protocols, str) else protocols[0]
    if not connection.filesystem_is_registered(name):
        connection.register_filesystem(filesystem)
    return str(filesystem.unstrip_protocol(path)).rstrip("/")


def _make_tables(connection: duckdb.DuckDBPyConnection, manifest: Manifest, root: str) -> None:
    """The small tables: assets, markets and the files behind the views."""
    names = {asset["asset_id"]: asset["name"] for asset in manifest.assets}
    rows: dict[str, list[tuple[object, ...]]] = {
        "assets": [
            (each["asset_id"], each["name"], each["prec_save"], each["prec_show"])
            for each in manifest.assets
        ],
        "markets": [
            (
                *(each["market"], each["name"], each["stock"], each["money"]),
                *(names.get(each["stock"]), names.get(each["money"])),
                *(each["stock_prec"], each["money_prec"]),
            )
            for each in manifest.markets
        ],
        "lake_files": [
            (
                *(each.table, f"{root}/{each.path}", each.part, each.date),
                *(each.first_seq, each.last_seq, each.rows, each.bytes),
            )
            for each in manifest.files
        ],
    }
    for table, columns in _TABLES.items():
        connection.execute(f"CREATE OR REPLACE TABLE {table} ({columns})")
        _insert(connection, table, rows[table])


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[object, ...]]
) -> None:
    """Adds `rows`, handed over as columns: a parameter a value would take much longer."""
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        places = ", ".join(["unnest(?)"] * len(columns))
        connection.execute(f"INSERT INTO {table} SELECT {places}", columns)


def _view(table: str, manifest: Manifest, root: str) -> str:
    """The statement that makes the view of `table` over the live files."""
    names = {PART_NAMES["deals"]: {each["market"]: each["name"] for each in manifest.markets}}
    if table == "balances":
        names["asset"] = {each["asset_id"]: each["name"] for each in manifest.assets}
    named = [f"{_name_of(number, known)} AS {number}" for number, known in names.items()]
    paths = [f"{root}/{entry.path}" for entry in manifest.files if entry.table == table]
    return (
        f"CREATE OR REPLACE VIEW {table} AS SELECT {', '.join([*columns_of(table), *named])}, date"
        f" FROM {source_of(table, paths)}"
    )


def columns_of(table: str) -> list[str]:
    """What a view of `table` selects from its files, besides names and the date."""
    part = PART_NAMES[table]
    columns = [
        f'"{field.name}" AS "{_RENAMED.get((table, field.name), field.name)}"'
        for field in SCHEMAS[table]
    ]
    return [*columns, part if table == "balances" else f"{part} AS market_no"]


def _name_of(number: str, names: dict[int, str]) -> str:
    """The current name of what the column `number` says.

    A place in a constant list and no join: so a filter by name still leaves files unopened, and
    nothing is looked up when the name is not asked for.
    """
    return f'({_list_of(names)})["{number}"]'


def _market_number(manifest: Manifest) -> str:
    """The macro that finds a market: a number is itself, a text is a current name, else null.

    A constant too, and no look-up in a table: so the files of other markets stay unopened.
    """
    names = _list_of({each["market"]: each["name"] for each in manifest.markets})
    return (
        "CREATE OR REPLACE MACRO market_number(of_market) AS CASE"
        f" WHEN typeof(of_market) = 'VARCHAR' THEN list_position({names}, of_market::VARCHAR)"
        " ELSE TRY_CAST(of_market AS INTEGER) END"
    )


def _list_of(names: dict[int, str]) -> str:
    """A constant list that has each name at the place of its number, from 1; null in the gaps."""
    listed = ", ".join(_text(names.get(n)) for n in range(1, max(names, default=0) + 1))
    return f"[{listed}]::VARCHAR[]"


def source_of(table: str, paths: Sequence[str]) -> str:
    """The files of `table` at these paths, or no rows of the same types when there are none."""
    part = PART_NAMES[table]
    if paths:
        listed = ", ".join(_text(path) for path in paths)
        return (
            f"read_parquet([{listed}], hive_partitioning = true,"
            f" hive_types = {{'{part}': INTEGER, 'date': DATE}})"
        )
    types = {field.name: _TYPES.get(field.type) or _decimal(field.type) for field in SCHEMAS[table]}
    types |= {part: "INTEGER", "date": "DATE"}
    empty = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in types.items())
    return f"(SELECT {empty} WHERE false)"


def _decimal(kind: pa.DataType) -> str:
    """DuckDB's word for an exact number of pyarrow."""
    return f"DECIMAL({kind.precision}, {kind.scale})"


def _text(value: str | None) -> str:
    """A text as SQL writes it."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"
