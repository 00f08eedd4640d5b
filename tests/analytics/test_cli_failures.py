"""The command lines of the lake: how they fail, with which words and which exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analytics.__main__ import app
from tests.analytics.cli_world import MISUSED, WRONG, ask, right_lake, separate
from tests.analytics.naive_exchange import NaiveExchange, with_bars, write


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return right_lake(tmp_path_factory.mktemp("cli"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    separate(monkeypatch, tmp_path)


@pytest.fixture(params=["analytics", "excore"])
def root(request: pytest.FixtureRequest) -> str:
    return str(request.param)


WRONG_USE = [
    ("", "Usage"),
    ("sql", "Missing argument"),
    ("sql selec", 'syntax error at or near "selec"'),
    ("sql FROM/**/nothing", "Table with name nothing does not exist"),
    ("sql SELECT/**/'a'::INT", "Could not convert string 'a'"),
    ("sql /**/--x", "the statement gives no rows"),
    ("sql --", "Missing argument"),
    ("sql FROM/**/read_csv('none.csv')", "No files found"),
    ("sql FROM/**/deals --output rows.xlsx", "rows.xlsx is not table, csv or json"),
    ("sql FROM/**/deals --output no/rows.csv", "no/rows.csv cannot be written"),
    ("kline BTC_USDT", "Missing argument"),
    ("kline nothing 1h", "there is no market nothing; there are: BTC_USDT, DOGE_BTC"),
    ("kline BTC_USDT 7x", "'7x' is not like 1s 5m"),
    ("kline BTC_USDT 7m", "divides neither"),
    ("kline BTC_USDT 30d", "above a day there are only 1w and 1M"),
    ("kline BTC_USDT 1h --start yesterday", "Invalid isoformat string"),
    ("kline BTC_USDT 1h --end 1969-12-31", "is before 1970"),
    ("kline BTC_USDT 1h --start 2026-01-02 --end 2026-01-01", "--start is after --end"),
    ("kline BTC_USDT 1s --start 2026-01-01 --end 2026-03-01", "more than 1000000"),
    ("kline BTC_USDT 1h --plot plot.pdf", "plot.pdf is not a file .png, .svg or .html"),
    ("kline BTC_USDT 1h --plot no/plot.png", "no/plot.png cannot be written"),
    ("kline BTC_USDT 1h --end 2020-01-01 --plot plot.png", "there is nothing to draw"),
    ("status --nonsense", "No such option"),
    ("nonsense", "No such command"),
]


@pytest.mark.parametrize(("words", "says"), WRONG_USE)
def test_wrong_use_ends_with_2(
    data: Path, tmp_path: Path, words: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXCORE_LAKE", str(data / "lake"))
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, [word.replace("/**/", " ") for word in words.split()])
    assert done.exit_code == MISUSED
    assert says in done.output
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["sql FROM/**/deals", "kline A_B 1h", "status", "check"])
def test_no_lake_is_wrong_use(tmp_path: Path, words: str, root: str) -> None:
    split = [word.replace("/**/", " ") for word in words.split()]
    done = ask(tmp_path / "none", *split, root=root)
    assert (done.exit_code, done.stdout) == (MISUSED, "")
    assert done.stderr.endswith(f"there is no lake at {tmp_path}/none/lake\n")
    assert not (tmp_path / "none").exists()


def test_an_unknown_kind_of_url_is_wrong_use() -> None:
    done = CliRunner().invoke(app, ["status", "--lake", "nonsense://lake"])
    assert done.exit_code == MISUSED
    assert "nonsense://lake: Protocol not known" in done.stderr


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4:300] = b"\xff" * 296
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [Path.unlink, spoil])
@pytest.mark.parametrize("words", ["sql FROM/**/deals", "kline BTC_USDT 1s", "check"])
def test_a_file_that_cannot_be_read_ends_with_1(
    tmp_path: Path, words: str, harm: Callable[[Path], None]
) -> None:
    lake = write(with_bars(NaiveExchange(6).run(60), 1), tmp_path / "lake", 1)
    path = next(
        each.path for each in lake.manifest().files if each.path.startswith("deals/market=1")
    )
    harm(tmp_path / "lake" / path)
    done = ask(tmp_path, *(word.replace("/**/", " ") for word in words.split()))
    assert (done.exit_code, done.stdout) == (WRONG, "")
    assert f"{path}: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", ["sql SELECT/**/1", "kline BTC_USDT 1h", "status", "check"])
def test_a_damaged_manifest_ends_with_1(tmp_path: Path, words: str, root: str) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "manifest.json").write_text("{")
    split = [word.replace("/**/", " ") for word in words.split()]
    done = ask(tmp_path, *split, root=root)
    assert (done.exit_code, done.stdout) == (WRONG, "")
    assert "manifest.json" in done.stderr
    assert done.stderr.startswith("excore: " if root == "excore" else "python -m analytics: ")


def test_a_file_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    lake = write(with_bars(NaiveExchange(6).run(60), 1), tmp_path / "lake", 1)
    for entry in lake.manifest().files:
        spoil(tmp_path / "lake" / entry.path)
    done = ask(tmp_path, "sql", "FROM deals", "--output", str(tmp_path / "deals.csv"))
    assert done.exit_code == WRONG
    assert [path.name for path in tmp_path.iterdir()] == ["lake"]
