"""Questions about the past, over HTTP and, beside them, as plain SQL over the files of a lake.

Separate from the lake's making and from what feeds an archive: these only ask.  Every request is
drawn at random with a fixed seed.  The plain SQL is what one would write by hand: a glob over all
files with their folders as columns, conditions on market and date, and no manifest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow.parquet as pq

from analytics.lake import Lake
from excore_ray.core.orders import ORDER_ID_STRIDE
from tests.bench import http, load
from tests.bench.lake_made import BUSY_USERS, ID_STEP, MARKETS, USERS

DAY_S = 86_400
KLINE_GOAL_MS, ORDER_GOAL_MS, BALANCE_GOAL_MS = 20.0, 30.0, 50.0
_PLAIN_REQUESTS = 8
_SAMPLED_FILES, _SAMPLED_ROWS = 40, 10
_INTERVALS = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": DAY_S}
_LONGEST = (10_000, 10_000)
_INTERVALS["1w"] = 7 * DAY_S


class Known(NamedTuple):
    """What requests are drawn from.  root: of the lake.  orders: some that are there: id, user.

    first_s, end_s: its first day's first second, and the first one after its last day.
    """

    root: str
    first_s: int
    end_s: int
    orders: list[tuple[int, int]]


class Asked(NamedTuple):
    """One request: its parameters, and the plain SQL that answers it."""

    params: list[Any]
    sql: str


class Case(NamedTuple):
    """One line of the table.  goal_ms: for the median, 0 for none."""

    method: str
    what: str
    goal_ms: float
    draw: Callable[[random.Random], Asked]


def look(lake: Lake) -> Known:
    """What can be asked of this lake."""
    chance = random.Random(1)
    files = lake.manifest().files
    dates = sorted({entry.date for entry in files})
    first, last = (datetime.fromisoformat(f"{each}T00Z") for each in (dates[0], dates[-1]))
    holding = [entry for entry in files if entry.table == "orders"]
    orders: list[tuple[int, int]] = []
    for entry in chance.sample(holding, min(_SAMPLED_FILES, len(holding))):
        file = pq.ParquetFile(f"{lake.url}/{entry.path}")
        group = chance.randrange(file.metadata.num_row_groups)
        rows = file.read_row_group(group, columns=["order_id", "user"]).to_pylist()
        chosen = chance.sample(rows, min(_SAMPLED_ROWS, len(rows)))
        orders += [(row["order_id"], row["user"]) for row in chosen]
    end_s = int(last.timestamp()) + DAY_S
    return Known(lake.url, int(first.timestamp()), end_s, orders)


def compare(server: http.Server, known: Known, requests: int) -> None:
    """Ask all kinds of questions over one connection and print a table.

    The clock stops at the last byte of an answer.  What a client makes of it then is its own
    affair: for 10,000 rows Python takes 5 ms, and 30 when it collects garbage.
    """
    print(f"milliseconds; {requests} requests a line, {_PLAIN_REQUESTS} in plain SQL")
    names = ("p50", "p95", "p99", "goal", "plain p50", "plain max")
    print(f"{'':42}" + "".join(f"{name:>10}" for name in names))
    with duckdb.connect() as plain:
        plain.execute("SET TimeZone = 'UTC'")
        for case in _cases(known):
            chance = random.Random(7)
            asked = [case.draw(chance) for _ in range(requests + 1)]
            bodies = [
                msgspec.json.encode({"id": 1, "method": case.method, "params": each.params})
                for each in asked
            ]
            outcome = load.run("127.0.0.1", server.port, http.requests_of(server, bodies), 1)
            assert not outcome.errors, outcome.errors[0][:200]
            took_ms = [1_000 * latency for latency in outcome.latencies]
            _show(case, took_ms, _plain_ms(plain, asked))


def _plain_ms(plain: duckdb.DuckDBPyConnection, asked: list[Asked]) -> list[float]:
    """What some of them take in plain SQL; nothing when there is none."""
    took_ms: list[float] = []
    for each in asked[: _PLAIN_REQUESTS + 1] if asked[0].sql else []:
        began = time.perf_counter()
        plain.execute(each.sql).fetchall()
        took_ms.append(1_000 * (time.perf_counter() - began))
    return took_ms


def _show(case: Case, took_ms: list[float], plain_ms: list[float]) -> None:
    """Print a line of the table."""
    # The first of each has opened what the others find open.
    figures = [_percentile(took_ms[1:], part) for part in (0.5, 0.95, 0.99)]
    shown = "".join(f"{figure:10.1f}" for figure in figures)
    shown += f"{case.goal_ms:10.0f}" if case.goal_ms else " " * 10
    if plain_ms:
        shown += f"{_percentile(plain_ms[1:], 0.5):10.1f}{max(plain_ms[1:]):10.1f}"
    missed = "   missed" if case.goal_ms and figures[0] > case.goal_ms else ""
    print(f"{case.method + ' ' + case.what:42}{shown}{missed}", flush=True)


def _percentile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _cases(known: Known) -> list[Case]:
    """All lines of the table; the first is a question to no lake, the floor of the others."""
    cases = [Case("market.list", "(no lake)", 0, lambda chance: Asked([], ""))]
    for name, interval_s in _INTERVALS.items():
        most = 3_600 if interval_s == 1 else 1_000
        what = f"{name}, 1 to {most:,} rows"
        draw = _kline(known, interval_s, (1, most))
        cases.append(Case("market.kline", what, KLINE_GOAL_MS, draw))
    cases += [
        Case("market.kline", f"{name}, 10,000 rows", KLINE_GOAL_MS, _kline(known, each, _LONGEST))
        for name, each in (("1m", 60), ("1s", 1))
    ]
    cases += [
        Case("market.last", "", 0, lambda chance: _last(known, chance)),
        Case("market.status", "86400", 0, lambda chance: _status(known, chance, DAY_S)),
        Case("market.status", "604800", 0, lambda chance: _status(known, chance, 7 * DAY_S)),
        Case("market.deals", "100", 0, lambda chance: _deals(known, chance)),
    ]
    return cases + _of_users(known) + _of_orders(known)


def _of_users(known: Known) -> list[Case]:
    def case(what: str, business: str = "", busy: bool = False, offset: int = 0) -> Case:
        def draw(chance: random.Random) -> Asked:
            user = chance.randint(1, BUSY_USERS) if busy else chance.choice(known.orders)[1]
            return _balances(known, user, business, offset)

        return Case("balance.history", what, BALANCE_GOAL_MS, draw)

    def stranger(chance: random.Random) -> Asked:
        return _balances(known, USERS + chance.randint(1, USERS), "", 0)

    return [
        Case("market.user_deals", "one market", 0, lambda chance: _user_deals(known, chance, True)),
        Case("market.user_deals", "all markets", 0, lambda chance: _user_deals(known, chance)),
        Case("order.finished", "", 0, lambda chance: _finished(known, chance)),
        case("first page"),
        case("of busy users", busy=True),
        case("business trade", business="trade"),
        case("business without rows", business="deposit"),
        case("offset 500 of busy users", busy=True, offset=500),
        case("offset 5,000 of busy users", busy=True, offset=5_000),
        Case("balance.history", "users without rows", BALANCE_GOAL_MS, stranger),
    ]


def _of_orders(known: Known) -> list[Case]:
    def existing(chance: random.Random) -> int:
        return chance.choice(known.orders)[0]

    def unknown(chance: random.Random) -> int:
        return existing(chance) + chance.randint(1, ID_STEP - 1) * ORDER_ID_STRIDE

    def case(method: str, what: str, order: Callable[[random.Random], int]) -> Case:
        table = "deals" if method == "order.deals" else "orders"

        def draw(chance: random.Random) -> Asked:
            return _order(known, table, order(chance))

        return Case(method, what, ORDER_GOAL_MS, draw)

    return [
        case("order.deals", "existing", existing),
        case("order.deals", "unknown", unknown),
        case("order.finished_detail", "existing", existing),
        case("order.finished_detail", "unknown", unknown),
    ]


# One kind of question each.


def _from(known: Known, table: str, where: str) -> str:
    files = f"'{known.root}/{table}/*/*/*.parquet'"
    return f"FROM read_parquet({files}, hive_partitioning = true) WHERE {where}"


def _between(start_s: int, until_s: int) -> str:
    """The condition on the folders' dates."""
    return f"date BETWEEN '{_date(start_s)}' AND '{_date(until_s - 1)}'"


