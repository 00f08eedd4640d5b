"""Live: files and tail answer as one lake that has all rows in files would, whatever goes on."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics import history, lake_compact, market_data, warehouse
from analytics.history_rows import Page, Span
from analytics.lake import Lake, bars_of
from analytics.live import Live, Moment, Place
from analytics.warehouse import Scope
from tests.analytics.filled_lake import Row, exact_product, table_of

MARKETS, SHARDS, USERS = (1, 3, 4), 2, 5
BEGIN_US = int(datetime(2026, 11, 28, 23, 59, 30, tzinfo=UTC).timestamp()) * 10**6
MINUTE_US, DAY_US = 60 * 10**6, 86_400 * 10**6
INTERVALS = (1, 15, 60, 300, 3_600, 86_400, market_data.WEEK_S, market_data.MONTH_S)

Question = Callable[[duckdb.DuckDBPyConnection, Scope], Any]


class World:
    """Streams of rows, drawn by chance, of which a lake and its tail know a part.

    made: how far each stream was read.  rows: all there will be, by place.
    """

    def __init__(self, root: Path, chance: random.Random, entries: int) -> None:
        self.chance = chance
        self.rows: dict[Place, list[Row]] = {}
        self.last_us = BEGIN_US
        self.orders: list[int] = [1, 8 * 4096 + 3]
        for market in MARKETS:
            self._draw_market(market, entries)
        for shard in range(SHARDS):
            self._draw_shard(shard, entries)
        self.ends = {_stream(place): entries for place in self.rows}
        self.made = dict.fromkeys(self.ends, 0)
        self.lake = Lake(str(root / "live"))
        self.manifest = self.lake.manifest()
        self.live = Live(self.lake.url, {"narrow": 2})

    def _times(self, entries: int) -> Iterator[int]:
        """Times that do not go back; some are alike, some next to a midnight."""
        now_us = BEGIN_US + self.chance.randrange(3) * DAY_US
        for _ in range(entries):
            midnight_us = now_us - now_us % DAY_US + DAY_US
            steps = (0, 1, 999_999, 20 * 10**6, 55 * MINUTE_US, midnight_us - now_us)
            now_us += self.chance.choice((*steps, max(0, midnight_us - now_us - 1)))
            self.last_us = max(self.last_us, now_us)
            yield now_us

    def _draw_market(self, market: int, entries: int) -> None:
        chance = self.chance
        deals: list[Row] = []
        finished: list[Row] = []
        for seq, time_us in enumerate(self._times(entries), 1):
            for _ in range(chance.choice((0, 1, 1, 3))):
                amount, price = (str(chance.randint(1, 10**6) / 1000) for _ in range(2))
                if market == 3:
                    amount, price = str(chance.randrange(10**16, 9 * 10**17)), "0.5"
                ids = {f"{role}_order_id": self._order(market) for role in ("taker", "maker")}
                users = {f"{role}_user": chance.randint(1, USERS) for role in ("taker", "maker")}
                number = {"deal_id": len(deals) + 1, "seq": seq, "time": time_us}
                money = {"price": Decimal(price), "amount": Decimal(amount)}
                deal = {"deal": exact_product(price, amount), "side": chance.choice((1, 2))}
                deals.append(number | money | deal | ids | users)
            if chance.random() < 0.7:
                times = {"ctime": time_us - chance.choice((0, 1, DAY_US)), "ftime": time_us}
                nothing = {"deal_stock": Decimal(0)} if chance.random() < 0.2 else {}
                kind = {"side": chance.choice((1, 2)), "type": chance.choice((1, 2))}
                who = {"user": chance.randint(1, USERS), "order_id": self._order(market, True)}
                finished.append({"seq": seq} | times | nothing | kind | who)
        self.rows["deals", market], self.rows["orders", market] = deals, finished

    def _order(self, market: int, is_new: bool = False) -> int:
        number = (len(self.orders) if is_new else self.chance.randrange(40)) * 4096 + market
        self.orders.append(number)
        return number

    def _draw_shard(self, shard: int, entries: int) -> None:
        rows = self.rows["balances", shard] = []
        users = [user for user in range(1, USERS + 1) if user % SHARDS == shard]
        for seq, time_us in enumerate(self._times(entries), 1):
            for step in range(self.chance.choice((0, 1, 4))):
                business = self.chance.choice(("deposit", "trade"))
                about = {"asset": self.chance.choice((1, 2)), "business": business}
                where = {"seq": seq, "step": step, "time": time_us}
                change = {"change": Decimal(len(rows)), "user": self.chance.choice(users)}
                rows.append(where | about | change)

    def between(self, place: Place, after: int, until: int) -> list[Row]:
        return [row for row in self.rows[place] if after < row["seq"] <= until]

    def watermark(self, place: Place) -> int:
        return self.manifest.watermarks.get(_stream(place), 0)

    def moment(self) -> Moment:
        """Know all that was made, and keep what is known."""
        for place in self.rows:
            known = max(self.live.until_seq(place), self.watermark(place))
            made = self.made[_stream(place)]
            if made > known:
                rows = table_of(place[0], self.between(place, known, made))
                self.live.extend(place, rows, made)
        return self.live.moment(self.manifest, self.watermark, lambda user: [user % SHARDS])

    def flush(self, stream: str, until: int) -> None:
        """Write a stream up to an entry, and commit it."""
        added = []
        for place in [place for place in self.rows if _stream(place) == stream]:
            first = self.watermark(place) + 1
            rows = table_of(place[0], self.between(place, first - 1, until))
            added += self.lake.write(*place, first, until, rows) if len(rows) else []
            if len(rows) and place[0] == "deals":
                added += self.lake.write("bars", place[1], first, until, bars_of(rows))
        self.manifest = self.lake.commit(self.manifest, add=added, watermarks={stream: until})

    def compact(self) -> None:
        small = lake_compact.Settings(factor=2)
        for merge in lake_compact.plan(self.manifest, "2026-11-30", small):
            made = lake_compact.merge(self.lake, merge, self.manifest.version)
            self.manifest = self.lake.commit(self.manifest, add=made, remove=merge.files)

    def go_on(self, held: list[Moment]) -> None:
        """Something that a journal, the writer or the upkeep does."""
        stream = self.chance.choice(sorted(self.ends))
        made, watermark = self.made[stream], self.manifest.watermarks.get(stream, 0)
        match self.chance.randrange(6):
            case 0 | 1 | 2:
                self.made[stream] = self.chance.randint(made, self.ends[stream])
            # One market is never flushed, so that it has no file.
            case 3 if made > watermark and stream != "market-4":
                self.flush(stream, self.chance.randint(watermark + 1, made))
            case 4:
                self.compact()
            case _:
                self.trim(held)

    def trim(self, held: list[Moment]) -> None:
        for place in self.live.places():
            seq = self.watermark(place)
            self.live.trim(place, min([seq, *(m.after_seqs.get(place, seq) for m in held)]))

    def ask(self, moment: Moment, question: Question) -> Any:
        asked = self.live.ask("narrow", moment, lambda db, scope: tried(question, db, scope))
        return asked.future.result(60)

    def whole(self, root: Path) -> duckdb.DuckDBPyConnection:
        """All rows in files, one a stream and date."""
        lake = Lake(str(root / "whole"))
        added, end = [], max(self.ends.values())
        for (table, part), rows in self.rows.items():
            ordered = table_of(table, rows)
            added += lake.write(table, part, 1, end, ordered)
            added += lake.write("bars", part, 1, end, bars_of(ordered)) if table == "deals" else []
        lake.commit(lake.manifest(), add=added)
        return warehouse.connect(lake.url)

    def question(self) -> Question:
        """One of those that can be asked, with anything in it."""
        chance = self.chance
        user, market = chance.randint(1, USERS + 2), chance.choice((*MARKETS, 5))
        page = Page(chance.choice((0, 0, 2, 5, 6, 30, 2**63 - 1)), chance.choice((1, 3, 100)))
        last_s = self.last_us // 10**6
        span = Span(*(chance.choice((0, self._second(), last_s + 9)) for _ in range(2)))
        side, last_id = chance.choice((None, 1, 2)), chance.randrange(20)
        order = chance.choice(self.orders)
        filters: dict[str, Any] = {
            "asset": chance.choice((None, 1, 2, 9)),
            "span": span,
            "page": page,
        }
        filters["business"] = chance.choice((None, "trade"))
        rest: dict[str, Any] = {"side": side, "span": span, "page": page}
        some = chance.sample((*MARKETS, 5), chance.randint(1, 4))
        kline = Span(self._second(), self._second()), chance.choice(INTERVALS)
        rows_max = chance.choice((10, 10_000))
        period = chance.choice((0, 1, 59, 3_600, 86_400, 604_800)), self._second()
        found: list[Question] = [
            lambda db, scope: history.balance_history(db, user, **filters, scope=scope),
            lambda db, scope: history.order_deals(db, order, page, scope),
            lambda db, scope: history.user_deals(db, user, None, page, scope),
            lambda db, scope: history.user_deals(db, user, market, page, scope),
            lambda db, scope: history.finished(db, user, market, **rest, scope=scope),
            lambda db, scope: history.finished_detail(db, order, scope),
            lambda db, scope: history.deals_after(db, market, last_id, page.limit, scope),
            lambda db, scope: history.newest_deals(db, market, last_id, page.limit, scope),
            lambda db, scope: market_data.kline(db, market, *kline, rows_max, scope),
            lambda db, scope: market_data.kline_texts(db, some, *kline, rows_max, scope),
            lambda db, scope: market_data.price_before(db, some, kline[0].start_s, scope),
            lambda db, scope: market_data.first_price(db, market, scope),
            lambda db, scope: market_data.status(db, market, *period, scope),
            lambda db, scope: market_data.status_today(db, market, period[1], scope),
        ]
        return found[chance.randrange(len(found))]

    def _second(self) -> int:
        row = self.chance.choice(self.rows["deals", self.chance.choice(MARKETS)])
        return int(row["time"]) // 10**6 + self.chance.choice((-86_400, -60, -1, 0, 1, 61))


def _stream(place: Place) -> str:
    return f"{'ledger' if place[0] == 'balances' else 'market'}-{place[1]}"


def tried(question: Question, db: duckdb.DuckDBPyConnection, scope: Scope) -> Any:
    """The answer, or why there is none."""
    try:
        return question(db, scope)
    except market_data.TooManyRows as fault:
        return str(fault)


def expect_one_lake(seed: int, root: Path, steps: int, questions: int) -> None:
    """Whatever is flushed, merged and trimmed on the way, in the end all is there once."""
    print(f"seed {seed}")
    world = World(root, random.Random(seed), entries=30)
    kept: list[tuple[Moment, list[Question], list[Any]]] = []
    with closing(world.live):
        for step in range(steps):
            world.go_on([moment for moment, _, _ in kept])
            if step % 8 == 7:
                moment, asked = world.moment(), [world.question() for _ in range(6)]
                kept.append((moment, asked, [world.ask(moment, each) for each in asked]))
        world.made.update(world.ends)
        moment = world.moment()
        for older, asked, answers in kept:
            assert [world.ask(older, each) for each in asked] == answers
        assert len(world.live.places()) > 2
        with closing(world.whole(root)) as whole:
            for count in range(questions):
                if count == questions // 2:
                    world.trim([])
                question = world.question()
                expected = tried(question, whole, warehouse.WHOLE)
                assert world.ask(moment, question) == expected


@pytest.mark.parametrize(
    ("seed", "steps", "questions"),
    [
        *((seed, 40, 60) for seed in range(3)),
        *(pytest.param(seed, 80, 300, marks=pytest.mark.slow) for seed in range(100, 116)),
    ],
)
def test_files_and_tail_are_one_lake(
    seed: int, steps: int, questions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "OFFSET_READ_MAX", seed % 3)
    monkeypatch.setattr(history, "OFFSET_MERGED_MAX", seed % 7)
    expect_one_lake(seed, tmp_path, steps, questions)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path, random.Random(7), entries=12)
    yield found
    found.live.close()


def test_a_market_that_is_named_twice_has_its_deals_once(world: World) -> None:
    world.made["market-1"] = 12
    world.moment()
    world.flush("market-1", 9)
    span = Span(BEGIN_US // 10**6 - 86_400, world.last_us // 10**6)

    def question(db: duckdb.DuckDBPyConnection, scope: Scope) -> Any:
        return market_data.kline_texts(db, [1, 1], span, 86_400, scope=scope)

    volume = sum(map(Decimal, world.ask(world.moment(), question)[1]["volume"].to_pylist()))
    assert volume == sum(row["amount"] for row in world.rows["deals", 1])


def test_rows_that_could_not_be_taken_in_are_taken_in_later(world: World) -> None:
    rows = table_of("deals", world.between(("deals", 1), 0, 12))
    with pytest.raises(duckdb.Error):
        world.live.extend(("deals", 1), rows.drop_columns(["seq"]), 12)
    assert world.live.until_seq(("deals", 1)) == 0
    world.live.extend(("deals", 1), rows, 12)
    moment = world.live.moment(world.manifest, world.watermark, lambda user: [])
    found = world.ask(moment, lambda db, scope: history.deals_after(db, 1, 0, 99, scope))
    assert len(found) == len(rows) > 0


def test_a_table_is_made_anew_only_to_let_go_of_rows(world: World) -> None:
    world.made["market-1"] = 12
    world.moment()

    def table_number() -> Any:
        tables = "SELECT table_oid FROM duckdb_tables() WHERE table_name = 'tail_deals_1'"
        return world.ask(world.moment(), lambda db, _: db.execute(tables).fetchall())

    before = table_number()
    world.live.trim(("deals", 1), 0)
    assert table_number() == before
    world.live.trim(("deals", 1), 5)
    assert (after := table_number()) != before
    world.live.trim(("deals", 1), 5)
    assert table_number() == after
    world.live.trim(("deals", 1), 12)
    assert ("deals", 1) not in world.live.places()


def test_rows_of_other_dates_than_the_newest_file_are_not_missed(world: World) -> None:
    times = [BEGIN_US + day * DAY_US for day in range(4)]
    some = {**world.rows["deals", 1][0], "taker_user": 1, "maker_user": 2}
    deals = [{**some, "time": at} for at in times]
    # Market 4 has its one deal in the tail, older than what market 1 has in files.
    world.rows["deals", 4] = [{**deals[0], "seq": 1, "deal_id": 1}]
    world.rows["deals", 1] = [{**d, "seq": n, "deal_id": n} for n, d in enumerate(deals[1:], 1)]
    done = {"seq": 3, "order_id": 4097, "user": 1, "ctime": times[1], "ftime": times[3]}
    world.rows["orders", 1] = [done]
    world.made.update({"market-1": 3, "market-4": 1})
    world.flush("market-1", 3)
    moment = world.moment()
    page = Page(0, 2)
    found = world.ask(moment, lambda db, scope: history.user_deals(db, 1, None, page, scope))
    assert [(deal.market, deal.deal_id) for deal in found] == [(1, 3), (1, 2)]
    span = Span(times[1] // 10**6, times[1] // 10**6 + 1)
    found = world.ask(moment, lambda db, scope: history.finished(db, 1, 1, span=span, scope=scope))
    assert [order.order_id for order in found] == [4097]


@pytest.mark.parametrize(("count", "rows"), [(1, 10**12), (10**6, 1)])
def test_a_question_that_is_given_up_ends(world: World, count: int, rows: int) -> None:
    begun = threading.Event()

    def question(db: duckdb.DuckDBPyConnection, scope: Scope) -> Any:
        for _ in range(count):
            tables = scope.tables("deals", parts=[1])
            begun.set()
            db.execute(f"{tables}SELECT count(*) FROM range({rows})").fetchall()

    moment = world.moment()
    asked = world.live.ask("narrow", moment, question)
    waiting = [world.live.ask("narrow", moment, lambda db, _: 1) for _ in range(2)]
    assert begun.wait(10)
    asked.interrupt()
    with pytest.raises(duckdb.InterruptException):
        asked.future.result(10)
    assert [each.future.result(10) for each in waiting] == [1, 1]


def test_a_question_that_has_not_begun_never_does(world: World) -> None:
    go_on, began = threading.Event(), []
    moment = world.moment()
    slow = [world.live.ask("narrow", moment, lambda db, _: go_on.wait(10)) for _ in range(2)]
    asked = world.live.ask("narrow", moment, lambda db, _: began.append(1))
    asked.interrupt()
    go_on.set()
    assert all(each.future.result(10) for each in slow)
    with pytest.raises(CancelledError):
        asked.future.result(10)
    assert not began


def test_interrupts_do_not_meet_another_question(world: World) -> None:
    moment = world.moment()

    def short(db: duckdb.DuckDBPyConnection, scope: Scope) -> Any:
        return db.execute("SELECT 1").fetchall()

    for _ in range(200):
        given_up = world.live.ask("narrow", moment, short)
        others = [world.live.ask("narrow", moment, short) for _ in range(3)]
        given_up.interrupt()
        assert [each.future.result(10) for each in others] == [[(1,)]] * 3


@pytest.mark.parametrize("interval_s", [60, 1])
def test_a_kline_is_as_long_as_its_bars_when_older_deals_are_gone(
    world: World, interval_s: int
) -> None:
    for n, row in enumerate(deals := world.rows["deals", 1]):
        deals[n] = {**row, "time": BEGIN_US + n * 20 * MINUTE_US}
    world.flush("market-1", 12)
    gone = [entry for entry in world.manifest.files if entry.table == "deals"][:1]
    world.manifest = world.lake.commit(world.manifest, remove=gone)
    span = Span(0, BEGIN_US // 10**6 + 9_000)

    def question(db: duckdb.DuckDBPyConnection, scope: Scope) -> Any:
        return market_data.kline(db, 1, span, interval_s, rows_max, scope)

    rows_max = 10**6
    rows_max = len(world.ask(world.moment(), question)) - 1
    assert world.ask(world.moment(), question).endswith(f"more than {rows_max}")
