"""What the README prints works as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading: str, language: str) -> str:
    """The first code block under a heading."""
    part = README.split(f"## {heading}\n", 1)[1]
    found = re.search(rf"```{language}\n(.*?)```", part, re.DOTALL)
    assert found is not None, f"no {language} block under {heading}"
    return found[1]


def test_the_first_trades_work_as_printed(tmp_path: Path) -> None:
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "excore_ray", "serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            ready = next(line for line in server.stdout if line.startswith("excore ready "))
            url = f"{ready.split()[2]}/"
            by_curl = block("A first trade by curl", "sh")
            by_python = block("The same in Python", "python")
            told = run(["bash", "-eu", "-c", by_curl], url, tmp_path, environment)
            replies = told.splitlines()
            assert len(replies) == 10
            assert all('"error":null' in reply for reply in replies), told
            assert '"left":"0"' in replies[6]
            assert '"BTC":{"available":"0.5","freeze":"1"}' in replies[7]
            assert '{"name":"BTC","fees":"0.001"}' in replies[9]
            told = run([sys.executable, "-c", by_python], url, tmp_path, environment)
            assert "0.25" in told
        finally:
            children = psutil.Process(server.pid).children(recursive=True)
            server.terminate()
            assert server.wait(60) == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    check_the_page_for_data_scientists(tmp_path, environment)


def check_the_page_for_data_scientists(where: Path, environment: dict[str, str]) -> None:
    """Its script and its commands, on the lake that the first trades have left."""
    script = block("The lake, for data scientists", "python")
    told = ask([sys.executable, "-c", script], where, environment)
    assert "20000" in told
    assert "BTC" in told
    assert (where / "candles.png").read_bytes().startswith(b"\x89PNG")
    commands = block("The lake, for data scientists", "sh")
    commands = commands.replace(".venv/bin/excore", "python -m excore_ray")
    commands = commands.replace(".venv/bin/python", "python")
    here = Path(sys.executable).parent
    environment = {**environment, "PATH": f"{here}{os.pathsep}{environment['PATH']}"}
    told = ask(["bash", "-eu", "-c", commands], where, environment)
    assert "BTC_USDT" in told
    assert "<svg" in (where / "candles.html").read_text()


def run(command: list[str], url: str, where: Path, environment: dict[str, str]) -> str:
    """Run a block against this server instead of the one on the usual port."""
    assert "http://127.0.0.1:8080/" in command[-1]
    command = [*command[:-1], command[-1].replace("http://127.0.0.1:8080/", url)]
    return ask(command, where, environment)


def ask(command: list[str], where: Path, environment: dict[str, str]) -> str:
    """What a command says, which must succeed."""
    done = subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
