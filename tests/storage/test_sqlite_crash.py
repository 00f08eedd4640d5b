"""Owners that end without warning: what they acknowledged is there, whoever reads it next."""

from __future__ import annotations

import random
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from excore_ray.errors import StreamBusy
from excore_ray.storage.journal import Entry
from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import open_sqlite, read_sqlite
from tests.storage.child import body_of, end, key_of, line_of, spawn
from tests.storage.places import ALL, OWNER, STREAM, run


def kill_while_appending(directory: Path, appends: int, delay_s: float) -> int:
    """The last seq that a child acknowledged before it was killed in the midst of appending."""
    child = spawn("append", directory)
    last = 0
    for _ in range(appends):
        last = int(line_of(child))
    time.sleep(delay_s)
    child.kill()
    assert child.stdout is not None
    lines = child.stdout.read().splitlines()
    end(child)
    # The last line may have been cut off in the middle of its number.
    return max([last, *(int(line) for line in lines[:-1] if line)])


@pytest.mark.parametrize(
    ("appends", "appends_a_kill"),
    [(200, 80), pytest.param(10_000, 400, marks=pytest.mark.slow)],
    ids=["200 appends", "10000 appends"],
)
def test_a_kill_loses_nothing_that_was_acknowledged(
    tmp_path: Path, appends: int, appends_a_kill: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    there = kills = unheard = 0
    while there < 2 * appends:
        count = chance.randint(1, appends_a_kill)
        acknowledged = kill_while_appending(tmp_path, count, chance.random() / 100)
        assert acknowledged >= there + 2 * count
        # A reader may be the first to recover the log.
        if chance.random() < 0.5:
            with closing(read_sqlite(tmp_path, STREAM)) as reader:
                assert len(reader.read(1, ALL)) >= acknowledged
        with closing(open_sqlite(tmp_path, STREAM, owner=OWNER)) as journal:
            found = journal.read(1, ALL)
            assert [entry.seq for entry in found] == [*range(1, len(found) + 1)]
            assert all(entry.body == body_of(entry.seq) for entry in found)
            assert len(found) >= acknowledged
            assert len(found) % 2 == 0
            there = len(found)
            keys = [key_of(seq) for seq in range(1, there + 3)]
            assert run(journal.find_keys(keys)) == {key_of(at) for at in range(1, there, 2)}
            # The successor goes on at once.
            pair = [body_of(there + 1), body_of(there + 2)]
            run(journal.append(there + 1, 1, pair, [key_of(there + 1)]))
            kills, unheard, there = kills + 1, unheard + there - acknowledged, there + 2
    print(f"{kills} kills, {there} entries, {unheard} of them not heard of before the kill")
    assert kills > 1


def test_a_reader_sees_what_was_acknowledged_and_survives_the_kill(tmp_path: Path) -> None:
    child = spawn("append", tmp_path)
    acknowledged = int(line_of(child))
    reader = read_sqlite(tmp_path, STREAM)
    at = 1
    for _ in range(50):
        acknowledged = int(line_of(child))
        found = reader.read(at, ALL)
        assert all(entry.body == body_of(entry.seq) for entry in found)
        at += len(found)
        assert at > acknowledged
    end(child)
    before = reader.read(1, ALL)
    with closing(open_sqlite(tmp_path, STREAM, owner=OWNER)) as journal:
        assert journal.read(1, ALL) == before
        run(journal.append(len(before) + 1, 2, [b"next"], []))
        assert reader.read(len(before) + 1, ALL) == [Entry(len(before) + 1, 2, b"next")]
    reader.close()


def test_a_successor_takes_over_from_an_owner_that_appends(tmp_path: Path) -> None:
    child = spawn("append", tmp_path)
    acknowledged = [int(line_of(child)) for _ in range(10)][-1]
    with closing(open_sqlite(tmp_path, STREAM, owner=OWNER)) as journal:
        assert child.wait(5) == -signal.SIGKILL
        found = journal.read(1, ALL)
        assert child.stdout is not None
        lines = child.stdout.read().splitlines()
        acknowledged = max([acknowledged, *(int(line) for line in lines[:-1] if line)])
        assert len(found) >= acknowledged
        run(journal.append(len(found) + 1, 2, [b"mine"], []))
    end(child)


def test_an_owner_of_another_name_is_left_in_peace(tmp_path: Path) -> None:
    child = spawn("hold", tmp_path)
    assert line_of(child) == "held"
    with pytest.raises(StreamBusy, match="it is another actor than"):
        open_sqlite(tmp_path, STREAM, owner=Ownership("somebody else", kill_after_s=0.05))
    assert child.poll() is None
    end(child)
