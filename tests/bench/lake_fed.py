"""An archive at work: alone on journals that are there already, and beside an exchange that trades.

Separate from the questions, which want an archive at rest.  The journals are written by the real
machines, in records of 100 to 500 orders, as a busy exchange would.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil

from analytics.lake import Lake
from excore_ray.actors.archive import Archive
from excore_ray.actors.archive_follower import Follower
from excore_ray.actors.archive_rows import Scales
from excore_ray.actors.host import calm_collector
from excore_ray.actors.plan import ArchiveSettings
from excore_ray.actors.replay import Replay
from excore_ray.core import commands as c
from excore_ray.core.catalog import Catalog
from excore_ray.core.ledger import Ledger
from excore_ray.core.machine import Machine
from excore_ray.core.market import Market
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.reasons import Refused
from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import open_sqlite, read_sqlite
from tests.bench import http
from tests.core.machines import START_US, request_id

USERS, RECORD_US = 1_000, 75_000
CATALOG, MARKET, SHARD = "catalog", "market-1", "ledger-0"
_BODIES_AN_APPEND = 50
_CALM_SHARE = 0.1  # of a core: what an archive uses that has nothing to do
_ALONE_GOAL, _SLOWDOWN_GOAL = 30_000, 0.9


class Town:
    """A market, its shard and the catalog, with all they journal."""

    def __init__(self) -> None:
        self.market, self.ledger, self.catalog = Market(), Ledger(), Catalog()
        self._streams: dict[str, Machine] = {
            CATALOG: self.catalog,
            MARKET: self.market,
            SHARD: self.ledger,
        }
        self.journals: dict[str, list[bytes]] = {stream: [] for stream in self._streams}
        self._time_us = START_US
        self._number = self._applied = 0
        open_epoch = c.OpenEpoch(1)
        define: list[Any] = [
            c.AddAsset(request_id(), 0, "BTC", 20, 8, ""),
            c.AddAsset(request_id(), 0, "USDT", 20, 8, ""),
            c.AddMarket(request_id(), 0, "M1", "BTC", 8, "USDT", 8, 1, ""),
        ]
        self._run(CATALOG, [c.CreateCatalog(1), open_epoch, *define])
        rules = self.catalog.markets[0].rules
        self._run(MARKET, [c.CreateMarket(rules, 1), open_epoch, c.ReserveIds(10**9)])
        self._run(SHARD, [c.CreateShard(0, 1), open_epoch])
        for user in range(1, USERS + 1):
            self._run(SHARD, [_pay_in(user, rules.stock_id), _pay_in(user, rules.money_id)])

    def trade(self, chance: random.Random) -> None:
        """One record of orders, about every second of which meets another, and what follows."""
        rules = self.market.rules
        places = [self._place(chance) for _ in range(chance.randint(100, 500))]
        holds = []
        for place in places:
            put = place.put
            assert isinstance(put, c.PutLimit)
            sells = put.side == Side.SELL
            asset = rules.stock_id if sells else rules.money_id
            units = rules.stock_unit if sells else put.price * rules.money_unit
            holds.append(c.Hold(place.order_id, put.user, asset, put.amount * units, True))
        self._run(SHARD, [c.Reserve(1, 1, holds)])
        self._run(MARKET, [c.Forget(0, self._applied), *places])
        entries, emitted = self.market.outboxes[0].after(self._applied, 10**9)
        low = order_id_of(self._number + 1, 1)
        self._run(SHARD, [c.Settle(1, 1, low, self._applied + 1, entries, emitted)])
        self._applied += len(entries)
        self._time_us += RECORD_US

    def _place(self, chance: random.Random) -> c.Place:
        self._number += 1
        side = chance.choice((Side.SELL, Side.BUY))
        price = (8_000 + chance.randint(-20, 20)) * 10**8
        amount = (chance.randint(1, 99) * 10 + 1) * 10**5
        user = chance.randint(1, USERS)
        put = c.PutLimit(request_id(), 0, user, side, amount, price, 20, 10, 0, 0, "bench")
        return c.Place(order_id_of(self._number, 1), put)

    def _run(self, stream: str, commands: list[Any]) -> None:
        machine = self._streams[stream]
        machine.begin(self._time_us)
        for command in commands:
            answer = machine.execute(command)
            assert not isinstance(answer, Refused), answer
        self.journals[stream].append(msgspec.json.encode(machine.record(commands)))


def _pay_in(user: int, asset: int) -> c.Update:
    amount = 10**6 * 10**20 if asset == 1 else 10**10 * 10**20
    return c.Update(request_id(), 0, user, asset, "deposit", 1, amount, "{}", False, 10**40)


async def write_journals(folder: Path, deals: int) -> int:
    """Journals of about `deals` deals in `folder`; how many there are."""
    chance, town = random.Random(3), Town()
    while town.market.last_deal_id < deals:
        town.trade(chance)
    for stream, bodies in town.journals.items():
        journal = open_sqlite(folder, stream, owner=Ownership(stream))
        for start in range(0, len(bodies), _BODIES_AN_APPEND):
            await journal.append(start + 1, 1, bodies[start : start + _BODIES_AN_APPEND], [])
        journal.close()
    return town.market.last_deal_id


def archive_alone(folder: Path, deals: int) -> None:
    """Print how fast an archive brings journals into a lake, and where the time goes.

    folder: for journals and lake; made here.
    """
    journals = folder / "journals"
    deals = asyncio.run(write_journals(journals, deals))
    print(f"the archive alone, {deals:,} deals of one market and one shard in journals")
    with _calm_collector():
        split = {stream: _follow_s(journals, stream) for stream in (MARKET, SHARD)}
        began, cpu = time.perf_counter(), time.process_time()
        live = asyncio.run(_archive(journals, Lake(str(folder / "lake"))))
        wall, used = time.perf_counter() - began, time.process_time() - cpu
    assert live == deals, f"{live} deals in the lake"
    print(f"{deals / wall:,.0f} deals/s by the clock, goal {_ALONE_GOAL:,}", end="")
    print("   missed" if deals / wall < _ALONE_GOAL else "")
    print(f"{deals / used:,.0f} deals a second of processor; microseconds of it a deal:")
    for stream, parts in split.items():
        shown = "".join(f"   {name} {1e6 * each / deals:.2f}" for name, each in parts.items())
        print(f"  {stream:10}{shown}")
    rest = used - sum(sum(parts.values()) for parts in split.values())
    print(f"  {'both':10}   Parquet, bars, commits {1e6 * rest / deals:.2f}", flush=True)


@contextmanager
def _calm_collector() -> Iterator[None]:
    """Garbage is looked for as in the archive's own process."""
    thresholds = gc.get_threshold()
    calm_collector()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        # What stays frozen is not let go of at the end, and Python's extensions complain.
        gc.unfreeze()


