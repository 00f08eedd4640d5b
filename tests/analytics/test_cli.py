"""The command lines of the lake: what each command prints, writes, and ends with."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from analytics import cli_params, warehouse
from analytics.__main__ import app
from analytics.history_rows import Span
from analytics.lake import Lake
from analytics.market_data import MONTH_S, WEEK_S, kline
from excore_ray.__main__ import app as excore
from tests.analytics.cli_world import DONE, MISUSED, WRONG, ask, right_lake, separate
from tests.analytics.filled_lake import deal, lake_of_deals
from tests.analytics.naive_exchange import NaiveExchange, with_bars, write

DAY_S = 86_400


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return right_lake(tmp_path_factory.mktemp("cli"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    separate(monkeypatch, tmp_path)


@pytest.fixture(params=["analytics", "excore"])
def root(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_sql_prints_a_table(data: Path, root: str) -> None:
    query = "SELECT market, count(*) AS n FROM deals GROUP BY market ORDER BY market"
    done = ask(data, "sql", query, root=root)
    count = dict(warehouse.connect(str(data / "lake")).execute(query).fetchall())
    assert done.exit_code == DONE
    assert table(done.stdout) == [
        ["market", "n"],
        ["BTC_USDT", str(count["BTC_USDT"])],
        ["DOGE_BTC", str(count["DOGE_BTC"])],
    ]


VALUES = (
    "SELECT 1.50::DECIMAL(38,20) AS d, 'a,\"b' AS s, NULL AS n, true AS b, [1.5] AS l,"
    " 99999999999999999999::HUGEINT AS h, TIMESTAMPTZ '2026-11-22 12:00:00.000001Z' AS t,"
    " DATE '2026-11-22' AS y, 0.1::DOUBLE AS f, 'NaN'::DOUBLE AS x, 2 AS d, {'k': 1} AS o,"
    " '\\xC3\\xBC'::BLOB AS z, INTERVAL 1 DAY IS NULL AS i"
)
PLAIN = {
    "d": "1.5",
    "s": 'a,"b',
    "n": None,
    "b": True,
    "l": ["1.5"],
    "h": "99999999999999999999",
    "t": "2026-11-22T12:00:00.000001+00:00",
    "y": "2026-11-22",
    "f": 0.1,
    "x": "nan",
    "d_2": 2,
    "o": {"k": 1},
    "z": "c3bc",
    "i": False,
}


def test_json_is_exact_and_has_each_key_once(data: Path) -> None:
    done = ask(data, "sql", VALUES, "--output", "json")
    assert done.exit_code == DONE
    assert json.loads(done.stdout) == [PLAIN]


def test_csv_is_exact(data: Path) -> None:
    done = ask(data, "sql", VALUES, "--output", "csv")
    header, row = csv.reader(done.stdout.splitlines())
    assert header == [name.replace("d_2", "d") for name in PLAIN]
    assert row == [
        *("1.5", 'a,"b', "", "true", '["1.5"]', "99999999999999999999"),
        *("2026-11-22T12:00:00.000001+00:00", "2026-11-22", "0.1", "nan", "2"),
        *('{"k": 1}', "c3bc", "false"),
    ]


def test_no_rows_are_rows_too(data: Path) -> None:
    query = "SELECT price FROM deals WHERE false"
    assert ask(data, "sql", query, "--output", "json").stdout == "[]\n"
    assert ask(data, "sql", query, "--output", "csv").stdout == "price\n"
    assert table(ask(data, "sql", query).stdout)[0] == ["price"]


def test_files_have_all_rows(data: Path, tmp_path: Path) -> None:
    query = "SELECT * FROM range(25000) AS t(n) ORDER BY n"
    for name in ("rows.parquet", "rows.csv", "rows.json"):
        path = tmp_path / name
        path.write_text("old")
        done = ask(data, "sql", query, "--output", str(path))
        assert (done.exit_code, done.stdout) == (DONE, f"written to {path}\n")
    assert pq.read_table(tmp_path / "rows.parquet")["n"].to_pylist() == list(range(25_000))
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 25_001
    assert json.loads((tmp_path / "rows.json").read_text())[-1] == {"n": 24_999}
    assert {path.name for path in tmp_path.iterdir()} == {"rows.parquet", "rows.csv", "rows.json"}


def test_parquet_keeps_quantities(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "deals.parquet"
    ask(
        data,
        "sql",
        "SELECT price, sum(trunc(price)) OVER () AS s FROM deals",
        "--output",
        str(path),
    )
    assert [str(kind) for kind in pq.read_schema(path).types] == [
        "decimal128(38, 20)",
        "decimal128(38, 0)",
    ]


def test_a_long_table_says_that_it_is_cut(data: Path) -> None:
    done = ask(data, "sql", "FROM range(1001)")
    assert len(done.stdout.splitlines()) == 1 + 1000
    assert "only the first 1000 rows" in done.stderr
    whole = ask(data, "sql", "FROM range(1000)")
    assert (len(whole.stdout.splitlines()), whole.stderr) == (1 + 1000, "")


def test_kline_is_that_of_the_library(data: Path, root: str) -> None:
    expected = bars(data, 1, 60)
    done = ask(data, "kline", "BTC_USDT", "1m", "--start", "0", "--output", "json", root=root)
    rows = json.loads(done.stdout)
    assert len(rows) == len(expected)
    assert rows[0]["time"].startswith("2025-12-31T23:")
    for row, bar in zip(rows, expected, strict=True):
        assert [Decimal(row[name]) for name in bar._fields[1:]] == list(bar[1:])


def bars(data: Path, market: int, interval_s: int) -> list[Any]:
    connection = warehouse.connect(str(data / "lake"))
    question = "SELECT max(epoch_us(time)) // 1000000 FROM deals WHERE market_no = ?"
    [(last_s,)] = connection.execute(question, [market]).fetchall()
    return list(kline(connection, market, Span(0, last_s), interval_s, 10**6))


@pytest.mark.parametrize("market", ["2", "DOGE_BTC"])
def test_kline_alone_shows_the_newest_hundred_buckets(data: Path, market: str) -> None:
    done = ask(data, "kline", market, "1s", "--output", "csv")
    rows = done.stdout.splitlines()[1:]
    assert len(rows) == 100
    assert Decimal(rows[-1].split(",")[2]) == bars(data, 2, 1)[-1].close


def test_kline_from_and_to(data: Path) -> None:
    words = ["--start", "2026-01-01", "--end", "2026-01-01T02:01:59+02:00", "--output", "csv"]
    done = ask(data, "kline", "1", "1m", *words)
    times = [row.split(",")[0] for row in done.stdout.splitlines()[1:]]
    assert times == ["2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00"]


def test_the_end_of_a_kline_is_cut_at_now(data: Path) -> None:
    done = ask(data, "kline", "1", "1M", "--end", "99999999999", "--output", "csv")
    assert done.exit_code == DONE
    assert len(done.stdout.splitlines()) < 100


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_a_plot_is_drawn(data: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot.{suffix}"
    done = ask(data, "kline", "1", "5m", "--plot", str(path))
    assert (done.exit_code, done.stdout) == (DONE, f"drawn into {path}\n")
    assert path.stat().st_size > 1000


def test_a_plot_and_rows(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    done = ask(data, "kline", "1", "1d", "--plot", str(path), "--output", "csv")
    assert path.exists()
    assert done.stdout.splitlines()[1].startswith("time,open")


def test_a_total_above_the_type_is_written(tmp_path: Path) -> None:
    huge = "999999999999999999.5"
    lake_of_deals(tmp_path / "lake", [deal(n, 5, "1", huge) for n in (1, 2)])
    path = tmp_path / "bars.parquet"
    done = ask(tmp_path, "kline", "BTC_USDT", "1d", "--output", str(path))
    assert done.exit_code == DONE
    assert pq.read_table(path)["volume"].to_pylist() == [Decimal(1_999_999_999_999_999_999)]


def test_status_shows_every_stream(data: Path, root: str) -> None:
    lake = Lake(str(data / "lake"))
    manifest = lake.manifest()
    lake.commit(manifest, watermarks={"market-1": 70, "ledger-7": 3})
    done = ask(data, "status", "--output", "json", root=root)
    assert done.exit_code == DONE
    rows = json.loads(done.stdout)
    deals = next(row for row in rows if (row["table"], row["stream"]) == ("deals", "market-1"))
    files = [entry for entry in manifest.files if (entry.table, entry.part) == ("deals", 1)]
    assert deals == {
        "table": "deals",
        "stream": "market-1",
        "market": "BTC_USDT",
        "watermark": 70,
        "files": len(files),
        "rows": sum(entry.rows for entry in files),
        "bytes": sum(entry.bytes for entry in files),
        "first_date": files[0].date,
        "last_date": files[-1].date,
    }
    assert rows[-1] == {
        **dict.fromkeys(rows[-1]),
        "stream": "ledger-7",
        "watermark": 3,
    }
    shown = ask(data, "status", root=root).stdout.splitlines()
    assert len(shown) == 1 + len(rows) + 1
    assert shown[-1].startswith(f"version {manifest.version + 1}: {len(manifest.files)} files, ")


def test_check_of_a_right_lake(data: Path, root: str) -> None:
    done = ask(data, "check", root=root)
    assert (done.exit_code, done.stdout, done.stderr) == (DONE, "exact\n", "")
    rows = ask(data, "check", "--output", "json", root=root)
    assert (rows.exit_code, rows.stdout) == (DONE, "[]\n")


def spoilt(tmp_path: Path) -> Path:
    """A data directory whose lake lacks one deal."""
    told = with_bars(NaiveExchange(6).run(120), 1)
    del told.tables["deals"][1][2]
    write(told, tmp_path / "spoilt" / "lake", 1)
    return tmp_path / "spoilt"


def test_check_tells_what_it_finds(tmp_path: Path, root: str) -> None:
    data = spoilt(tmp_path)
    done = ask(data, "check", root=root)
    assert done.exit_code == WRONG
    lines = done.stdout.splitlines()
    assert lines[:2] == ["deal_ids: deals are missing, 1 times", "    BTC_USDT deals 3 to 3"]
    assert lines[-1].endswith(" findings")
    rows = ask(data, "check", "--output", "json", root=root)
    assert rows.exit_code == WRONG
    assert json.loads(rows.stdout)[0] == {
        "check": "deal_ids",
        "what": "deals are missing",
        "times": 1,
        "examples": ["BTC_USDT deals 3 to 3"],
    }


def test_check_tells_what_it_could_not_compare(tmp_path: Path) -> None:
    lake_of_deals(tmp_path / "lake", [deal(7, 5, "1", "1")])
    done = ask(tmp_path, "check")
    assert done.exit_code == DONE
    assert done.stdout.splitlines()[0].startswith("note: the deals of BTC_USDT begin with 7")


HELP = {
    "sql": "--lake --output Example: python -m analytics sql",
    "kline": "--start --end --plot --lake --output Example: python -m analytics kline",
    "status": "--lake --output Example: python -m analytics status",
    "check": "--lake --output Example: python -m analytics check",
}


@pytest.mark.parametrize("command", HELP)
def test_help_teaches(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == DONE
    assert [word for word in HELP[command].split() if word not in done.stdout] == []
    words = ["lake", command] if command in ("status", "check") else [command]
    mounted = CliRunner().invoke(excore, [*words, "--help"])
    assert "--data" in mounted.stdout
    assert "--lake" not in mounted.stdout
    assert f"Example: excore {' '.join(words)}" in mounted.stdout


def test_the_lake_of_the_environment_and_the_usual_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = CliRunner().invoke(app, ["status"])
    assert missing.exit_code == MISUSED
    assert "there is no lake at ./data/lake" in missing.stderr
    (tmp_path / "data").symlink_to(data)
    assert CliRunner().invoke(app, ["check"]).stdout == "exact\n"
    monkeypatch.setenv("EXCORE_LAKE", str(tmp_path / "other"))
    assert "no lake at" in CliRunner().invoke(app, ["check"]).stderr
    monkeypatch.setenv("EXCORE_DATA", str(data))
    assert CliRunner().invoke(excore, ["lake", "check"]).stdout == "exact\n"


def test_it_is_a_program(data: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "analytics", "sql", "SELECT 1 AS one", "--output", "csv"]
    environment = {**os.environ, "EXCORE_LAKE": str(data / "lake")}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (DONE, "one\n1\n", "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1767225600", 1_767_225_600),
        ("2026-01-01", 1_767_225_600),
        ("2026-01-01T00:00:00", 1_767_225_600),
        ("2026-01-01T00:00:00.9Z", 1_767_225_600),
        ("2026-01-01T02:00:00+02:00", 1_767_225_600),
    ],
)
def test_times(text: str, seconds: int) -> None:
    assert cli_params.time_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("1s", 1), ("5s", 5), ("60s", 60), ("5m", 300), ("90m", 5_400), ("1h", 3_600)],
        *[("12h", 43_200), ("24h", DAY_S), ("1d", DAY_S), ("1w", WEEK_S), ("1M", MONTH_S)],
    ],
)
def test_intervals(text: str, seconds: int) -> None:
    assert cli_params.interval_s_of(text) == seconds


@pytest.mark.parametrize("text", "0s 1 s 1y 2w 2M 2d 7d 30d 604800s 7s -1s 1.5h 1S ١s".split())
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ValueError):
        cli_params.interval_s_of(text)
