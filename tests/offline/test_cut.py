"""The cut: one instant of all streams, whatever goes on between reading one and the next."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from excore_ray.errors import JournalFailed
from excore_ray.offline.cut import Heads, cut_of, take_cut
from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import open_sqlite
from tests.offline.cut_world import hasty, run_copies
from tests.offline.writers import written_by_turns


@pytest.mark.parametrize("seed", range(1, 13))
def test_a_copy_of_an_instant_goes_on_as_after_a_loss_of_power(seed: int) -> None:
    print(f"seed {seed}")
    counts = run_copies(seed)
    assert counts.get("copies", 0) + counts.get("moved on", 0) + counts.get("no instant", 0) > 0


def test_the_seeds_copy_and_go_on() -> None:
    counts = [run_copies(seed) for seed in range(101, 111)]
    assert sum(each.get("copies", 0) for each in counts) >= 8
    assert sum(each.get("gone on, answered", 0) for each in counts) > 50


@pytest.mark.slow
def test_many_seeds() -> None:
    for seed in range(200, 320):
        print(f"seed {seed}")
        run_copies(seed)


def test_stream_after_stream_is_no_instant() -> None:
    """The defect that the second pass is there for: the same check finds it."""
    found = []
    for seed in range(1, 27):
        try:
            run_copies(seed, hasty)
        except (AssertionError, KeyError) as broken:
            found.append(f"seed {seed}: {broken}")
    assert len(found) >= 4, found


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_is_what_was_there_at_one_instant(seed: int) -> None:
    """Against the truth: all streams as they were after each change."""
    chance = random.Random(seed)
    streams = [f"s{n}" for n in range(chance.randint(1, 6))]
    now = dict.fromkeys(streams[: chance.randint(1, len(streams))], 1)
    history = [dict(now)]
    pace = chance.choice((0.05, 0.3, 0.6))

    def collect() -> dict[str, int]:
        found: dict[str, int] = {}
        for stream in streams:
            while chance.random() < pace and len(history) < 5_000:
                grown = chance.choice(streams)
                now[grown] = now.get(grown, 0) + 1
                history.append(dict(now))
            if stream in now:
                found[stream] = now[stream]
        return found

    before = len(history) - 1
    cut = take_cut(collect)
    assert cut.heads in history[before:], f"seed {seed}"


def test_no_instant_is_told_after_some_patience() -> None:
    count = iter(range(10**9))
    clock = iter(range(10**9))
    with pytest.raises(JournalFailed, match="no instant was found"):
        take_cut(lambda: {"market-1": next(count)}, lambda: next(clock), patience_s=20)


def test_two_journals_that_are_written_meanwhile_are_read_at_one_instant(tmp_path: Path) -> None:
    """One process writes to both by turns: at any instant they differ by one entry at most."""
    with written_by_turns(tmp_path, ("ledger-0", "market-1"), pause_s=0.001):
        for _ in range(50):
            heads = cut_of(tmp_path).heads
            assert heads["market-1"] <= heads["ledger-0"] <= heads["market-1"] + 1


def test_a_stream_without_entries_is_not_in_it(tmp_path: Path) -> None:
    open_sqlite(tmp_path, "market-1", owner=Ownership("market-1")).close()
    (tmp_path / "market-2.db").touch()
    heads = Heads(tmp_path)
    assert heads.collect() == {}
    heads.close()
