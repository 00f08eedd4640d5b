"""What was written stays written: after a kill, on a full disk, and beside a second writer."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analytics.lake import Lake
from analytics.lake_store import LOCK_NAME, open_store
from tests.analytics.lake_rows import deals

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    lake = Lake(str(tmp_path))
    command = [sys.executable, "-m", "tests.analytics.lake_child", str(tmp_path)]
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            told = [int(child.stdout.readline()) for _ in range(chance.randrange(5, 60))][-1]
            time.sleep(chance.random() * 0.01)
            child.send_signal(signal.SIGKILL)
        manifest = lake.manifest()
        assert manifest.version >= told
        ids = [n for entry in manifest.files for n in lake.read(entry)["deal_id"].to_pylist()]
        assert sorted(ids) == list(range(1, manifest.watermarks["market-3"] + 1))
    lake.sweep(0, time.time() + 60)
    own = {entry.path for entry in lake.manifest().files} | {"manifest.json", LOCK_NAME}
    assert set(open_store(str(tmp_path)).names()) == own


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells no path of an open file")
def test_what_bears_its_name_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "a" / "lake"
    done: list[tuple[str, str]] = []
    real = os.fsync, os.replace

    def fsync(handle: int) -> None:
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        done.append(("folder" if folder else "file", os.readlink(f"/proc/self/fd/{handle}")))
        real[0](handle)

    def rename(source: Path, target: Path) -> None:
        assert done[-1] == ("file", str(source))
        done.append(("rename", str(target)))
        real[1](source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    lake = Lake(str(root))
    [entry] = lake.write("deals", 3, 1, 300, deals(13))
    path = root / entry.path
    after = done[done.index(("rename", str(path))) + 1 :]
    assert after == [("folder", str(folder)) for folder in path.parents[:4]]
    assert {("folder", str(tmp_path)), ("folder", str(root.parent))} <= set(done)
    done.clear()
    lake.commit(lake.manifest(), add=[entry])
    assert done[-2:] == [("rename", str(root / "manifest.json")), ("folder", str(root))]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path))
    live = lake.commit(lake.manifest(), watermarks={"market-3": 1})
    before = open_store(str(tmp_path)).names()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        lake.commit(live, watermarks={"market-3": 2})
    assert lake.manifest() == live
    assert open_store(str(tmp_path)).names() == before


def test_a_writer_waits_for_another_and_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analytics.lake_store.LOCK_S_MAX", 0.05)
    lake = Lake(str(tmp_path))
    with (
        open_store(str(tmp_path)).lock(),
        pytest.raises(TimeoutError, match=f"{LOCK_NAME} is held by another writer"),
    ):
        lake.commit(lake.manifest(), watermarks={"market-3": 1})
    assert lake.commit(lake.manifest(), watermarks={"market-3": 1}).version == 1
