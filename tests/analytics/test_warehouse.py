"""What the views show: the live files of one manifest, under current names, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import duckdb
import fsspec.core
import pytest

from analytics import history, market_data, warehouse
from analytics.history_rows import Span
from analytics.lake import FileEntry, Lake, LakeError, MarketEntry
from tests.analytics.filled_lake import MARKETS, deal, flush, lake_of_deals

SECOND = 1_000_000
DAY = 86_400 * SECOND
VIEWS = ["deals", "orders", "bars", "bars_1m", "balances"]


def fill(lake: Lake) -> list[FileEntry]:
    """A few rows in every table, two markets and two days."""
    added = flush(lake, "deals", 1, [deal(1, SECOND, "10", "2"), deal(2, DAY, "11", "1")])
    added += flush(lake, "deals", 3, [deal(1, SECOND, "7", "1", taker_user=30)])
    added += flush(lake, "orders", 1, [{"order_id": 8193, "seq": 3, "ctime": 5, "ftime": DAY}])
    update = {"seq": 1, "time": 5}
    trade = {"seq": 2, "time": 6, "market": 3, "asset": 2, "business": "trade"}
    return added + flush(lake, "balances", 0, [update, trade])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_values(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4:300] = b"\xff" * 296
    path.write_bytes(data)


def spoil_footer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-200:-20] = b"\xff" * 180
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    filled = Lake(str(tmp_path))
    fill(filled)
    return filled


def test_names_stand_beside_numbers(lake: Lake, tmp_path: Path) -> None:
    connection = warehouse.connect(str(tmp_path))
    for question, expected in {
        "SELECT market, market_no, date, price FROM deals ORDER BY ALL": [
            ("BTC_USDT", 1, date(1970, 1, 1), Decimal(10)),
            ("BTC_USDT", 1, date(1970, 1, 2), Decimal(11)),
            ("it's 3", 3, date(1970, 1, 1), Decimal(7)),
        ],
        "SELECT market, market_no, order_id FROM orders": [("BTC_USDT", 1, 8193)],
        "SELECT asset, asset_id, market, market_no, shard FROM balances ORDER BY seq": [
            ("BTC", 1, None, None, 0),
            ("USDT", 2, "it's 3", 3, 0),
        ],
        "SELECT market, close, deals FROM bars_1m WHERE market_no = 3": [("it's 3", 7, 1)],
        "SELECT market, stock, money FROM markets WHERE market_no = 3": [("it's 3", "USDT", "BTC")],
        "SELECT asset FROM assets ORDER BY asset_id": [("BTC",), ("USDT",)],
        "SELECT count(*) FROM lake_files": [(8,)],
        "SELECT market_number('it''s 3'), market_number(3), market_number('none')": [(3, 3, None)],
        "SELECT current_setting('TimeZone')": [("UTC",)],
    }.items():
        assert connection.cursor().execute(question).fetchall() == expected, question


def test_parts_of_a_minute_are_one_bar(tmp_path: Path) -> None:
    deals = [deal(1, 1, "5", "1"), deal(2, 2, "9", "1"), deal(3, 3, "1", "2"), deal(4, 4, "6", "1")]
    lake_of_deals(tmp_path, deals, cuts=[1, 2, 3])
    connection = warehouse.connect(str(tmp_path))
    assert connection.execute("SELECT count(*) FROM bars").fetchall() == [(4,)]
    assert connection.execute(
        "SELECT open, close, high, low, volume, amount, deals, first_deal_id, last_deal_id"
        " FROM bars_1m"
    ).fetchall() == [(5, 6, 9, 1, 5, 22, 4, 1, 4)]


def test_a_lake_without_files_has_empty_views_of_the_same_types(lake: Lake, tmp_path: Path) -> None:
    full, empty = warehouse.connect(str(tmp_path)), warehouse.connect(str(tmp_path / "none"))
    for view in VIEWS:
        assert empty.execute(f"SELECT count(*) FROM {view}").fetchall() == [(0,)]
        shape = f"SELECT column_name, column_type FROM (DESCRIBE {view})"
        assert empty.execute(shape).fetchall() == full.execute(shape).fetchall()
    assert market_data.kline(empty, 1, Span(0, 1000), 60) == []
    assert history.finished_detail(empty, 8193) is None
    assert not (tmp_path / "none").exists()


def test_refresh_shows_what_was_committed_since(lake: Lake, tmp_path: Path) -> None:
    connection = warehouse.connect(str(tmp_path))
    other = connection.cursor()
    renamed: list[MarketEntry] = [{**MARKETS[0], "name": "X_Y"}, MARKETS[1]]
    flush(lake, "deals", 1, [deal(3, 2 * DAY, "12", "1")], names=renamed)
    newest = "SELECT market, max(deal_id) FROM deals WHERE market_no = 1 GROUP BY market"
    assert other.execute(newest).fetchall() == [("BTC_USDT", 2)]
    warehouse.refresh(connection, str(tmp_path))
    assert other.execute(newest).fetchall() == [("X_Y", 3)]
    for name, rows in {"X_Y": 3, "BTC_USDT": 0}.items():
        bars = connection.execute("FROM kline(?, 0, 200000, 86400)", [name]).fetchall()
        assert len(bars) == rows


def test_files_of_other_markets_and_days_stay_unopened(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    for entry in fill(lake):
        if (entry.part, entry.date) != (1, "1970-01-01") and entry.table in ("deals", "bars"):
            spoil_footer(tmp_path / entry.path)
    connection = warehouse.connect(str(tmp_path))
    for market in (1, "BTC_USDT"):
        for interval_s in (10, 60):
            bars = connection.execute("FROM kline(?, 0, 70, ?)", [market, interval_s]).fetchall()
            assert [bar[4] for bar in bars] == [10] * (8 if interval_s == 10 else 2)
    named = "SELECT price FROM deals WHERE market = 'BTC_USDT' AND date = '1970-01-01'"
    assert connection.execute(named).fetchall() == [(10,)]


@pytest.mark.parametrize("harm", [Path.unlink, cut, spoil_values, spoil_footer, empty])
@pytest.mark.parametrize("first", [True, False])
def test_a_missing_or_corrupt_file_is_named(
    tmp_path: Path, harm: Callable[[Path], None], first: bool
) -> None:
    lake = Lake(str(tmp_path))
    flush(lake, "deals", 1, [deal(1, SECOND, "10", "2")])
    flush(lake, "deals", 1, [deal(2, SECOND, "10", "2")])
    paths = sorted(entry.path for entry in lake.manifest().files if entry.table == "deals")
    path = tmp_path / paths[0 if first else 1]

    def ask_all() -> None:
        connection = warehouse.connect(str(tmp_path))
        history.user_deals(connection, 10)

    ask_all()
    harm(path)
    with pytest.raises(LakeError) as caught:
        ask_all()
    assert str(caught.value).startswith(f"{path}: ")


def test_a_failed_refresh_changes_nothing(lake: Lake, tmp_path: Path) -> None:
    connection = warehouse.connect(str(tmp_path))
    manifest = (tmp_path / "manifest.json").read_bytes()
    (tmp_path / "manifest.json").write_bytes(manifest[:-20])
    with pytest.raises(LakeError, match=r"manifest\.json"):
        warehouse.refresh(connection, str(tmp_path))
    (tmp_path / "manifest.json").write_bytes(manifest)
    spoil_footer(tmp_path / lake.manifest().files[0].path)
    files_before = connection.execute("FROM lake_files").fetchall()
    flush(lake, "deals", 3, [deal(2, 2 * DAY, "12", "1")])
    with pytest.raises(LakeError, match=lake.manifest().files[0].path):
        warehouse.refresh(connection, str(tmp_path))
    assert connection.execute("FROM lake_files").fetchall() == files_before


def test_the_callers_own_mistake_is_no_fault_of_the_lake(lake: Lake, tmp_path: Path) -> None:
    connection = warehouse.connect(str(tmp_path))
    with pytest.raises(duckdb.CatalogException):
        warehouse.ask(connection, "FROM nothing")


@pytest.mark.parametrize("folder", ["it's", "env=a", "ä b"])
def test_folders_above_the_lake_may_have_any_name(tmp_path: Path, folder: str) -> None:
    fill(Lake(str(tmp_path / folder)))
    connection = warehouse.connect(str(tmp_path / folder))
    assert connection.execute("SELECT min(market_no), max(date) FROM deals").fetchall() == [
        (1, date(1970, 1, 2))
    ]


@pytest.mark.parametrize("folder", ["a*b", "a[1]", "a?", "market=9/lake", "shard=1", "date=x/y"])
def test_folders_that_duckdb_would_take_for_something_else_are_refused(
    tmp_path: Path, folder: str
) -> None:
    with pytest.raises(LakeError, match="move the lake"):
        warehouse.connect(str(tmp_path / folder))


def test_a_lake_behind_fsspec(lake: Lake, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/lake"
    filesystem, root = fsspec.core.url_to_fs(url)
    try:
        fill(Lake(url))
        connection = warehouse.connect(url)
        local = warehouse.connect(f"file://{tmp_path}")
        for view in VIEWS:
            shown = f"SELECT count(*), bit_xor(hash(v)) FROM {view} AS v"
            assert connection.execute(shown).fetchall() == local.execute(shown).fetchall()
        assert history.newest_deals(connection, 1, 0, 1)[0].deal_id == 2
        warehouse.refresh(connection, url)
        filesystem.rm(f"{root}/{Lake(url).manifest().files[0].path}")
        with pytest.raises(LakeError, match=f"^memory://{root}/balances"):
            warehouse.refresh(connection, url)
    finally:
        filesystem.rm(root, recursive=True)


def test_every_question_is_loaded() -> None:
    folder = files("analytics").joinpath("sql")
    found = {Path(each.name).stem for each in folder.iterdir() if each.name.endswith(".sql")}
    # What begins so belongs to checks.py, which makes it for a while on a cursor of its own.
    questions = {name for name in found if not name.startswith("check_")}
    assert questions == set(warehouse.QUESTIONS)
