"""Checks: nothing is found in a lake that is right, and each planted defect is."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from analytics import checks, warehouse
from analytics.lake import Lake, LakeError
from tests.actors.archive_world import AT_ONCE, Clock, archive_of, busy_life, run
from tests.analytics.filled_lake import deal, flush, table_of
from tests.analytics.naive_exchange import NaiveExchange, Told, with_bars, write
from tests.analytics.planted_defects import (
    BAR_OFF,
    CHAIN_BREAK,
    DEFINITION,
    FLUSHES,
    ID_GAP,
    PLANTED,
    ROW_STRAY,
    Plant,
    double_a_deal,
    drop_a_deal,
    drop_a_share,
    drop_an_update,
    make_a_balance_impossible,
)

SEED, STEPS = 6, 250


def kinds(found: list[checks.Finding]) -> set[tuple[str, str]]:
    return {(each.check, each.what) for each in found}


def checked(root: Path) -> list[checks.Finding]:
    return checks.check(warehouse.connect(str(root)))


@pytest.mark.parametrize(
    ("plant", "expected"), [p[1:] for p in PLANTED], ids=[p[0] for p in PLANTED]
)
def test_a_planted_defect_gives_just_its_findings(
    tmp_path: Path, plant: Plant, expected: set[tuple[str, str]]
) -> None:
    told = with_bars(NaiveExchange(SEED).run(STEPS), FLUSHES)
    plant(told)
    write(told, tmp_path, FLUSHES)
    found = checked(tmp_path)
    assert kinds(found) == expected, found
    for each in found:
        assert each.times >= len(each.examples) > 0


def cut(told: Told, chance: random.Random) -> Told:
    """What was flushed of each stream when each had come to some entry of its own."""
    kept = Told()
    ends = {
        (kind, part): chance.choice((told.last_seq(kind, part), chance.randint(0, 60)))
        for kind in ("deals", "balances")
        for part in told.tables[kind]
    }
    for table in ("deals", "orders", "balances"):
        for part, rows in told.tables[table].items():
            end = ends["balances" if table == "balances" else "deals", part]
            kept.tables[table][part] = [row for row in rows if row["seq"] <= end]
    return kept


@pytest.mark.parametrize("seed", range(8))
def test_a_right_lake_is_clean_wherever_its_streams_end_and_begin(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    flushes = chance.randint(1, 4)
    told = NaiveExchange(seed).run(STEPS)
    lake = write(with_bars(cut(told, chance), flushes), tmp_path, flushes)
    assert checked(tmp_path) == []
    small_pieces(monkeypatch)
    assert checked(tmp_path) == []
    # Retention: each table but the bars from a date of its own.
    manifest = lake.manifest()
    dates = sorted({entry.date for entry in manifest.files})
    first = {table: chance.choice(dates) for table in ("deals", "orders", "balances")}
    gone = [each for each in manifest.files if each.date < first.get(each.table, "")]
    lake.commit(manifest, remove=gone)
    assert checked(tmp_path) == []


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every check go through many pieces."""
    for name, grain in {
        "_BY_DEAL": 1,
        "_DEAL_BY_DEAL": 1,
        "_BY_ORDER": 4096,
        "_BY_USER": 1,
        "_BY_DAY": 1,
    }.items():
        pieces = getattr(checks, name)._replace(grain=grain, rows_max=40)
        monkeypatch.setattr(checks, name, pieces)


