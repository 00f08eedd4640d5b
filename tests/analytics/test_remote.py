"""A lake is the same wherever its bytes lie: in a directory, in fsspec's memory, or behind S3."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pyarrow as pa
import pytest

from analytics import history, lake_compact, market_data, warehouse
from analytics.history_rows import Span
from analytics.lake import FileEntry, Lake, LakeError, Manifest, StaleManifest
from analytics.lake_manifest import MANIFEST_NAME, RETIRED_SUFFIX
from analytics.lake_store import LOCK_NAME, open_store
from analytics.live import Live
from tests.analytics import s3_server
from tests.analytics.filled_lake import deal, flush, table_of
from tests.analytics.lake_rows import deals

SECOND = 1_000_000
EAGER = lake_compact.Settings(factor=2)
# Whatever a key may have in it that a URL, a query or SQL would read in its own way.
ODD = "it's ä b+%41/env=a & c"


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    with s3_server.running() as running, s3_server.reached(running):
        yield running


@pytest.fixture(params=["directory", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a lake may lie; nothing is there yet."""
    if request.param == "directory":
        yield f"{tmp_path}/{ODD}/lake"
    elif request.param == "memory":
        name = uuid4().hex
        yield f"memory://{name}/{ODD}/lake"
        system = fsspec.filesystem("memory")
        if system.exists(f"/{name}"):
            system.rm(f"/{name}", recursive=True)
    else:
        request.getfixturevalue("server")
        yield f"{s3_server.bucket()}/{ODD}/lake"


@pytest.fixture
def lake(url: str) -> Lake:
    return Lake(url)


def fill(lake: Lake) -> None:
    """Two markets and an account, in several files each."""
    for n in range(1, 4):
        flush(lake, "deals", 1, [deal(n, 40 * n * SECOND, f"{n}.5", "2")])
        change = {"time": n * SECOND, "change": Decimal(n), "balance": Decimal(n)}
        flush(lake, "balances", 0, [{"seq": n, "user": 10, **change}])
    flush(lake, "deals", 3, [deal(1, SECOND, "7", "1", taker_user=30)])


def live_file(lake: Lake, table: str, part: int) -> FileEntry:
    return next(f for f in lake.manifest().files if (f.table, f.part) == (table, part))


def own_names(url: str) -> set[str]:
    return set(open_store(url).names()) - {LOCK_NAME}


def compact(lake: Lake) -> list[str]:
    """Merge all there is to merge; what was replaced."""
    replaced: list[str] = []
    while merges := lake_compact.plan(lake.manifest(), "1970-01-02", EAGER):
        for each in merges:
            base = lake.manifest()
            made = lake_compact.merge(lake, each, base.version)
            lake.commit(base, add=made, remove=each.files)
            replaced += [entry.path for entry in each.files]
    return sorted(replaced)


def test_what_is_committed_is_what_another_reads(url: str, lake: Lake) -> None:
    assert lake.manifest() == Manifest()
    assert own_names(url) == set()
    for beside in ("", "2", "-old"):
        Lake(url + beside).commit(Manifest(), watermarks={"market-9": 1})
    rows = deals(1, 100)
    entries = lake.write("deals", 3, 1, 500, rows)
    live = lake.commit(lake.manifest(), add=entries, watermarks={"market-3": 500})
    assert Lake(url).manifest() == live
    assert Lake(url).read(live.files[0]).equals(rows)
    assert pa.concat_tables(Lake(url).stream(live.files[0], 7)).equals(rows)
    # Nothing of the neighbours, whose names begin alike.
    assert own_names(url) == {MANIFEST_NAME, entries[0].path}
    store = open_store(url)
    assert store.size(entries[0].path) == entries[0].bytes
    assert store.size("deals") is None or not url.startswith(("s3:", "memory:"))


def test_the_second_of_two_writers_is_refused(url: str, lake: Lake) -> None:
    base = lake.manifest()
    first = lake.commit(base, watermarks={"market-3": 5})
    with pytest.raises(StaleManifest, match="version 1 is stored, not 0") as caught:
        Lake(url).commit(base, watermarks={"market-3": 6})
    assert f"{url}/{MANIFEST_NAME}" in str(caught.value)
    assert lake.manifest() == first


