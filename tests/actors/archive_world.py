"""A small exchange whose journals an archive can follow, and the truth about what it told.

Separate because the tests of rows and of the archive both start from it.  The machines are real
and live; what they tell is kept as the oracle, beside the disks that a replay reads.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from analytics.lake import SCHEMAS, FileEntry, Lake, Manifest, bars_of
from excore_ray.actors.archive import Archive
from excore_ray.actors.plan import ArchiveSettings
from excore_ray.core import commands as c
from excore_ray.core.catalog import Catalog
from excore_ray.core.events import OrderFinished, events_of
from excore_ray.core.orders import Side
from excore_ray.core.snapshot import dump
from excore_ray.core.specs import Asset, rules_of
from excore_ray.errors import StreamMissing
from excore_ray.storage.journal import JournalReader
from excore_ray.storage.memory import MemoryDisk, read_memory
from tests.core import machines
from tests.core.courier import Courier
from tests.core.machines import START_US, cancel, put_limit, put_market, request_id, with_fees
from tests.core.postings import Change

BTC, USDT = 1, 2
AT_ONCE = ArchiveSettings(age_s=0, idle_s=0)
NEVER = ArchiveSettings(age_s=1e9, idle_s=1e9)
RULES = rules_of(1, Asset(BTC, "BTC", 8, 8, ""), Asset(USDT, "USDT", 6, 6, ""), (4, 2, 1))
HOUR_US = 3_600_000_000
TABLES = ("deals", "orders", "balances")

# One row, whatever the table: what names it, and only it.
KEYS = {"deals": ["deal_id"], "orders": ["order_id"], "balances": ["part", "seq", "step"]}


class Life(Courier):
    """One market and its shards, with their journals on disks.

    finished: every finished order there ever was, beside the courier's deals and postings.
    """

    def __init__(self, shards: int = 2) -> None:
        self.disks: dict[str, MemoryDisk] = {}
        self.finished: list[OrderFinished] = []
        super().__init__(RULES, shards)
        self.catalog = Catalog()
        self.define(c.CreateCatalog(shards))
        self.define(c.OpenEpoch(1))
        self.define(c.AddAsset(request_id(), 0, "BTC", 8, 8, ""))
        self.define(c.AddAsset(request_id(), 0, "USDT", 6, 6, ""))
        self.define(c.AddMarket(request_id(), 0, "BTC/USDT", "BTC", 4, "USDT", 2, 1, ""))
        assert self.catalog.markets[0].rules == RULES

    def define(self, command: c.CatalogCommand) -> None:
        """Change the catalog."""
        self.catalog.begin(START_US)
        self.catalog.execute(command)
        self._land("catalog", self.catalog.epoch, c.CatalogRecord(START_US, [command]))

    def pay_in(self, user: int, btc: int, usdt: int) -> None:
        """Whole units for a user."""
        self.update(machines.update(user, BTC, btc * 10**8))
        self.update(machines.update(user, USDT, usdt * 10**6))

    def settle_all(self) -> None:
        for shard in range(len(self.ledgers)):
            self.settle(shard)

    def reader(self, stream: str) -> JournalReader:
        """As an archive opens one."""
        return reader_of(self.disks, stream)

    def snapshot(self, stream: str) -> None:
        """A snapshot of the newest entry, as the compactor would keep it."""
        machine = self.market if stream == "market-1" else self.ledgers[int(stream[-1])]
        disk = self.disks[stream]
        read_memory(disk).save_snapshot(disk.next_seq - 1, dump(machine))

    def _landed(self, stream: str, record: c.MarketRecord | c.LedgerRecord) -> None:
        super()._landed(stream, record)
        if isinstance(record, c.MarketRecord):
            self.finished += (e for e in events_of(record) if isinstance(e, OrderFinished))
            self._land(stream, self.market.epoch, record)
        else:
            self._land(stream, self.ledgers[int(stream[-1])].epoch, record)

    def _land(self, stream: str, epoch: int, record: Any) -> None:
        disk = self.disks.setdefault(stream, MemoryDisk(stream))
        disk.land(disk.next_seq, epoch, [msgspec.json.encode(record)], [])


def reader_of(disks: Mapping[str, MemoryDisk], stream: str) -> JournalReader:
    """One of these streams, as an archive opens it."""
    if stream not in disks:
        raise StreamMissing(f"{stream} was never opened")
    return read_memory(disks[stream])


def live(life: Life, chance: random.Random, steps: int) -> None:
    """So many things that people and time do, drawn by `chance`."""
    for _ in range(steps):
        if chance.random() < 0.01:
            life.new_epoch()
        user, side = chance.randint(1, 6), chance.choice((Side.SELL, Side.BUY))
        match chance.randrange(12):
            case 0:
                life.pay_in(user, chance.randint(1, 9), chance.randint(1, 900))
            case 1:
                life.cancel(cancel(user))
            case 2:
                size = 10 ** (6 if side == Side.BUY else 2) * chance.randint(1, 40)
                life.put(put_market(user, side, size, chance.choice((0, 7))))
            case 3:
                life.wait(chance.choice((1, 1_000_000, 70_000_000, HOUR_US * 3)))
            case 4 | 5:
                shard = chance.randrange(len(life.ledgers))
                life.deliver(shard, chance.randint(1, 9))
                life.forget(shard)
            case _:
                put = put_limit(user, side, chance.randint(1, 9_999), chance.randint(9_990, 10_010))
                fees = chance.choice((0, 3, 20)), chance.choice((0, 1, 10))
                referral = chance.choice(((0, 0), (6, 5_000), (5, 10_000)))
                life.put(with_fees(put, *fees, referral))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


class Killed(BaseException):
    """The process ends here."""


class FragileLake(Lake):
    """A lake whose writer dies, or whose store fails, at the steps a test names.

    A write and a commit are two steps each: before anything of it happened, and after all of it.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.steps = 0
        self.faults: dict[int, BaseException] = {}

    def write(self, *args: Any, **options: Any) -> list[FileEntry]:
        self._step()
        found = super().write(*args, **options)
        self._step()
        return found

    def commit(self, base: Manifest, **change: Any) -> Manifest:
        self._step()
        found = super().commit(base, **change)
        self._step()
        return found

    def _step(self) -> None:
        self.steps += 1
        if self.steps in self.faults:
            raise self.faults[self.steps]