def _follow_s(journals: Path, stream: str) -> dict[str, float]:
    """Seconds of processor for reading a stream with a follower, and for making rows of it."""
    read_s = rows_s = 0.0
    catalog = Replay(read_sqlite(journals, CATALOG), CATALOG)
    while catalog.advance():
        continue
    known = catalog.machine
    assert isinstance(known, Catalog)
    scales = Scales(known.assets, known.markets)
    follower = Follower(read_sqlite(journals, stream), 0, 0.0)
    while True:
        began = time.process_time()
        count = follower.read()
        read = time.process_time()
        follower.convert(scales, 0.0)
        read_s, rows_s = read_s + read - began, rows_s + time.process_time() - read
        if not count:
            break
        if follower.rows >= ArchiveSettings().rows_max:
            follower.take()
            follower.settle(follower.seq, 0.0)
    follower.close()
    return {"read": read_s, "rows": rows_s}


async def _archive(journals: Path, lake: Lake) -> int:
    """Bring all into the lake; how many deals it has then."""
    streams = (CATALOG, MARKET, SHARD)
    archive = Archive(
        lambda: streams, functools.partial(read_sqlite, journals), lake, ArchiveSettings()
    )
    await archive.round()
    await archive.finish()
    await archive.close()
    assert not archive.trouble, archive.trouble
    return sum(entry.rows for entry in archive.manifest.files if entry.table == "deals")


# Beside an exchange.


def slowdown(server: http.Server, pairs: int, count: int) -> None:
    """Print orders a second with the archive at work and with its process stopped, in turns.

    Users must have been paid in.  Before each turn the archive works off what it has missed.
    """
    [archive] = _actors(server, "ArchiveActor")
    print("orders/s at 64 connections, one order a request; CPU in microseconds an order")
    rates: dict[bool, list[float]] = {True: [], False: []}
    chance = random.Random(5)
    for turn in range(2 * pairs):
        # With first and without first by turns, so that growth of the journals hits both alike.
        runs = turn % 4 in (0, 3)
        _wait_calm(archive)
        orders = [msgspec.json.encode(http.order(chance)) for _ in range(count)]
        requests = http.requests_of(server, orders)
        before = server.cpu()
        with _going_on(archive) if runs else _stopped(archive):
            outcome = http.in_process(server.port, requests, 64)
            used = server.cpu_since(before, count)
        http.show("archive at work" if runs else "archive stopped", count, outcome, used)
        if outcome.errors:
            print(f"    {len(outcome.errors)} errors, as {outcome.errors[0][:200]!r}")
        rates[runs].append(count / outcome.seconds)
    with_it, without = statistics.median(rates[True]), statistics.median(rates[False])
    ratios = [one / other for one, other in zip(rates[True], rates[False], strict=True)]
    ratio = statistics.median(ratios)
    missed = "   missed" if ratio < _SLOWDOWN_GOAL else ""
    print(
        f"medians: {with_it:,.0f}/s with, {without:,.0f}/s without, of the ratios {ratio:.3f}",
        end="",
    )
    print(f"; goal {_SLOWDOWN_GOAL}{missed}")


def _actors(server: http.Server, kind: str) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children(recursive=True)
    return [child for child in children if kind in " ".join(child.cmdline())]


def _wait_calm(process: psutil.Process) -> None:
    """Return when a process has used next to nothing for a second."""
    while process.cpu_percent(1.0) > 100 * _CALM_SHARE:
        continue


@contextmanager
def _going_on(process: psutil.Process) -> Iterator[None]:
    yield


@contextmanager
def _stopped(process: psutil.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
