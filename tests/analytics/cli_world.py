"""What the tests of the command lines have in common: a lake, and both ways to ask it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from analytics.__main__ import app
from excore_ray.__main__ import app as excore
from tests.analytics.naive_exchange import NaiveExchange, with_bars, write

DONE, WRONG, MISUSED = 0, 1, 2


def right_lake(root: Path) -> Path:
    """A data directory with a lake that is right."""
    write(with_bars(NaiveExchange(6).run(120), 2), root / "data" / "lake")
    return root / "data"


def separate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is said by the environment, and nothing lies where one usually looks."""
    for name in ("EXCORE_LAKE", "EXCORE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def ask(data: Path, *words: str, root: str = "analytics") -> Result:
    """One command of either command line, on the lake of a data directory."""
    if root == "analytics":
        return CliRunner().invoke(app, [*words, "--lake", str(data / "lake")])
    words = ("lake", *words) if words[0] in ("status", "check", "compact") else words
    return CliRunner().invoke(excore, [*words, "--data", str(data)])