def archive_of(
    life: Life, lake: Lake, clock: Clock, settings: ArchiveSettings | None = None
) -> Archive:
    return Archive(
        lambda: tuple(life.disks), life.reader, lake, settings or ArchiveSettings(), clock
    )


def live_rows(root: Path, table: str) -> list[dict[str, Any]]:
    """All rows of the live files of a table, each with its part."""
    lake = Lake(str(root))
    found: list[dict[str, Any]] = []
    for entry in lake.manifest().files:
        if entry.table == table:
            found += ({"part": entry.part} | row for row in lake.read(entry).to_pylist())
    return found


def tail_rows(
    archive: Archive, table: str, shards: int, watermarks: Mapping[str, int]
) -> list[dict[str, Any]]:
    """All rows of a table that are in no file of the manifest with these watermarks."""
    kind, parts = ("ledger", range(shards)) if table == "balances" else ("market", range(1, 2))
    found: list[dict[str, Any]] = []
    for part in parts:
        tail = archive.tail(table, part, watermarks.get(f"{kind}-{part}", 0))
        assert tail.schema.equals(SCHEMAS[table])
        found += ({"part": part} | row for row in tail.to_pylist())
    return found


def expect_each_once(table: str, rows: list[dict[str, Any]], life: Life) -> None:
    """These rows are what the machines told, all of it, and each exactly once."""
    keys = [tuple(row[key] for key in KEYS[table]) for row in rows]
    assert len(set(keys)) == len(keys), f"doubled in {table}"
    if table == "deals":
        assert sorted(key[0] for key in keys) == [deal.deal_id for deal in life.deals]
    elif table == "orders":
        assert sorted(key[0] for key in keys) == sorted(one.order_id for one in life.finished)
    else:
        assert sorted(map(_posting_of_row, rows)) == sorted(map(_posting, life.postings))


def _posting_of_row(row: dict[str, Any]) -> tuple[Any, ...]:
    save = {BTC: 8, USDT: 6}[row["asset"]]
    change, balance = (int(row[name].scaleb(save)) for name in ("change", "balance"))
    ids = row["order_id"] or 0, row["deal_id"] or 0, row["business_id"]
    return row["user"], row["asset"], row["business"], change, balance, *ids


def _posting(told: Change) -> tuple[Any, ...]:
    ids = told.order_id, told.deal_id, told.business_id
    return told.user, told.asset, told.business, told.change, told.balance, *ids


def deal_ids(table: pa.Table) -> list[int]:
    return [int(number) for number in table["deal_id"].to_pylist()]


def ends(life: Life) -> dict[str, int]:
    """Where the journal of each market and shard ends."""
    return {name: d.next_seq - 1 for name, d in life.disks.items() if name != "catalog"}


def run(job: Coroutine[Any, Any, None]) -> None:
    asyncio.run(job)


def busy_life(seed: int = 1, steps: int = 150) -> Life:
    life = Life()
    live(life, random.Random(seed), steps)
    life.settle_all()
    assert life.deals
    assert life.finished
    return life


def check(life: Life, root: Path, archive: Archive) -> None:
    """What is live and what is in the tail are together all there ever was, and nothing twice."""
    watermarks = Lake(str(root)).manifest().watermarks
    for table in TABLES:
        tail = tail_rows(archive, table, len(life.ledgers), watermarks)
        expect_each_once(table, live_rows(root, table) + tail, life)


def check_files(life: Life, root: Path) -> None:
    """The live files alone are all there ever was; the bars are those of the deals."""
    for table in TABLES:
        expect_each_once(table, live_rows(root, table), life)
    lake = Lake(str(root))
    bars, deals = (
        [lake.read(entry) for entry in lake.manifest().files if entry.table == table]
        for table in ("bars", "deals")
    )
    made = pa.concat_tables([bars_of(each) for each in deals])
    assert pa.concat_tables(bars).sort_by("first_deal_id").equals(made.sort_by("first_deal_id"))
