"""The command that merges files: the same rows in fewer files, and never beside an archive."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from analytics import warehouse
from analytics.lake import Lake
from tests.analytics.cli_world import DONE, MISUSED, WRONG, ask, right_lake, separate

TABLES = ("deals", "orders", "balances", "bars_1m")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    separate(monkeypatch, tmp_path)
    return right_lake(tmp_path)


def rows_of(data: Path) -> dict[str, pa.Table]:
    connection = warehouse.connect(str(data / "lake"))
    tables = {
        table: connection.sql(f"FROM {table} ORDER BY ALL").to_arrow_table() for table in TABLES
    }
    connection.close()
    return tables


@pytest.mark.parametrize("root", ["analytics", "excore"])
def test_the_rows_stay_and_the_files_become_few(data: Path, root: str) -> None:
    lake, rows = Lake(str(data / "lake")), rows_of(data)
    before = lake.manifest().files
    done = ask(data, "compact", root=root)
    after = lake.manifest().files
    assert (done.exit_code, done.stderr) == (DONE, "")
    assert done.stdout == f"{len(before)} files became {len(after)}\n"
    places = {(entry.table, entry.part, entry.date) for entry in before}
    assert len(before) > len(after) == len(places)
    assert rows_of(data) == rows
    # There is nothing more to do.
    assert ask(data, "compact", root=root).stdout == f"{len(after)} files became {len(after)}\n"


def test_a_lake_that_an_exchange_writes_is_left_alone(data: Path) -> None:
    running = {"url": "http://127.0.0.1:1", "pid": os.getpid()}
    (data / "running.json").write_text(json.dumps(running))
    version = Lake(str(data / "lake")).manifest().version
    done = ask(data, "compact", root="excore")
    assert done.exit_code == MISUSED
    assert "an exchange runs on this lake" in done.stderr
    assert Lake(str(data / "lake")).manifest().version == version


def test_a_corrupt_file_is_named_and_nothing_is_lost(data: Path) -> None:
    lake = Lake(str(data / "lake"))
    victim = next(entry for entry in lake.manifest().files if entry.table == "deals")
    (data / "lake" / victim.path).write_bytes(b"PAR1 no more")
    done = ask(data, "compact")
    assert done.exit_code == WRONG
    assert victim.path in done.stderr
    assert victim in lake.manifest().files
