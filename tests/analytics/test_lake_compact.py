"""Compaction changes which files there are, and nothing that anybody could read from them."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from analytics import warehouse
from analytics.lake import SCHEMAS, SORT_KEYS, FileEntry, Lake, LakeError, Manifest, bars_of
from analytics.lake_compact import Merge, Settings, merge, plan
from analytics.lake_store import open_store
from tests.analytics.filled_lake import deal, flush, table_of
from tests.analytics.lake_rows import NOON, deals, naive_bars, table

ROOT = Path(__file__).parents[2]
NEXT_DATE = "2026-11-23"
EAGER = Settings(factor=2)


def rows_of(name: str, chance: random.Random, count: int) -> pa.Table:
    """Rows of one date with rising entries, of few users so that each is in every file."""
    if name in ("deals", "bars"):
        return deals(chance.randrange(1000), count, seconds=chance.choice((0.01, 10)))
    shared = {"time": NOON, "ctime": NOON, "ftime": NOON, "asset": 1, "user": 0}
    rows: list[dict[str, Any]] = []
    for n in range(1, count + 1):
        many = {"user": chance.choice((1, 1, 2, chance.randrange(9))), "seq": n // 3 + 1}
        some = {"step": n % 3, "price": Decimal(chance.randrange(10**9)).scaleb(-8)}
        rows.append(shared | many | some | {"order_id": n * 4096 + 1})
    return table_of(name, rows)


def flushed(lake: Lake, name: str, rows: pa.Table, chance: random.Random) -> Manifest:
    """The rows in files of their entries, cut at random and made live."""
    seqs = rows["seq"].to_pylist()
    places = range(1, len(rows))
    cuts = [place for place in places if seqs[place] != seqs[place - 1] and chance.random() < 0.1]
    added: list[FileEntry] = []
    for first, until in pairwise([0, *cuts, len(rows)]):
        piece = rows[first:until]
        made = bars_of(piece) if name == "bars" else piece
        added += lake.write(name, 3, seqs[first], seqs[until - 1], made)
    return lake.commit(lake.manifest(), add=added)


def compact(lake: Lake, today: str) -> int:
    """Do all there is to do; how many merges it took."""
    count = 0
    while merges := plan(lake.manifest(), today, EAGER):
        for each in merges:
            base = lake.manifest()
            lake.commit(base, add=merge(lake, each, base.version), remove=each.files)
            count += 1
    return count


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few rows at a time that a merge takes many turns and row groups."""
    for name, value in (("lake.GROUP_ROWS_MAX", 50), ("lake_compact.GROUP_ROWS_MAX", 50)):
        monkeypatch.setattr(f"analytics.{name}", value)
    monkeypatch.setattr("analytics.lake_compact._WAITING_ROWS_MAX", 100)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", SCHEMAS)