@pytest.mark.parametrize("plant", [drop_a_deal, double_a_deal, drop_a_share, drop_an_update])
def test_pieces_find_what_the_whole_finds(
    tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = with_bars(NaiveExchange(SEED).run(STEPS), FLUSHES)
    plant(told)
    write(told, tmp_path, FLUSHES)
    whole = checked(tmp_path)
    small_pieces(monkeypatch)
    assert sorted(checked(tmp_path)) == sorted(whole) != []


@pytest.mark.parametrize("seed", range(4))
def test_what_the_real_machines_tell_is_clean(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    life = busy_life(seed + 1, 400)
    lake = Lake(str(tmp_path))
    archive = archive_of(life, lake, Clock(), AT_ONCE)

    async def archive_all() -> None:
        for _ in range(9):
            await archive.round()

    run(archive_all())
    assert lake.manifest().files
    assert checked(tmp_path) == []


def test_old_rows_that_are_gone_are_told(tmp_path: Path) -> None:
    told = with_bars(NaiveExchange(SEED).run(STEPS), 5)
    lake = write(told, tmp_path, 5)
    connection = warehouse.connect(str(tmp_path))
    assert checks.begins_late(connection) == []
    manifest = lake.manifest()
    last = max(entry.date for entry in manifest.files)
    lake.commit(manifest, remove=[entry for entry in manifest.files if entry.date != last])
    warehouse.refresh(connection, str(tmp_path))
    said = checks.begins_late(connection)
    assert [text for text in said if text.startswith("the deals of BTC_USDT begin with ")]
    assert [text for text in said if text.startswith("the balances of shard 1 begin with ")]
    assert checks.check(connection) == []


def test_examples_say_where(tmp_path: Path) -> None:
    told = with_bars(NaiveExchange(SEED).run(STEPS), FLUSHES)
    rows = told.tables["deals"][1]
    rows[:] = [row for row in rows if not 20 <= row["deal_id"] < 30 and row["deal_id"] != 33]
    write(told, tmp_path, FLUSHES)
    found = {each[:2]: each for each in checked(tmp_path)}
    assert found[ID_GAP].times == 11
    assert found[ID_GAP].examples == ("BTC_USDT deals 20 to 29", "BTC_USDT deals 33 to 33")
    stray = found[ROW_STRAY]
    assert stray.times > len(stray.examples) == checks.EXAMPLES_MAX
    assert all(text.startswith("BTC_USDT deal 20 order ") for text in stray.examples)


def test_what_is_not_defined_is_found(tmp_path: Path) -> None:
    told = with_bars(NaiveExchange(SEED).run(STEPS), FLUSHES)
    lake = write(told, tmp_path, FLUSHES)
    manifest = lake.manifest()
    lake.commit(manifest, assets=manifest.assets[:2], markets=manifest.markets[:1])
    [found] = checked(tmp_path)
    assert found == (*DEFINITION, 2, ("market 2", "asset 3"))


def test_totals_above_the_type_are_compared_exactly(tmp_path: Path) -> None:
    huge, dust = "999999999999999999.99999999", Decimal("0.00000000000000000001")
    deals = [deal(n, 61_000_000, "1", huge) for n in (1, 2, 3)]
    deals.append(deal(4, 61_000_001, "1", "0.5"))
    lake = Lake(str(tmp_path / "right"))
    flush(lake, "deals", 1, deals)
    assert checked(tmp_path / "right") == []
    lake = Lake(str(tmp_path / "wrong"))
    added = flush(lake, "deals", 1, deals)
    deals[3] = {**deals[3], "amount": deals[3]["amount"] + dust, "deal": deals[3]["deal"] + dust}
    [other] = lake.write("deals", 1, 1, 4, table_of("deals", deals), compacted=1)
    old = [entry for entry in added if entry.table == "deals"]
    lake.commit(lake.manifest(), remove=old, add=[other])
    assert kinds(checked(tmp_path / "wrong")) == {BAR_OFF}


def test_a_balance_no_difference_can_be_taken_of_is_found(tmp_path: Path) -> None:
    told = with_bars(NaiveExchange(SEED).run(STEPS), FLUSHES)
    make_a_balance_impossible(told)
    write(told, tmp_path, FLUSHES)
    assert CHAIN_BREAK in kinds(checked(tmp_path))


def test_progress_goes_from_nothing_to_all(tmp_path: Path) -> None:
    told = with_bars(NaiveExchange(SEED).run(STEPS), FLUSHES)
    write(told, tmp_path, FLUSHES)
    steps: list[tuple[str, int, int]] = []
    checks.check(warehouse.connect(str(tmp_path)), lambda *step: steps.append(step))
    names = "definitions deals orders postings chain sums bars".split()
    assert steps == [(name, n, 7) for n, name in enumerate([*names, ""])]


def test_a_check_leaves_nothing_in_the_connection(tmp_path: Path) -> None:
    connection = warehouse.connect(str(tmp_path))
    assert checks.check(connection) == []
    with pytest.raises(duckdb.CatalogException):
        connection.execute("FROM check_markets")


@pytest.mark.parametrize("table", ["deals", "orders", "balances", "bars"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, table: str) -> None:
    lake = write(with_bars(NaiveExchange(SEED).run(STEPS), FLUSHES), tmp_path, FLUSHES)
    connection = warehouse.connect(str(tmp_path))
    path = next(entry.path for entry in lake.manifest().files if entry.table == table)
    data = bytearray((tmp_path / path).read_bytes())
    data[4:400] = b"\xff" * 396
    (tmp_path / path).write_bytes(data)
    with pytest.raises(LakeError, match=path):
        checks.check(connection)
