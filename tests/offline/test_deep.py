"""The deep audit: exact where all is well, and each planted defect is found and named."""

from __future__ import annotations

import functools
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from analytics.lake import FileEntry, Lake
from excore_ray.core import commands as c
from excore_ray.core.snapshot import dump
from excore_ray.errors import StreamMissing
from excore_ray.offline.deep import audit_deep
from excore_ray.offline.report import Report
from excore_ray.storage.sqlite import read_sqlite
from tests.offline.world import Planted, lived, machine_at, newest

MARKET, SHARD = "market-1", "ledger-0"


def judge(planted: Planted) -> Report:
    return audit_deep(planted.places.journals, str(planted.places.lake))


def whole(root: Path, seed: int = 1, steps: int = 150, settle: bool = True) -> Planted:
    """A data directory in order, with all of it in the lake; its journals are not written yet."""
    planted = Planted(root, lived(seed, steps, settle))
    planted.fill_lake()
    return planted


@pytest.mark.parametrize("seed", range(8))
def test_what_is_in_order_is_found_exact(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    planted = whole(tmp_path, seed, settle=seed % 2 == 0)
    planted.write()
    report = judge(planted)
    assert report.findings == []
    streams = {one.stream: one for one in report.streams}
    assert set(streams) == set(planted.life.disks)
    for stream, one in streams.items():
        assert (one.start, one.last) == (0, newest(planted.life, stream))
        if stream != "catalog":
            assert one.hashes > 0
        assert len(one.state_hash) == 64
    deals = sum(one.rows for one in report.tables if one.table == "deals")
    assert deals == len(planted.life.deals)
    assert report.entries > 0
    assert report.open_orders == len(planted.life.market.orders)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_truncated_is_replayed_from_the_oldest_snapshot(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    planted = whole(tmp_path, seed)
    for stream in (MARKET, SHARD, "ledger-1"):
        end = newest(planted.life, stream)
        older, newer = sorted(chance.sample(range(2, end + 1), 2))
        planted.kept[stream] = [older, newer]
        planted.forgotten[stream] = older
    planted.write()
    report = judge(planted)
    assert report.findings == []
    for one in report.streams:
        if one.stream in planted.kept:
            assert one.snapshots == planted.kept[one.stream]
            assert one.start == planted.forgotten[one.stream]


def test_a_lake_that_lags_is_compared_as_far_as_it_is(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    mark = newest(planted.life, MARKET)
    planted.life.settle_all()
    planted.life.new_epoch()
    planted.life.settle_all()
    planted.write()
    report = judge(planted)
    assert report.findings == []
    assert {one.last_seq for one in report.tables if one.stream == MARKET} == {mark}
    assert newest(planted.life, MARKET) > mark


def test_days_that_the_lake_let_go_of_are_not_missed(tmp_path: Path) -> None:
    planted = whole(tmp_path, steps=300)
    lake = Lake(str(planted.places.lake))
    manifest = lake.manifest()
    dates = sorted({entry.date for entry in manifest.files})
    assert len(dates) > 1
    gone = [entry for entry in manifest.files if entry.date == dates[0]]
    lake.commit(manifest, remove=gone)
    planted.write()
    report = judge(planted)
    assert [one for one in report.findings if not one.where.startswith("check")] == []
    assert sum(one.older for one in report.tables) > 0


def test_nothing_to_judge_is_told(tmp_path: Path) -> None:
    with pytest.raises(StreamMissing, match="there are no journals"):
        audit_deep(tmp_path / "journals", str(tmp_path / "lake"))


# Defects, each written by the library: what is wrong is what the entries say.


def expect(report: Report, where: str, what: str) -> None:
    """There is a finding in this place with these words."""
    assert any(where in f.where and what in f.what for f in report.findings), report.findings


def first(kind: type, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A change of the first command of a kind for which `change` gives another."""
    done: list[Any] = []

    def once(command: Any) -> Any:
        if done or type(command) is not kind:
            return command
        made = change(command)
        if made is not command:
            done.append(made)
        return made

    return once


def with_leg(settle: c.Settle, **values: Callable[[c.Leg], int]) -> c.Settle:
    """The command with its first leg that has a fee changed."""
    for number, entry in enumerate(settle.entries):
        if type(entry) is c.Leg and entry.fee:
            made = {name: value(entry) for name, value in values.items()}
            entries = [*settle.entries]
            entries[number] = msgspec.structs.replace(entry, **made)
            return msgspec.structs.replace(settle, entries=entries)
    return settle


def test_a_fee_that_is_off_by_one_at_the_shard(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    change = first(c.Settle, lambda settle: with_leg(settle, fee=lambda leg: leg.fee + 1))
    assert planted.change(SHARD, change) >= 1
    planted.write()
    report = judge(planted)
    # Every sum still comes out even: the shard kept as fee what the user did not get.
    expect(report, "market-1 and ledger-0", "not all are in its journal as they were emitted")
    expect(report, "balances of ledger-0", "change is")


def test_a_fee_that_is_off_by_one_at_the_market(tmp_path: Path) -> None:
    planted = whole(tmp_path)

    def dearer(place: c.Place) -> c.Place:
        if not place.put.taker_fee:
            return place
        put = msgspec.structs.replace(place.put, taker_fee=place.put.taker_fee + 1)
        return msgspec.structs.replace(place, put=put)

    done: list[bool] = []

    def change(command: Any) -> Any:
        if type(command) is not c.Place or done:
            return command
        made = dearer(command)
        # Only an order that trades at once pays as taker.
        if made is not command and command.order_id in takers:
            done.append(True)
            return made
        return command

    takers = {deal.taker_order_id for deal in planted.life.deals if deal.taker_fee}
    assert planted.change(MARKET, change)
    planted.write()
    report = judge(planted)
    expect(report, "market-1 and ledger", "not all are in its journal as they were emitted")
    expect(report, "deals of market-1", "taker_fee is")


def test_a_shard_that_misses_an_entry(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    disk = planted.life.disks[SHARD]
    _drop_newest(disk, 3)
    planted.write()
    report = judge(planted)
    expect(report, SHARD, "the lake has its entries up to")


def test_a_shard_whose_copy_is_old_while_the_market_has_forgotten(tmp_path: Path) -> None:
    planted = Planted(tmp_path, lived())
    planted.life.forget(0)
    settled = next(
        entry.seq
        for entry in reversed(planted.life.disks[SHARD].entries)
        if b'["se",' in entry.body
    )
    _drop_newest(planted.life.disks[SHARD], newest(planted.life, SHARD) - settled + 1)
    planted.write()
    expect(judge(planted), "market-1 and ledger-0", "are forgotten")


def test_a_market_whose_copy_is_old(tmp_path: Path) -> None:
    planted = Planted(tmp_path, lived())
    _drop_newest(planted.life.disks[MARKET], newest(planted.life, MARKET) // 2)
    planted.write()
    expect(judge(planted), "market-1 and ledger-0", "that were emitted")


def _drop_newest(disk: Any, count: int) -> None:
    del disk.entries[-count:]


def test_an_entry_that_was_skipped(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    disk = planted.life.disks[SHARD]
    bodies = [entry.body for entry in disk.entries]
    at = next(n for n, body in enumerate(bodies) if b'["se",' in body and b'["le",' in body)
    record = msgspec.json.decode(bodies[at], type=c.LedgerRecord)
    settle = next(each for each in record.commands if type(each) is c.Settle)
    later = msgspec.structs.replace(settle, first_out_seq=settle.first_out_seq + 1)
    commands = [later if each is settle else each for each in record.commands]
    body = msgspec.json.encode(c.LedgerRecord(record.time_us, commands, record.told))
    disk.entries[at] = msgspec.structs.replace(disk.entries[at], body=body)
    planted.write()
    expect(judge(planted), SHARD, f"entries out of order (in entry {at + 1} of stream ledger-0)")


def test_a_recorded_hash_that_does_not_come_out(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    disk = planted.life.disks[MARKET]
    record = msgspec.json.decode(disk.entries[9].body, type=c.MarketRecord)
    commands = [c.Checkpoint("0" * 64) if type(each) is c.Checkpoint else each
                for each in record.commands]  # fmt: skip
    body = msgspec.json.encode(c.MarketRecord(record.time_us, commands, record.told))
    disk.entries[9] = msgspec.structs.replace(disk.entries[9], body=body)
    planted.write()
    expect(judge(planted), MARKET, "replay differs from what ran (in entry 10")


def test_a_record_that_tells_what_did_not_happen(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    disk = planted.life.disks[MARKET]
    records = [msgspec.json.decode(entry.body, type=c.MarketRecord) for entry in disk.entries]
    at = next(n for n, record in enumerate(records) if record.told)
    body = msgspec.json.encode(msgspec.structs.replace(records[at], told=records[at].told[1:]))
    disk.entries[at] = msgspec.structs.replace(disk.entries[at], body=body)
    planted.write()
    expect(judge(planted), MARKET, f"replay tells otherwise than what ran (in entry {at + 1}")


def test_money_that_came_from_nowhere(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    richer = first(c.Update, lambda each: msgspec.structs.replace(each, change=each.change + 10**6))
    assert planted.change(SHARD, richer)
    planted.write()
    expect(judge(planted), "balances of ledger-0", "change is")


def test_a_byte_that_was_changed(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    planted.write()
    path = planted.places.journals / f"{SHARD}.db"
    data = bytearray(path.read_bytes())
    at = data.index(b'["up"')
    data[at + 2] ^= 1
    path.write_bytes(data)
    expect(judge(planted), SHARD, "its CRC does not match")


def test_dedupe_keys_that_are_gone(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    disk = planted.life.disks[SHARD]
    disk.keys |= {b"key %d" % n: 1 + n // 100 for n in range(500)}
    planted.write()
    report = judge(planted)
    assert report.findings == []
    assert [one.keys for one in report.streams if one.stream == SHARD] == [500]
    with closing(sqlite3.connect(planted.places.journals / f"{SHARD}.db")) as db, db:
        db.execute("DELETE FROM keys WHERE first = (SELECT max(first) FROM keys)")
    expect(judge(planted), SHARD, "dedupe keys from")


def test_a_snapshot_of_another_state(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    planted.write()
    seq = newest(planted.life, MARKET) - 5
    reader = read_sqlite(planted.places.journals, MARKET)
    reader.save_snapshot(seq, dump(machine_at(planted.life.disks[MARKET], seq - 40)))
    reader.close()
    report = judge(planted)
    expect(report, MARKET, f"the snapshot of entry {seq} is of another state")


def test_a_snapshot_that_is_damaged(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    seq = newest(planted.life, MARKET) - 5
    planted.kept[MARKET] = [seq]
    planted.write()
    [path] = planted.places.journals.glob(f"{MARKET}.*.snapshot")
    data = bytearray(path.read_bytes())
    data[-7] ^= 4
    path.write_bytes(data)
    expect(judge(planted), MARKET, f"the snapshot of entry {seq} does not verify")


def test_a_journal_that_is_missing(tmp_path: Path) -> None:
    planted = Planted(tmp_path, lived())
    planted.life.forget(1)
    del planted.life.disks["ledger-1"]
    planted.write()
    expect(judge(planted), "streams", "ledger-1: there is no such journal, though market-1")


# Defects of the lake.


def replace_rows(
    planted: Planted, table: str, change: Callable[[pa.Table], pa.Table]
) -> tuple[FileEntry, Lake]:
    """Have the lake hold other rows in the largest file of a table, as good as any."""
    lake = Lake(str(planted.places.lake))
    manifest = lake.manifest()
    entry = max((f for f in manifest.files if f.table == table), key=lambda f: f.rows)
    rows = change(lake.read(entry))
    made = lake.write(
        table, entry.part, entry.first_seq, entry.last_seq, rows, compacted=manifest.version
    )
    lake.commit(manifest, add=made, remove=[entry])
    return entry, lake


def with_column(rows: pa.Table, name: str, change: Callable[[list[Any]], list[Any]]) -> pa.Table:
    at = rows.schema.get_field_index(name)
    field = rows.schema.field(name)
    return rows.set_column(at, field, pa.array(change(rows[name].to_pylist()), field.type))


@pytest.mark.parametrize(
    ("table", "column"), [("deals", "taker_user"), ("orders", "source"), ("balances", "detail")]
)
def test_a_row_of_the_lake_that_was_changed(table: str, column: str, tmp_path: Path) -> None:
    planted = whole(tmp_path)
    planted.write()

    def change(values: list[Any]) -> list[Any]:
        other = values[3] + 1 if isinstance(values[3], int) else f"{values[3]}x"
        return [*values[:3], other, *values[4:]]

    replace_rows(planted, table, lambda rows: with_column(rows, column, change))
    report = judge(planted)
    expect(report, f"{table} of ", f"{column} is ")


@pytest.mark.parametrize("table", ["deals", "orders", "balances"])
def test_a_row_of_the_lake_that_is_missing(table: str, tmp_path: Path) -> None:
    planted = whole(tmp_path)
    planted.write()
    replace_rows(planted, table, lambda rows: pa.concat_tables([rows[:2], rows[3:]]))
    expect(judge(planted), f"{table} of ", "is missing")


@pytest.mark.parametrize(("table", "key"), [("deals", "deal_id"), ("balances", "step")])
def test_a_row_of_the_lake_that_is_there_twice(table: str, key: str, tmp_path: Path) -> None:
    planted = whole(tmp_path)
    planted.write()

    def double(rows: pa.Table) -> pa.Table:
        again = with_column(rows[:1], key, lambda values: [values[0] + 1_000])
        return pa.concat_tables([rows, again])

    replace_rows(planted, table, double)
    expect(judge(planted), f"{table} of ", "is no row of the journal")


def test_a_file_of_the_lake_that_is_gone(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    planted.write()
    lake = Lake(str(planted.places.lake))
    entry = next(f for f in lake.manifest().files if f.table == "deals")
    (planted.places.lake / entry.path).unlink()
    report = judge(planted)
    expect(report, "deals of market-1", "it is gone")


def test_a_bar_that_is_not_what_its_deals_make(tmp_path: Path) -> None:
    planted = whole(tmp_path)
    planted.write()
    more = functools.partial(with_column, name="volume", change=lambda v: [v[0] + 1, *v[1:]])
    replace_rows(planted, "bars", more)
    report = judge(planted)
    expect(report, "check bars", "a bar is not that of its deals")