def test_what_is_replaced_stays_for_its_readers(url: str, lake: Lake) -> None:
    fill(lake)
    before = lake.manifest()
    replaced = compact(lake)
    files = {entry.path for entry in lake.manifest().files}
    marks = {path + RETIRED_SUFFIX for path in replaced}
    assert len(replaced) == 9
    assert own_names(url) == {MANIFEST_NAME} | files | set(replaced) | marks
    assert [len(lake.read(entry)) for entry in before.files] == [e.rows for e in before.files]
    now_s = time.time()
    assert lake.sweep(60, now_s) == []
    assert lake.sweep(60, now_s + 120) == replaced
    assert own_names(url) == {MANIFEST_NAME} | files
    gone = next(entry for entry in before.files if entry.path in replaced)
    with pytest.raises(LakeError, match="restore it from a backup"):
        lake.read(gone)
    open_store(url).remove(gone.path)


def test_the_age_of_a_file_is_the_same_in_every_zone(
    url: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.commit(Manifest(), watermarks={"market-3": 1})
    for zone in ("UTC", "Asia/Kolkata", "America/Los_Angeles"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        modified_s = open_store(url).modified_s(MANIFEST_NAME)
        assert modified_s is not None
        assert abs(modified_s - time.time()) < 60
    monkeypatch.undo()
    time.tzset()
    assert open_store(url).modified_s("none") is None


def test_a_store_that_tells_no_zone_is_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://{uuid4().hex}/lake"
    store = open_store(url)
    store.put("a", b"")
    naive = datetime(2026, 11, 22)  # noqa: DTZ001
    system = fsspec.filesystem("memory")
    monkeypatch.setattr(type(system), "modified", lambda self, path: naive)
    with pytest.raises(OSError, match=r"lake/a: the store tells no time zone"):
        store.modified_s("a")


def answers(connection: Any) -> list[Any]:
    bars = market_data.kline(connection, 1, Span(0, 179), 60)
    return [bars, history.balance_history(connection, 10)]


def test_a_warehouse_answers_from_what_is_live(url: str, lake: Lake) -> None:
    fill(lake)
    with closing(warehouse.connect(url)) as connection:
        before = answers(connection)
        assert [(bar.open, bar.close, bar.volume) for bar in before[0]] == [
            (Decimal("1.5"), Decimal("1.5"), 2),
            (Decimal("2.5"), Decimal("2.5"), 2),
            (Decimal("3.5"), Decimal("3.5"), 2),
        ]
        assert [change.change for change in before[1]] == [3, 2, 1]
        compact(lake)
        lake.sweep(0, time.time() + 60)
        warehouse.refresh(connection, url)
        assert answers(connection) == before
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(answers, connection.cursor()) for _ in range(6)]
            assert all(each.result() == before for each in asked)


def test_files_and_tail_are_one(url: str, lake: Lake) -> None:
    fill(lake)
    late = [deal(4, 130 * SECOND, "7.5", "1"), deal(5, 150 * SECOND, "8.5", "1")]
    with closing(Live(url, {"narrow": 3})) as live:
        live.extend(("deals", 1), table_of("deals", late), 5)
        for _ in range(2):
            moment = live.moment(lake.manifest(), lambda place: 3, lambda user: [0])
            asked = [
                live.ask(
                    "narrow",
                    moment,
                    lambda connection, scope: (
                        market_data.kline(connection, 1, Span(0, 179), 60, scope=scope),
                        history.balance_history(connection, 10, scope=scope),
                        history.newest_deals(connection, 1, 0, 9, scope=scope),
                    ),
                )
                for _ in range(4)
            ]
            for each in asked:
                bars, changes, newest = each.future.result()
                assert [(bar.close, bar.volume) for bar in bars] == [
                    (Decimal("1.5"), 2),
                    (Decimal("2.5"), 2),
                    (Decimal("8.5"), 4),
                ]
                assert len(changes) == 3
                assert [row.deal_id for row in newest] == [5, 4, 3, 2, 1]
            compact(lake)


def spoilt(data: bytes) -> dict[str, bytes | None]:
    """What may be found in place of a file."""
    ways: dict[str, bytes | None] = {"half-written": data[: len(data) // 2], "empty": b""}
    return ways | {"zeros": bytes(len(data)), "foreign": b"<html>" * 99, "gone": None}


def test_a_spoilt_object_is_named_and_the_rest_answers(url: str, lake: Lake) -> None:
    fill(lake)
    store, entry = open_store(url), live_file(lake, "deals", 3)
    data = store.get(entry.path)
    with closing(warehouse.connect(url)) as connection:
        uses: dict[str, Callable[[], object]] = {
            "read": lambda: lake.read(entry),
            "stream": lambda: list(lake.stream(entry, 9)),
            "question": lambda: history.newest_deals(connection, 3, 0, 1),
            "commit": lambda: lake.commit(lake.manifest(), add=[entry], remove=[entry]),
        }
        for way, found in spoilt(data).items():
            if found is None:
                store.remove(entry.path)
            else:
                store.put(entry.path, found)
            for name, use in uses.items():
                # A commit looks at the size alone, for it must not take as long as reading does.
                if (way, name) != ("zeros", "commit"):
                    with pytest.raises(LakeError) as caught:
                        use()
                    assert entry.path in str(caught.value), (way, name)
            assert len(answers(connection)[1]) == 3
            assert len(lake.read(live_file(lake, "bars", 3))) == 1
    assert lake.commit(lake.manifest(), watermarks={"market-1": 6}).watermarks == {"market-1": 6}


def test_a_half_written_manifest_is_named(url: str, lake: Lake) -> None:
    fill(lake)
    store = open_store(url)
    whole = store.get(MANIFEST_NAME)
    for data in (whole[:-30], b"", b"<html>"):
        store.put(MANIFEST_NAME, data)
        for use in (lake.manifest, lambda: lake.sweep(0, 1e12), lambda: warehouse.connect(url)):
            with pytest.raises(LakeError, match=MANIFEST_NAME):
                use()
    store.put(MANIFEST_NAME, whole)
    assert len(lake.manifest().files) == 11


def test_what_lies_beside_is_left_alone(url: str, lake: Lake) -> None:
    fill(lake)
    foreign = ["notes.txt", "deals/notes.txt", "deals/market=1/date=1970-01-01/x.parquet"]
    store = open_store(url)
    for name in foreign:
        store.put(name, b"mine")
    lost = lake.write("deals", 5, 1, 300, deals(8))
    assert lake.sweep(60, time.time() + 120) == [entry.path for entry in lost]
    assert set(foreign) < own_names(url)
    with closing(warehouse.connect(url)) as connection:
        assert len(answers(connection)[1]) == 3


def test_a_flush_that_fails_half_way_is_done_again(
    url: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = lake.commit(lake.manifest(), watermarks={"market-3": 1})
    rows = table_of("deals", [deal(n, n * 40_000 * SECOND, "1", "1") for n in range(1, 5)])
    store = type(open_store(url))
    put, names = store.put, []

    def failing(self: Any, name: str, data: bytes) -> None:
        names.append(name)
        if len(names) == 2:
            raise OSError("connection reset")
        put(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", failing)
        with pytest.raises(OSError, match="connection reset"):
            lake.write("deals", 3, 2, 9, rows.set_column(12, "seq", pa.array([2, 3, 4, 5])))
    assert lake.manifest() == base
    assert own_names(url) == {MANIFEST_NAME, names[0]}
    entries = lake.write("deals", 3, 2, 9, rows.set_column(12, "seq", pa.array([2, 3, 4, 5])))
    assert len(lake.commit(base, add=entries).files) == 2
    assert own_names(url) == {MANIFEST_NAME, *(entry.path for entry in entries)}


def test_a_running_loop_and_many_threads_share_a_lake(url: str, lake: Lake) -> None:
    async def program() -> int:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        turning = asyncio.create_task(turn())
        base = lake.manifest()  # in the loop's own thread
        writing = (
            asyncio.to_thread(lake.write, "deals", part, 1, 300, deals(part, 20))
            for part in range(1, 9)
        )
        files = [entry for written in await asyncio.gather(*writing) for entry in written]
        live = await asyncio.to_thread(lake.commit, base, add=files)
        read = await asyncio.gather(*(asyncio.to_thread(lake.read, entry) for entry in live.files))
        assert sum(map(len, read)) == 160
        assert len(lake.read(live.files[0])) == 20
        turning.cancel()
        return turns

    assert asyncio.run(program()) > 10
    assert len(Lake(url).manifest().files) == 8
    ended = threading.Thread(target=lambda: Lake(url).commit(lake.manifest()))
    ended.start()
    ended.join()
    assert lake.manifest().version == 2