def _date(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def _market(chance: random.Random) -> int:
    return chance.randint(1, MARKETS)


def _kline(
    known: Known, interval_s: int, rows: tuple[int, int]
) -> Callable[[random.Random], Asked]:
    def draw(chance: random.Random) -> Asked:
        market = _market(chance)
        span_s = min(chance.randint(*rows) * interval_s, known.end_s - known.first_s)
        start_s = chance.randint(known.first_s, known.end_s - span_s)
        start_s -= start_s % interval_s
        until_s = start_s + span_s
        times = f"make_timestamptz({start_s}000000) AND make_timestamptz({until_s - 1}999999)"
        where = f"market = {market} AND {_between(start_s, until_s)}"
        if interval_s < 60:
            columns = (
                f"epoch_us(time) // {interval_s}000000 AS bucket, arg_min(price, deal_id),"
                " arg_max(price, deal_id), max(price), min(price), sum(amount), sum(deal)"
            )
            rows_from = _from(known, "deals", f"{where} AND time BETWEEN {times}")
        else:
            columns = (
                f"epoch_us(minute) // {interval_s}000000 AS bucket, arg_min(open, first_deal_id),"
                " arg_max(close, last_deal_id), max(high), min(low), sum(volume), sum(amount)"
            )
            rows_from = _from(known, "bars", f"{where} AND minute BETWEEN {times}")
        sql = f"SELECT {columns} {rows_from} GROUP BY bucket ORDER BY bucket"
        return Asked([f"M{market}", start_s, until_s - interval_s, interval_s], sql)

    return draw


def _last(known: Known, chance: random.Random) -> Asked:
    market = _market(chance)
    past = f"minute < make_timestamptz({int(time.time()) - DAY_S}000000)"
    columns = f"arg_max(close, last_deal_id), arg_max(close, last_deal_id) FILTER ({past})"
    return Asked([f"M{market}"], f"SELECT {columns} {_from(known, 'bars', f'market = {market}')}")


def _status(known: Known, chance: random.Random, period_s: int) -> Asked:
    market, now_s = _market(chance), int(time.time())
    start_s = now_s - period_s
    where = (
        f"market = {market} AND {_between(start_s, now_s)}"
        f" AND minute >= make_timestamptz({start_s}000000)"
    )
    columns = (
        "arg_min(open, first_deal_id), arg_max(close, last_deal_id), max(high), min(low),"
        " sum(volume), sum(amount)"
    )
    return Asked([f"M{market}", period_s], f"SELECT {columns} {_from(known, 'bars', where)}")


def _deals(known: Known, chance: random.Random) -> Asked:
    market = _market(chance)
    rows_from = _from(known, "deals", f"market = {market}")
    sql = f"SELECT deal_id, time, side, price, amount {rows_from} ORDER BY deal_id DESC LIMIT 100"
    return Asked([f"M{market}", 100, 0], sql)


def _user_deals(known: Known, chance: random.Random, one: bool = False) -> Asked:
    order_id, user = chance.choice(known.orders)
    market = order_id % ORDER_ID_STRIDE
    where = f"(taker_user = {user} OR maker_user = {user})" + one * f" AND market = {market}"
    sql = f"SELECT * {_from(known, 'deals', where)} ORDER BY time DESC LIMIT 100"
    return Asked([user, f"M{market}" if one else None, 0, 100], sql)


def _finished(known: Known, chance: random.Random) -> Asked:
    order_id, user = chance.choice(known.orders)
    market = order_id % ORDER_ID_STRIDE
    where = f'market = {market} AND "user" = {user}'
    sql = f"SELECT * {_from(known, 'orders', where)} ORDER BY ctime DESC LIMIT 100"
    return Asked([user, f"M{market}", 0, 0, 0, 100, 0], sql)


def _balances(known: Known, user: int, business: str, offset: int) -> Asked:
    where = f'"user" = {user}' + (f" AND business = '{business}'" if business else "")
    page = f"ORDER BY seq DESC, step DESC LIMIT 100 OFFSET {offset}"
    sql = f"SELECT * {_from(known, 'balances', where)} {page}"
    return Asked([user, None, business or None, 0, 0, offset, 100], sql)


def _order(known: Known, table: str, order_id: int) -> Asked:
    market = order_id % ORDER_ID_STRIDE
    if table == "orders":
        where = f"market = {market} AND order_id = {order_id}"
        return Asked([order_id], f"SELECT * {_from(known, table, where)}")
    where = f"(taker_order_id = {order_id} OR maker_order_id = {order_id}) AND market = {market}"
    sql = f"SELECT * {_from(known, table, where)} ORDER BY deal_id DESC LIMIT 100"
    return Asked([order_id, 0, 100], sql)
