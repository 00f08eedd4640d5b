"""The cut of busy streams: one instant, told by their WAL indices alone."""

from __future__ import annotations

import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from excore_ray.errors import JournalFailed, JournalForeign
from excore_ray.offline.copying import copy_stream
from excore_ray.offline.cut import cut_of
from excore_ray.offline.cut_busy import Watch, busy_cut, watch_directory
from excore_ray.storage.sqlite import read_sqlite
from tests.offline.cut_world import careless, quick, run_copies
from tests.offline.writers import opened, written_by_turns
from tests.storage.child import end, line_of, spawn
from tests.storage.places import STREAM, put


@pytest.mark.parametrize("seed", range(1, 9))
def test_a_copy_of_an_instant_goes_on_as_after_a_loss_of_power(seed: int) -> None:
    print(f"seed {seed}")
    run_copies(seed, quick)


def test_the_seeds_copy_and_go_on() -> None:
    counts = [run_copies(seed, quick) for seed in range(101, 109)]
    assert sum(each.get("copies", 0) for each in counts) >= 6
    assert sum(each.get("gone on, answered", 0) for each in counts) > 50


@pytest.mark.slow
def test_many_seeds() -> None:
    for seed in range(200, 320):
        print(f"seed {seed}")
        run_copies(seed, quick)


def test_without_a_round_that_meets_no_change_it_is_no_instant() -> None:
    found = []
    for seed in range(1, 27):
        try:
            run_copies(seed, careless)
        except (AssertionError, KeyError) as broken:
            found.append(f"seed {seed}: {broken}")
    assert len(found) >= 4, found


def settled(watched: Watch) -> dict[str, int]:
    """What a watch says while nothing goes on; it must not take it long to see that."""
    for _ in range(3):
        if watched.is_steady():
            return watched.seqs
    raise AssertionError("it sees changes where there are none")


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_done_to_a_stream_is_seen(seed: int, tmp_path: Path) -> None:
    """Single-threaded, against the truth after every step."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    journals = {stream: opened(tmp_path, stream) for stream in ("ledger-0", "market-1")}
    put(journals["ledger-0"], b"first")
    truth = {"ledger-0": 1}
    watched = watch_directory(tmp_path)
    assert settled(watched) == truth
    for step in range(120):
        stream = chance.choice(sorted(journals))
        journal, newest = journals[stream], truth.get(stream, 0)
        match chance.choice(("append", "append", "append", "checkpoint", "forget", "again", "new")):
            case "append":
                count = chance.choice((1, 3))
                put(journal, *[b"x" * chance.choice((5, 5_000))] * count)
                truth[stream] = newest + count
                assert not watched.is_steady()
            case "checkpoint":
                journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            case "forget" if newest > 2:
                for seq in (newest - 1, newest):
                    journal.save_snapshot(seq, b"s")
                journal.truncate(newest - 1)
            case "again":
                journal.close()
                journals[stream] = opened(tmp_path, stream)
            case "new" if len(journals) < 6:
                made = f"market-{step + 10}"
                journals[made] = opened(tmp_path, made)
                put(journals[made], b"first")
                truth[made] = 1
                assert not watched.is_steady()
        assert settled(watched) == truth
    for journal in journals.values():
        journal.close()


def test_an_owner_that_is_killed_and_the_next_one(tmp_path: Path) -> None:
    watched: Watch | None = None
    for _ in range(3):
        child = spawn("append", tmp_path)
        try:
            assert all(line_of(child) for _ in range(5))
            watched = watched or watch_directory(tmp_path)
            while not watched.is_steady():
                assert child.poll() is None
        finally:
            end(child)
        with closing(read_sqlite(tmp_path, STREAM)) as reader:
            assert settled(watched) == {STREAM: reader.status().next_seq - 1}


def test_a_copy_that_nobody_opened_has_no_index(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    journal = opened(here, "market-1")
    put(journal, b"a", b"b")
    copy_stream(here, "market-1", 2, there)
    journal.close()
    for directory in (there, here):
        assert not list(directory.glob("*-shm"))
        found = busy_cut(directory, 5.0)
        assert found is not None
        assert found[0] == {"market-1": 2}


def test_what_is_wrong_with_a_stream_is_told(tmp_path: Path) -> None:
    opened(tmp_path, "market-1").close()
    (tmp_path / "market-1.db").rename(tmp_path / "market-2.db")
    (tmp_path / "market-1.head").unlink()
    with pytest.raises(JournalForeign, match="the journal of stream market-1, not of market-2"):
        busy_cut(tmp_path, 5.0)


def test_no_instant_is_told_after_some_patience(tmp_path: Path) -> None:
    with written_by_turns(tmp_path, STREAMS):
        assert busy_cut(tmp_path, -1.0) is None


def test_when_its_process_is_killed_that_is_told_and_nothing_is_wrong(tmp_path: Path) -> None:
    with closing(opened(tmp_path, "market-1")) as journal:
        put(journal, b"first")
        with ThreadPoolExecutor(1) as beside:
            cut = beside.submit(busy_cut, tmp_path, 60.0)
            while not (found := looking()):
                time.sleep(0.001)
            found[0].kill()
            with pytest.raises(JournalFailed, match="was ended"):
                cut.result()
        put(journal, b"second")
        assert busy_cut(tmp_path, 5.0) is not None


def looking() -> list[psutil.Process]:
    """The processes that look for an instant, from their first moment on."""
    children = psutil.Process().children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


STREAMS = [f"market-{number}" for number in range(40)]


def expect_instant(heads: dict[str, int]) -> None:
    """Streams are written in their order, so at an instant none is ahead of the one before it."""
    seqs = [heads[stream] for stream in STREAMS]
    assert seqs == sorted(seqs, reverse=True)
    assert seqs[0] - seqs[-1] <= 1


def many_instants(directory: Path, count: int) -> list[dict[str, int]]:
    """In a process of its own: so many instants, between any two of which something grew."""
    watched, found = watch_directory(directory), list[dict[str, int]]()
    while len(found) < count:
        if watched.is_steady() and watched.seqs not in found[-1:]:
            found.append(watched.seqs)
    return found


def test_forty_streams_that_are_written_without_a_pause(tmp_path: Path) -> None:
    with written_by_turns(tmp_path, STREAMS):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            found = process.submit(many_instants, tmp_path, 100).result()
        for heads in found:
            expect_instant(heads)
        cut = busy_cut(tmp_path, 20.0)
        assert cut is not None
        expect_instant(cut[0])
        expect_instant(dict(cut_of(tmp_path, passes_s=-1.0).heads))