def test_the_rows_are_the_same_before_and_after(tmp_path: Path, name: str, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    lake = Lake(str(tmp_path) if seed % 2 else f"memory://{uuid4().hex}")
    rows = rows_of(name, chance, chance.choice((5, 60, 400)))
    before = flushed(lake, name, rows, chance)
    if len(before.files) < 2:
        assert compact(lake, NEXT_DATE) == 0
        return
    everything = pa.concat_tables([lake.read(file) for file in before.files])
    expected = bars_of(rows) if name == "bars" else everything
    [made] = merge(lake, Merge(before.files), before.version)
    data = open_store(lake.url).get(made.path)
    seqs = before.files[0].first_seq, before.files[-1].last_seq
    assert lake.write(name, 3, *seqs, expected, compacted=before.version) == [made]
    assert open_store(lake.url).get(made.path) == data
    assert made.path.endswith(f"-c{before.version}.parquet")
    assert lake.read(made).equals(expected.sort_by([(key, "ascending") for key in SORT_KEYS[name]]))
    assert compact(lake, NEXT_DATE) >= 1
    [final] = lake.manifest().files
    assert lake.read(final).equals(lake.read(made))


def test_bars_of_flushes_become_those_of_all_deals(tmp_path: Path) -> None:
    lake, rows = Lake(str(tmp_path)), deals(5, 2000, seconds=1)
    manifest = flushed(lake, "bars", rows, random.Random(5))
    [made] = merge(lake, Merge(manifest.files[:64]), manifest.version)
    count = sum(lake.read(made)["deals"].to_pylist())
    assert lake.read(made).to_pylist() == naive_bars(rows[:count].to_pylist())


def test_parts_that_do_not_fit_one_bar_stay(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    row = deals(1, 1).to_pylist()[0] | {"deal": Decimal(1)}
    texts = "4e17 5e17 999999999999999999.99999999999999999999 1e-20 6e17 1"
    amounts = [Decimal(text) for text in texts.split()]
    added = []
    for n, amount in enumerate(amounts, 1):
        one = row | {"deal_id": n, "seq": n, "amount": amount, "price": Decimal(n)}
        added += lake.write("bars", 3, n, n, bars_of(table("deals", [one])))
    [made] = merge(lake, Merge(tuple(added)), 0)
    bars = lake.read(made).to_pylist()
    ids = [(bar["first_deal_id"], bar["last_deal_id"]) for bar in bars]
    assert ids == [(1, 2), (3, 3), (4, 6)]
    assert [(bar["open"], bar["close"], bar["high"], bar["low"]) for bar in bars] == [
        (1, 2, 2, 1),
        (3, 3, 3, 3),
        (4, 6, 6, 4),
    ]
    assert [str(bar["volume"]) for bar in bars] == [
        "900000000000000000.00000000000000000000",
        "999999999999999999.99999999999999999999",
        "600000000000000001.00000000000000000001",
    ]
    [again] = merge(lake, Merge((made, *lake.write("bars", 3, 7, 7, bars_of(rows_late())))), 1)
    assert lake.read(again)[: len(bars)].to_pylist() == bars


def rows_late() -> pa.Table:
    return deals(2, 1, start=NOON + timedelta(minutes=5))


def test_a_deal_in_two_bars_is_a_fault(tmp_path: Path) -> None:
    lake, rows = Lake(str(tmp_path)), deals(3, 9, seconds=0.01)
    files = [lake.write("bars", 3, n, n, bars_of(rows[2 * n : 2 * n + 3]))[0] for n in (1, 2)]
    with pytest.raises(LakeError, match="tell of deal") as caught:
        merge(lake, Merge(tuple(files)), 0)
    assert files[0].path in str(caught.value)


def test_a_warehouse_answers_the_same(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    chance = random.Random(7)
    for n in range(1, 40):
        at_us = 40_000_000 * n
        sides = {"taker_order_id": 4096 * (n // 3 + 1) + 1, "maker_order_id": 8193}
        flush(lake, "deals", 1, [deal(n, at_us, f"{chance.randrange(1, 99)}.5", "2", **sides)])
        done = {"order_id": n * 4096 + 1, "seq": n, "ctime": at_us - 9, "ftime": at_us}
        flush(lake, "orders", 1, [done | {"user": n % 3}])
        change = {"time": at_us, "change": Decimal(n), "balance": Decimal(n)}
        flush(lake, "balances", 0, [{"seq": n, "user": n % 3, **change}])
    asked = (
        "FROM kline('BTC_USDT', 0, 7200, 60)",
        "FROM kline(1, 0, 7200, 3600, from_deals := true)",
        *("FROM bars_1m ORDER BY minute", "FROM deals ORDER BY deal_id"),
        *("FROM orders ORDER BY order_id", "FROM balances ORDER BY seq"),
        *("FROM order_deals(8193)", "FROM finished(1, 1) ORDER BY order_id"),
        "FROM balance_history(2) ORDER BY seq",
    )
    connection = warehouse.connect(str(tmp_path))
    before = [connection.execute(each).fetchall() for each in asked]
    assert compact(lake, "1970-01-02") >= 4
    assert len(lake.manifest().files) == 4
    warehouse.refresh(connection, str(tmp_path))
    assert [connection.execute(each).fetchall() for each in asked] == before
    assert all(before)


@pytest.fixture
def two(tmp_path: Path) -> Manifest:
    """Two live files of a lake in tmp_path."""
    lake, rows = Lake(str(tmp_path)), deals(9, 400, seconds=1)
    seqs = rows["seq"].to_pylist()
    cut = next(n for n in range(200, 400) if seqs[n] != seqs[n - 1])
    added = lake.write("deals", 3, 1, seqs[cut] - 1, rows[:cut])
    added += lake.write("deals", 3, seqs[cut], seqs[-1], rows[cut:])
    return lake.commit(lake.manifest(), add=added)


def test_a_crash_before_the_commit_changes_nothing(tmp_path: Path, two: Manifest) -> None:
    lake = Lake(str(tmp_path))
    [lost] = merge(lake, Merge(two.files), two.version)
    data = (tmp_path / lost.path).read_bytes()
    assert Lake(str(tmp_path)).manifest() == two
    assert lake.sweep(60, time.time() + 120) == [lost.path]
    assert sum(len(lake.read(file)) for file in two.files) == 400
    assert merge(lake, Merge(two.files), two.version) == [lost]
    assert (tmp_path / lost.path).read_bytes() == data
    live = lake.commit(two, add=[lost], remove=two.files)
    assert live.files == (lost,)
    assert lake.sweep(60, time.time() + 120) == sorted(file.path for file in two.files)


def _flipped(data: bytes) -> bytes:
    """One bit of a value is another, and everything still looks like a file."""
    middle = len(data) // 3
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:-9], "bytes, not"),
        (lambda data: bytes(len(data)), "(?i)parquet"),
        (_flipped, "(?i)crc|corrupt|checksum|decompress|thrift"),
        (None, "it is gone"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_file_is_named_and_nothing_written(
    tmp_path: Path, two: Manifest, place: int, damage: Callable[[bytes], bytes] | None, why: str
) -> None:
    store, path = open_store(str(tmp_path)), two.files[place].path
    if damage is None:
        store.remove(path)
    else:
        store.put(path, damage(store.get(path)))
    names = store.names()
    with pytest.raises(LakeError, match=why) as caught:
        merge(Lake(str(tmp_path)), Merge(two.files), two.version)
    assert path in str(caught.value)
    assert store.names() == names
    assert Lake(str(tmp_path)).manifest() == two


def test_a_file_of_other_rows_is_named(tmp_path: Path, two: Manifest) -> None:
    lake, store = Lake(str(tmp_path)), open_store(str(tmp_path))
    first, second = two.files
    for others, why in (
        (deals(9, 400, start=NOON + timedelta(days=1), seconds=1), f"not of {first.date}"),
        (deals(9, 10), "10 rows, not"),
        (deals(9, first.rows, seconds=0.001), "rows of entries|bytes, not"),
        (bars_of(deals(9, 400)), "other columns"),
    ):
        name = "bars" if "open" in others.column_names else "deals"
        [other] = lake.write(name, 4, 1, 10**6, others)
        store.put(first.path, store.get(other.path))
        lying = replace(first, bytes=other.bytes)
        with pytest.raises(LakeError, match=why) as caught:
            merge(lake, Merge((lying, second)), two.version)
        assert first.path in str(caught.value)


def test_rows_of_two_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    order = {"order_id": 4097, "ctime": NOON, "ftime": NOON}
    files = [
        lake.write("orders", 1, n, n, table_of("orders", [order | {"seq": n}])) for n in (1, 2)
    ]
    late, early = deals(1, 20, seconds=1), deals(1, 10, seconds=1)
    shifted = early.set_column(12, late.schema.field("seq"), pa.array([10**6] * 10))
    twice = [lake.write("deals", 1, 1, 999, late), lake.write("deals", 1, 10**6, 10**6, shifted)]
    names = open_store(str(tmp_path)).names()
    for pair in (files, twice):
        with pytest.raises(LakeError, match=r"do not grow.*nothing was written") as caught:
            merge(lake, Merge((*pair[0], *pair[1])), 7)
        assert "-c7.parquet" in str(caught.value)
    assert open_store(str(tmp_path)).names() == names


# Tells by how many bytes the merge of all files of a lake made the process grow.
_CHILD = """
import resource, sys
from analytics.lake import Lake
from analytics.lake_compact import Merge, merge
lake = Lake(sys.argv[1])
manifest = lake.manifest()
list(lake.stream(manifest.files[0], 1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
[made] = merge(lake, Merge(manifest.files), manifest.version)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(made.rows, (after - before) * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    chance, count, added, decoded = random.Random(1), 250_000, [], 0
    quantities = pa.array([Decimal(chance.randrange(10**12)) for _ in range(count)])
    for place in range(8):
        numbers = range(place * count + 1, place * count + count + 1)
        columns = dict.fromkeys(SCHEMAS["balances"].names)
        columns |= {"user": [chance.randrange(50_000) for _ in numbers], "seq": numbers}
        columns |= {"deal_id": numbers, "order_id": numbers}
        same = {"asset": 1, "time": NOON, "business": "trade", "business_id": 0, "step": 0}
        columns |= {name: [value] * count for name, value in (same | {"detail": ""}).items()}
        columns |= dict.fromkeys(("change", "balance", "price", "amount"), quantities)
        arrays = [
            pa.nulls(count, field.type)
            if columns[field.name] is None
            else pa.array(columns[field.name]).cast(field.type)
            for field in SCHEMAS["balances"]
        ]
        rows = pa.Table.from_arrays(arrays, schema=SCHEMAS["balances"])
        added += lake.write("balances", 0, numbers[0], numbers[-1], rows)
        decoded += rows.nbytes
    lake.commit(lake.manifest(), add=added)
    command = [sys.executable, "-c", _CHILD, str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    merged, grown = map(int, told.split())
    assert merged == 8 * count
    # All rows in memory just once, not even sorted, would be more.
    assert grown < decoded, (grown, decoded)
