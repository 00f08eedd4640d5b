"""Files are written once, made live at one point, and removed when no reader can need them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analytics.lake import (
    SCHEMAS,
    SORT_KEYS,
    FileEntry,
    Lake,
    LakeError,
    Manifest,
    StaleManifest,
    bars_of,
)
from analytics.lake_schema import BLOOM_COLUMNS, DICTIONARY_COLUMNS
from analytics.lake_store import LOCK_NAME, open_store
from tests.analytics.lake_rows import NOON, deals, table

LATE = NOON + timedelta(hours=11, minutes=59)
FOLDER = "deals/market=3/date=2026-11-22"


@pytest.fixture(params=["directory", "file://", "memory://"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory://":
        name = f"memory://{uuid4().hex}/lake"
        yield name
        system, root = fsspec.core.url_to_fs(name)
        if system.exists(root):
            system.rm(root, recursive=True)
    else:
        yield f"{request.param.removeprefix('directory')}{tmp_path}/a/lake"


@pytest.fixture
def lake(url: str) -> Lake:
    return Lake(url)


def _store(url: str, entries: list[FileEntry]) -> dict[str, bytes]:
    return {entry.path: open_store(url).get(entry.path) for entry in entries}


def _orders(count: int) -> pa.Table:
    chance = random.Random(count)
    numbers = {"side": 1, "type": 1, "ref_user": 0, "source": "api"}
    quantities = "price amount left taker_fee maker_fee ref_rate deal_stock deal_money deal_fee"
    same = numbers | dict.fromkeys(quantities.split(), Decimal("0.5"))
    rows = [
        same | {"order_id": n, "user": chance.randrange(5), "ctime": LATE, "seq": n}
        | {"ftime": NOON + timedelta(hours=6 * chance.randrange(4))}
        for n in range(1, count + 1)
    ]  # fmt: skip
    chance.shuffle(rows)
    return table("orders", rows)


def _balances(count: int) -> pa.Table:
    chance = random.Random(count)
    same = {"asset": 1, "time": NOON, "business": "trade", "business_id": 0, "detail": ""}
    same |= {"change": Decimal(-1), "balance": Decimal(7)}
    rows = [same | {"user": n % 3, "seq": n // 4 + 1, "step": n % 4} for n in range(count)]
    chance.shuffle(rows)
    return table("balances", rows)


def test_a_lake_is_not_there_until_it_is_written(lake: Lake, url: str) -> None:
    assert lake.manifest() == Manifest()
    assert open_store(url).names() == []


def test_a_flush_across_midnight_makes_one_file_a_date(lake: Lake) -> None:
    rows = deals(1, 100, start=LATE, seconds=2)
    entries = lake.write("deals", 3, 5, 5000, rows.set_column(12, "seq", pa.array([7] * 100)))
    assert [entry.date for entry in entries] == ["2026-11-22", "2026-11-23"]
    name = "000000000005-000000005000.parquet"
    assert [entry.path for entry in entries] == [
        f"deals/market=3/date={date}/{name}" for date in ("2026-11-22", "2026-11-23")
    ]
    read = [lake.read(entry) for entry in entries]
    assert [len(part) for part in read] == [entry.rows for entry in entries]
    assert pa.concat_tables(read)["deal_id"].to_pylist() == list(range(1, 101))
    for entry, part in zip(entries, read, strict=True):
        assert {str(when.date()) for when in part["time"].to_pylist()} == {entry.date}


@pytest.mark.parametrize(
    ("name", "rows", "folder"),
    [
        ("deals", deals(2), "deals/market=7/"),
        ("bars", bars_of(deals(2)), "bars/market=7/"),
        ("orders", _orders(50), "orders/market=7/"),
        ("balances", _balances(50), "balances/shard=7/"),
    ],
)
def test_the_same_rows_make_the_same_sorted_bytes(
    lake: Lake, url: str, name: str, rows: pa.Table, folder: str
) -> None:
    entries = lake.write(name, 7, 1, 1000, rows)
    first = _store(url, entries)
    assert all(entry.path.startswith(folder) for entry in entries)
    assert sum(entry.rows for entry in entries) == len(rows)
    for path, data in first.items():
        file = pq.ParquetFile(pa.BufferReader(data))
        assert file.schema_arrow.equals(SCHEMAS[name], check_metadata=True)
        found = file.read()
        keys = list(zip(*(found[key].to_pylist() for key in SORT_KEYS[name]), strict=True))
        assert keys == sorted(keys), path
    backwards = rows.take(list(reversed(range(len(rows))))).replace_schema_metadata({"a": "b"})
    in_pieces = pa.concat_tables([backwards.slice(n, 1) for n in range(len(backwards))])
    assert lake.write(name, 7, 1, 1000, in_pieces) == entries
    assert _store(url, entries) == first


def test_a_file_is_made_to_be_searched(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    [entry] = lake.write("deals", 3, 1, 10**9, deals(3, 32_769, seconds=0.1))
    metadata = pq.ParquetFile(tmp_path / entry.path).metadata
    assert [metadata.row_group(n).num_rows for n in range(2)] == [32_768, 1]
    group = metadata.row_group(0)
    assert [column.column_index for column in group.sorting_columns] == [0]
    for n in range(group.num_columns):
        column = group.column(n)
        assert column.compression == "ZSTD"
        assert column.is_stats_set
        filtered = column.bloom_filter_offset is not None
        assert filtered == (column.path_in_schema in BLOOM_COLUMNS["deals"])
        listed = "RLE_DICTIONARY" in column.encodings
        assert listed == (column.path_in_schema in DICTIONARY_COLUMNS["deals"])


def test_no_rows_make_no_file(lake: Lake, url: str) -> None:
    assert lake.write("deals", 3, 1, 9, SCHEMAS["deals"].empty_table()) == []
    assert open_store(url).names() == []


def _twice(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, rows.slice(5, 1)])


def _float_price(rows: pa.Table) -> pa.Table:
    return rows.set_column(3, "price", rows["price"].cast(pa.float64()))


def _null_price(rows: pa.Table) -> pa.Table:
    return rows.set_column(3, "price", pa.nulls(len(rows), rows["price"].type))


@pytest.mark.parametrize(
    ("name", "seqs", "change", "why"),
    [
        ("trades", (1, 999), lambda rows: rows, "no table 'trades'"),
        ("orders", (1, 999), lambda rows: rows, "columns are not those of orders"),
        ("deals", (1, 999), lambda rows: rows.drop_columns(["price"]), "columns are not those"),
        ("deals", (1, 999), _float_price, "columns are not those"),
        ("deals", (1, 999), _null_price, "price.*null"),
        ("deals", (1, 999), _twice, "two rows of deals have the same deal_id"),
        ("deals", (2, 999), lambda rows: rows, "not 2 to 999"),
        ("deals", (1, 3), lambda rows: rows, "not 1 to 3"),
        ("deals", (0, 999), lambda rows: rows, "no entries"),
        ("deals", (9, 8), lambda rows: rows, "no entries"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    lake: Lake, url: str, name: str, seqs: tuple[int, int], change: Callable[[Any], Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        lake.write(name, 3, *seqs, change(deals(4)))
    assert open_store(url).names() == []


def test_a_commit_makes_everything_live_at_once(lake: Lake, url: str) -> None:
    entries = lake.write("deals", 3, 1, 500, deals(5))
    assert lake.manifest() == Manifest()
    one = lake.commit(lake.manifest(), add=entries, watermarks={"market-3": 500})
    assert Lake(url).manifest() == one
    assert one == Manifest(1, {"market-3": 500}, files=tuple(entries))
    two = lake.commit(one, watermarks={"ledger-0": 9})
    assert Lake(url).manifest() == two == replace(
        one, version=2, watermarks={"market-3": 500, "ledger-0": 9}
    )  # fmt: skip
    assert lake.read(two.files[0]).equals(deals(5))


def test_names_stay_until_others_are_given(lake: Lake) -> None:
    asset: Any = {"asset_id": 1, "name": "BTC", "prec_save": 20, "prec_show": 8}
    one = lake.commit(lake.manifest(), assets=[asset])
    assert lake.commit(one, watermarks={"ledger-0": 1}).assets == (asset,)
    renamed = lake.commit(lake.manifest(), assets=[asset | {"name": "XBT"}])
    assert [each["name"] for each in renamed.assets] == ["XBT"]
    with pytest.raises(ValueError, match="AssetEntry"):
        lake.commit(renamed, assets=[{"asset_id": "1"}])  # type: ignore[typeddict-item]
    assert lake.manifest() == renamed


def test_the_second_of_two_writers_is_refused(lake: Lake, url: str) -> None:
    base = lake.manifest()
    first = lake.commit(base, watermarks={"market-3": 5})
    with pytest.raises(StaleManifest, match="version 1 is stored, not 0") as caught:
        Lake(url).commit(base, watermarks={"market-3": 6})
    assert url.split("/", 3)[-1] in str(caught.value)
    assert lake.manifest() == first


def test_a_commit_that_would_be_wrong_changes_nothing(lake: Lake, url: str) -> None:
    first, second = (lake.write("deals", 3, 1, last, deals(6)) for last in (400, 500))
    live = lake.commit(lake.manifest(), add=first, watermarks={"market-3": 400})
    before = open_store(url).names()
    with pytest.raises(ValueError, match="cover the same entries"):
        lake.commit(live, add=second)
    with pytest.raises(ValueError, match="not live"):
        lake.commit(live, remove=second)
    with pytest.raises(ValueError, match="market-3 is past 399"):
        lake.commit(live, watermarks={"market-3": 399})
    open_store(url).put(second[0].path, b"short")
    with pytest.raises(LakeError, match=r"500\.parquet: 5 bytes, not .*; write it again"):
        lake.commit(live, add=second, remove=first)
    open_store(url).remove(second[0].path)
    with pytest.raises(LakeError, match=r"500\.parquet: it is gone; write it again"):
        lake.commit(live, add=second, remove=first)
    assert lake.manifest() == live
    assert set(open_store(url).names()) < set(before)


def test_a_crash_before_the_commit_leaves_nothing_but_garbage(lake: Lake, url: str) -> None:
    live = lake.commit(lake.manifest(), add=lake.write("deals", 3, 1, 300, deals(7)))
    torn = f"{FOLDER}/000000000301-000000000302.parquet"
    open_store(url).put(f"{torn}.0123456789abcdef.tmp", b"PAR1")
    [lost] = lake.write("deals", 4, 1, 300, deals(8))
    again = Lake(url)
    assert again.manifest() == live
    now_s = time.time()
    assert again.sweep(60, now_s) == []
    assert again.sweep(60, now_s + 120) == [f"{torn}.0123456789abcdef.tmp", lost.path]
    assert again.sweep(60, now_s + 120) == []
    assert again.manifest() == live
    assert again.read(live.files[0]).equals(deals(7))


def test_a_replaced_file_stays_for_its_readers(lake: Lake, url: str) -> None:
    rows = deals(9, 100)
    seqs = rows["seq"].to_pylist()
    cut = next(n for n in range(50, 100) if seqs[n] != seqs[n - 1])
    parts = [lake.write("deals", 3, 1, seqs[cut] - 1, rows[:cut])]
    parts += [lake.write("deals", 3, seqs[cut], seqs[-1], rows[cut:])]
    old = [entry for part in parts for entry in part]
    base = lake.commit(lake.manifest(), add=old)
    merged = pa.concat_tables([lake.read(entry) for entry in base.files])
    new = lake.write("deals", 3, 1, seqs[-1], merged, compacted=base.version)
    assert new[0].path.endswith("-c1.parquet")
    if not url.startswith("memory:"):
        for entry in old:  # written long ago, replaced just now
            os.utime(Path(url.removeprefix("file://")) / entry.path, (1e9, 1e9))
    live = lake.commit(base, add=new, remove=base.files)
    assert live.files == tuple(new)
    now_s = time.time()
    assert lake.sweep(60, now_s) == []
    assert lake.read(old[0]).equals(rows[:cut])
    assert lake.sweep(60, now_s + 120) == sorted(entry.path for entry in old)
    own = [name for name in open_store(url).names() if name != LOCK_NAME]
    assert own == [new[0].path, "manifest.json"]
    with pytest.raises(LakeError, match="restore it from a backup"):
        lake.read(old[0])


def test_what_lies_beside_the_files_changes_nothing(lake: Lake, url: str) -> None:
    live = lake.commit(lake.manifest(), add=lake.write("deals", 3, 1, 300, deals(10)))
    store = open_store(url)
    whole = store.get(live.files[0].path)
    foreign = {
        "notes.txt": b"mine",
        f"{FOLDER}/part-0.parquet": whole,
        f"{FOLDER}/.{live.files[0].path[-20:]}.crc": b"",
    }
    garbage = {
        f"{FOLDER}/000000000301-000000000400.parquet": whole[: len(whole) // 2],
        f"{FOLDER}/000000000401-000000000500.parquet": b"",
        f"{FOLDER}/000000000501-000000000600.parquet": bytes(len(whole)),
        f"{FOLDER}/000000000601-000000000700.parquet": whole,
    }
    for name, data in (foreign | garbage).items():
        store.put(name, data)
    assert lake.manifest() == live
    assert lake.sweep(60, time.time() + 120) == sorted(garbage)
    assert {name: store.get(name) for name in foreign} == foreign
    assert lake.manifest() == live
    assert lake.commit(live, watermarks={"market-3": 300}).files == live.files


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:-9], "(?i)parquet"),
        (lambda data: b"", "(?i)parquet|size"),
        (lambda data: bytes(len(data)), "(?i)parquet"),
    ],
)
def test_a_damaged_file_names_itself(
    lake: Lake, url: str, damage: Callable[[bytes], bytes], why: str
) -> None:
    [entry] = lake.write("deals", 3, 1, 300, deals(11))
    store = open_store(url)
    store.put(entry.path, damage(store.get(entry.path)))
    with pytest.raises(LakeError, match=why) as caught:
        lake.read(entry)
    assert entry.path in str(caught.value)
    [other] = lake.write("deals", 4, 1, 300, deals(12, 10))
    store.put(entry.path, store.get(other.path))
    with pytest.raises(LakeError, match=f"10 rows in {other.bytes} bytes, not 200 in"):
        lake.read(entry)
