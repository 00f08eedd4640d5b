"""The commands that both command lines have for a lake: sql, kline, status and check.

Separate so that `python -m analytics` asks without an exchange and `excore` asks the very same of
its own lake.  It must not know settings or journals: where a lake lies, a `Root` says.

Exit codes: 0 done; 1 something is wrong with the lake; 2 wrong use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import duckdb
import pyarrow as pa
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from analytics import checks, warehouse
from analytics.cli_output import CannotWrite, Output, decimals, emit, emit_table, output_of
from analytics.cli_params import explained, interval_s_of, plot_of, time_of
from analytics.history_rows import Bar, Span
from analytics.lake import SCHEMAS, Lake, LakeError, Manifest
from analytics.market_data import TooManyRows, kline

WRONG, MISUSED = 1, 2
KLINE_ROWS_MAX = 1_000_000
_BUCKETS_USUAL = 100
_BATCH_ROWS = 10_000
_STATUS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("table", "stream", "market")),
        *(pa.field(name, pa.int64()) for name in ("files", "rows", "bytes")),
        *(pa.field(name, pa.string()) for name in ("first_date", "last_date")),
        pa.field("watermark", pa.int64()),
    ]
)
_FINDINGS = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("check", "what")),
        pa.field("times", pa.int64()),
        pa.field("examples", pa.list_(pa.string())),
    ]
)
# What the caller has written wrong; anything else may be a file that cannot be read.
_OWN_MISTAKES = (
    *(duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException),
    *(duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.NotImplementedException),
)


class Root(NamedTuple):
    """One of the two command lines.

    program: how it is called.  care: how status and check are called.  place: the option that
    says where the lake lies, made by typer.Option with the default None.  locate: the path or URL
    of the lake, given what was said with that option.
    """

    program: str
    care: str
    place: Any
    locate: Callable[[str | None], str]


class Misuse(Exception):
    """The caller has asked for what cannot be; the message is for them."""


OutputOption = Annotated[
    Output | None,
    typer.Option(
        parser=explained(output_of),
        metavar="FORM|FILE",
        help="Print a table (default), csv or json; or write a .parquet, .csv or .json file.",
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        parser=explained(plot_of),
        metavar="FILE",
        help="Draw candles into a .png, .svg or .html file.",
    ),
]
StartOption = Annotated[
    int | None,
    typer.Option(parser=explained(time_of), metavar="TIME", help="Default: 100 buckets."),
]
EndOption = Annotated[
    int | None,
    typer.Option(parser=explained(time_of), metavar="TIME", help="Default: the newest deal."),
]
IntervalArgument = Annotated[
    int,
    typer.Argument(
        parser=explained(interval_s_of), metavar="INTERVAL", help="Like 1s 5m 1h 1d 1w 1M."
    ),
]


def add_questions(app: typer.Typer, root: Root) -> None:
    """Give `app` the commands sql and kline."""
    _add_sql(app, root)
    _add_kline(app, root)


def add_care(app: typer.Typer, root: Root) -> None:
    """Give `app` the commands status and check."""
    _add_status(app, root)
    _add_check(app, root)


def _add_sql(app: typer.Typer, root: Root) -> None:
    example = "SELECT market, count(*) FROM deals GROUP BY market"

    @app.command("sql", epilog=f'Example: {root.program} sql "{example}"')
    def sql(
        query: Annotated[str, typer.Argument(help="One statement in DuckDB's SQL.")],
        place: str | None = root.place,
        output: OutputOption = None,
    ) -> None:
        """Ask the lake in SQL.

        Tables: deals, orders, balances, bars_1m, markets, assets, lake_files.
        "DESCRIBE deals" tells the columns; the one called user is written "user".
        Macros: kline, finished, user_deals, balance_history and more.
        """
        with failures(root):
            connection = warehouse.connect(lake_of(root, place)[0])
            try:
                # Only the statement itself is the caller's: what it fails with is judged apart.
                relation = connection.sql(query)
                if relation is None:
                    raise Misuse("the statement gives no rows")
                reader = relation.to_arrow_reader(_BATCH_ROWS)
                emit(reader.schema, reader, output)
            except duckdb.Error as error:
                raise _judged(connection, error) from error


def _add_kline(app: typer.Typer, root: Root) -> None:
    @app.command(
        "kline",
        epilog=f"Example: {root.program} kline BTC_USDT 1h --start 2026-11-22 --plot btc.png",
    )
    def kline_command(
        market: Annotated[str, typer.Argument(help="Name or number of the market.")],
        interval: IntervalArgument,
        start: StartOption = None,
        end: EndOption = None,
        place: str | None = root.place,
        plot: PlotOption = None,
        output: OutputOption = None,
    ) -> None:
        """Show what a market did, bucket by bucket.

        TIME is like 2026-11-22 or 2026-11-22T12:30:00Z, or seconds since the epoch;
        without a zone it is UTC.  The bucket that holds --end is the last one.
        Weeks begin on Monday, months on the first.
        """
        with failures(root):
            connection = warehouse.connect(lake_of(root, place)[0])
            number, name = _market(connection, market)
            span = _span(connection, number, (start, end), interval)
            try:
                bars = kline(connection, number, span, interval, KLINE_ROWS_MAX)
            except TooManyRows as fault:
                raise Misuse(f"{fault}: choose a later --start") from fault
            if plot is not None:
                _plot(plot, bars, interval, name)
            if plot is None or output is not None:
                emit_table(_bars_table(bars), output)


def _add_status(app: typer.Typer, root: Root) -> None:
    @app.command("status", epilog=f"Example: {root.care} status --output json")
    def status(place: str | None = root.place, output: OutputOption = None) -> None:
        """Show what is in the lake, by table and stream.

        Files, rows, bytes and dates; the watermark is the newest entry of the
        stream's journal whose rows are in the lake.
        """
        with failures(root):
            _, manifest = lake_of(root, place)
            rows = _status_rows(manifest)
            emit_table(pa.Table.from_pylist(rows, schema=_STATUS), output)
            if output is None:
                files, size = len(manifest.files), sum(each.bytes for each in manifest.files)
                count = sum(each.rows for each in manifest.files)
                print(f"version {manifest.version}: {files} files, {count} rows, {size} bytes")


def _add_check(app: typer.Typer, root: Root) -> None:
    @app.command("check", epilog=f"Example: {root.care} check")
    def check(place: str | None = root.place, output: OutputOption = None) -> None:
        """Recompute from the files alone that the lake agrees with itself.

        Deals have ids without gaps and are in order of time; deal = price * amount.
        Orders have the sums of their deals.  Each deal has exactly its rows in the
        balances; each balance follows from the one before; what accounts hold and
        the fees are the net updates.  Bars are those of the deals.
        Exit code 1 when anything is found.
        """
        with failures(root):
            connection = warehouse.connect(lake_of(root, place)[0])
            with _progress() as progress:
                found = checks.check(connection, progress)
            if output is not None:
                rows = [each._asdict() for each in found]
                emit_table(pa.Table.from_pylist(rows, schema=_FINDINGS), output)
            else:
                _tell(found, checks.begins_late(connection))
        if found:
            raise typer.Exit(WRONG)


@contextmanager
def failures(root: Root) -> Iterator[None]:
    """Turn what may go wrong into a sentence and an exit code."""
    try:
        yield
    except (Misuse, CannotWrite) as fault:
        _complain(f"{root.program}: {fault}")
        raise typer.Exit(MISUSED) from fault
    except BrokenPipeError:
        raise  # the reader of our output has seen enough
    except (LakeError, OSError, duckdb.Error) as fault:
        _complain(f"{root.program}: {_sentence(fault)}")
        raise typer.Exit(WRONG) from fault


def _complain(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def _sentence(fault: BaseException) -> str:
    """What an error says, without the picture of where."""
    said = str(fault).split("\n\n")[0]
    return " ".join(said.split()) or type(fault).__name__


def lake_of(root: Root, place: str | None) -> tuple[str, Manifest]:
    """Where the lake lies, and its manifest."""
    url = root.locate(place)
    try:
        lake = Lake(url)
    except (ValueError, ImportError) as fault:
        raise Misuse(f"{url}: {fault}") from fault
    manifest = lake.manifest()
    if not manifest.version:
        raise Misuse(f"there is no lake at {url}")
    return url, manifest


def _judged(connection: duckdb.DuckDBPyConnection, error: duckdb.Error) -> Exception:
    """Whose fault it is that a statement failed.  Raises LakeError when a file cannot be read."""
    if not isinstance(error, _OWN_MISTAKES):
        for table in SCHEMAS:
            warehouse.ask(connection.cursor(), f"SELECT bit_xor(hash(t)) FROM {table} AS t")
    return Misuse(_sentence(error))


def _market(connection: duckdb.DuckDBPyConnection, text: str) -> tuple[int, str]:
    """The number and name of a market, given one of them; a name goes first."""
    known = dict(warehouse.ask(connection, "SELECT market, market_no FROM markets ORDER BY 2"))
    if text in known:
        return known[text], text
    for name, number in known.items():
        if text == str(number):
            return number, name
    raise Misuse(f"there is no market {text}; there are: {', '.join(known) or 'none'}")


def _span(
    connection: duckdb.DuckDBPyConnection,
    market: int,
    asked: tuple[int | None, int | None],
    interval_s: int,
) -> Span:
    """From which second to which, when one of them or both are left to us."""
    start_s, end_s = asked
    now_s = int(time.time())
    if end_s is None:
        question = (
            "SELECT max(epoch_us(time)) // 1000000 FROM deals WHERE market_no = ? AND date ="
            " (SELECT max(date) FROM lake_files WHERE \"table\" = 'deals' AND part = ?)"
        )
        [(newest_s,)] = warehouse.ask(connection, question, market, market)
        end_s = max(newest_s or 0, start_s or 0)
    end_s = min(end_s, now_s)
    if start_s is None:
        start_s = max(0, end_s - (_BUCKETS_USUAL - 1) * interval_s)
    if start_s > end_s:
        raise Misuse("--start is after --end, or after now")
    return Span(start_s, end_s)


def _plot(path: Path, bars: list[Bar], interval_s: int, market: str) -> None:
    # Drawing takes longer to import than all else, so only who draws waits for it.
    from analytics import plots

    if not bars:
        raise Misuse(f"{market} has no deal up to then: there is nothing to draw")
    try:
        plots.save(plots.candles(bars, interval_s, market), path)
    except OSError as fault:
        raise Misuse(f"{path} cannot be written: {fault}") from fault
    print(f"drawn into {path}")


def _bars_table(bars: Sequence[Bar]) -> pa.Table:
    """The bars as rows; a total that is too large for the type of all others gets a wider one."""
    times = pa.array([bar.time * 10**6 for bar in bars], pa.timestamp("us", tz="UTC"))
    names = Bar._fields[1:]
    columns = [decimals([getattr(bar, name) for bar in bars]) for name in names]
    return pa.Table.from_arrays([times, *columns], names=["time", *names])


def _status_rows(manifest: Manifest) -> list[dict[str, object]]:
    """One row a table and stream; one without a table for a stream that has no row yet."""
    names = {each["market"]: each["name"] for each in manifest.markets}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for entry in manifest.files:
        of_market = entry.table != "balances"
        stream = f"{'market' if of_market else 'ledger'}-{entry.part}"
        row = rows.setdefault(
            (entry.table, entry.part),
            {
                "table": entry.table,
                "stream": stream,
                "files": 0,
                "rows": 0,
                "bytes": 0,
                "market": names.get(entry.part) if of_market else None,
                "first_date": entry.date,
                "watermark": manifest.watermarks.get(stream),
            },
        )
        row["files"] += 1
        row["rows"] += entry.rows
        row["bytes"] += entry.bytes
        row["last_date"] = entry.date  # files are in the order of their dates
    silent = set(manifest.watermarks).difference(row["stream"] for row in rows.values())
    others = [{"stream": name, "watermark": manifest.watermarks[name]} for name in sorted(silent)]
    return [*rows.values(), *others]


@contextmanager
def _progress() -> Iterator[checks.Progress]:
    """A bar for people; a file or pipe gets none."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("checking", total=None)
        yield lambda name, done, count: bar.update(
            task, description=f"checking {name}", completed=done, total=count
        )


def _tell(found: Sequence[checks.Finding], said: Sequence[str]) -> None:
    """Print findings for people.  said: what could not be compared."""
    out = Console(highlight=False, soft_wrap=True)
    for each in found:
        out.print(f"{each.check}: {each.what}, {each.times} times", style="red", markup=False)
        for example in each.examples:
            out.print(f"    {example}", markup=False)
    for text in said:
        out.print(f"note: {text}", markup=False)
    out.print(f"{len(found)} findings" if found else "exact")
