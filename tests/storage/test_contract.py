"""What the port promises, held against every implementation of it."""

from __future__ import annotations

import asyncio

import pytest

from excore_ray.errors import (
    Fenced,
    JournalFailed,
    JournalForgotten,
    SnapshotBroken,
    SnapshotFailed,
    TruncateRefused,
)
from excore_ray.storage.journal import Opened, opened
from tests.storage.places import ALL, STREAM, Place, bodies, entries, put, run

ABC = (b"a", b"b", b"c")


def test_a_new_stream_is_empty(place: Place) -> None:
    journal = place.open()
    status = journal.status()
    assert journal.stream == STREAM
    assert (status.next_seq, status.last_epoch, status.oldest_seq) == (1, 0, 1)
    assert journal.read(1, ALL) == []
    assert journal.load_snapshot() is None
    assert run(journal.find_keys([b"k"])) == frozenset()
    assert opened(journal) == Opened(None, 0, 1, 0)


def test_what_was_appended_is_read_by_the_next_incarnation(place: Place) -> None:
    journal = place.open()
    run(journal.append(1, 1, ABC, [b"k1", b"k2"]))
    run(journal.append(4, 1, [b""], []))
    journal.close()
    journal = place.open()
    run(journal.append(5, 7, [b"e" * 100_000], [b"k3"]))
    assert journal.read(1, ALL) == entries(
        (1, 1, b"a"), (2, 1, b"b"), (3, 1, b"c"), (4, 1, b""), (5, 7, b"e" * 100_000)
    )
    assert opened(journal) == Opened(None, 0, 6, 7)
    assert run(journal.find_keys([b"k1", b"k2", b"k3", b"k4", b"k1"])) == {b"k1", b"k2", b"k3"}


def test_any_bytes_are_a_body_and_a_key(place: Place) -> None:
    journal = place.open()
    odd = [b"", b"\0", bytes(range(256)), b"\xff" * 5000, '{"é": 1}'.encode()]
    run(journal.append(1, 1, odd, odd))
    assert bodies(journal) == odd
    assert run(journal.find_keys([*odd, b"\0\0"])) == set(odd)


@pytest.mark.parametrize(
    ("seq", "epoch"),
    [(0, 5), (1, 5), (3, 5), (5, 5), (4, 4), (4, 0), (1 << 40, 5)],
    ids=str,
)
def test_an_append_that_does_not_continue_the_stream_is_fenced(
    place: Place, seq: int, epoch: int
) -> None:
    journal = place.open()
    run(journal.append(1, 5, ABC, []))
    with pytest.raises(Fenced, match=STREAM):
        run(journal.append(seq, epoch, [b"x"], [b"k"]))
    again = place.open()
    assert bodies(again) == [*ABC]
    assert run(again.find_keys([b"k"])) == frozenset()


def test_a_fenced_journal_refuses_everything(place: Place) -> None:
    journal = place.open()
    put(journal, *ABC)
    with pytest.raises(Fenced):
        run(journal.append(9, 1, [b"x"], []))
    for use in (
        lambda: run(journal.append(4, 1, [b"x"], [])),
        lambda: run(journal.find_keys([b"k"])),
        lambda: run(journal.check_owner()),
        lambda: journal.read(1, ALL),
        lambda: journal.truncate(0),
        journal.status,
        lambda: journal.save_snapshot(1, b"s"),
    ):
        with pytest.raises(Fenced):
            use()
    assert bodies(place.open()) == [*ABC]


@pytest.mark.parametrize(
    ("bodies_", "keys"),
    [((), ()), ((), (b"k",)), ((b"x",), (b"old",)), ((b"x",), (b"k", b"k"))],
    ids=["no entries", "a key alone", "a key remembered already", "a key twice"],
)
def test_a_bug_of_the_caller_appends_nothing_and_ends_the_journal(
    place: Place, bodies_: tuple[bytes, ...], keys: tuple[bytes, ...]
) -> None:
    journal = place.open()
    put(journal, b"a", keys=(b"old",))
    with pytest.raises(AssertionError):
        run(journal.append(2, 1, bodies_, keys))
    with pytest.raises(JournalFailed):
        run(journal.append(2, 1, [b"x"], []))
    again = place.open()
    assert bodies(again) == [b"a"]
    assert run(again.find_keys([b"k", b"old"])) == {b"old"}


def test_a_closed_journal_refuses_everything_but_to_be_closed(place: Place) -> None:
    journal = place.open()
    put(journal, b"a")
    journal.close()
    journal.close()
    with pytest.raises(JournalFailed, match="closed"):
        journal.status()
    with pytest.raises(JournalFailed, match="closed"):
        run(journal.append(2, 1, [b"b"], []))


@pytest.mark.parametrize(
    ("from_seq", "bytes_max", "expected"),
    [
        (1, 0, [1]),
        (1, 29, [1, 2]),
        (1, 30, [1, 2, 3]),
        (1, ALL, [1, 2, 3, 4, 5]),
        (3, 20, [3, 4]),
        (5, 0, [5]),
        (6, ALL, []),
        (7, ALL, []),
        (1000, ALL, []),
    ],
)
def test_reading_is_bounded_but_always_gets_on(
    place: Place, from_seq: int, bytes_max: int, expected: list[int]
) -> None:
    journal = place.open()
    put(journal, *[b"0123456789"] * 5)
    assert [entry.seq for entry in journal.read(from_seq, bytes_max)] == expected
    assert [entry.seq for entry in place.reader().read(from_seq, bytes_max)] == expected


def test_entries_are_numbered_from_one(place: Place) -> None:
    with pytest.raises(AssertionError):
        place.open().read(0, ALL)


def test_a_reader_follows_the_owner(place: Place) -> None:
    journal = place.open()
    reader = place.reader()
    assert reader.read(1, ALL) == []
    for n in range(1, 6):
        put(journal, b"%d" % n, epoch=n)
        assert reader.read(n, ALL) == entries((n, n, b"%d" % n))
        assert (reader.status().next_seq, reader.status().last_epoch) == (n + 1, n)
    journal.save_snapshot(3, b"by the owner")
    assert reader.load_snapshot() == (3, b"by the owner")
    reader.save_snapshot(5, b"by the reader")
    assert journal.load_snapshot() == (5, b"by the reader")
    assert opened(journal) == Opened(b"by the reader", 5, 6, 5)
    run(journal.check_owner())


def test_a_reader_outlives_the_owner(place: Place) -> None:
    journal = place.open()
    put(journal, *ABC)
    reader = place.reader()
    journal.close()
    assert bodies(reader) == [*ABC]
    assert bodies(place.reader()) == [*ABC]


def test_the_newest_of_the_saved_snapshots_is_loaded(place: Place) -> None:
    journal = place.open()
    put(journal, *[b"x"] * 9)
    for seq in (2, 4, 6, 5):
        journal.save_snapshot(seq, b"state %d" % seq)
    assert journal.load_snapshot() == (6, b"state 6")
    journal.save_snapshot(6, b"state 6")
    journal.save_snapshot(9, b"")
    assert place.open().load_snapshot() == (9, b"")


# Snapshots are kept of entries 4 and 7.  The bound, and the entry whose snapshot is loaded.
BOUNDS = [(None, 7), (100, 7), (7, 7), (6, 4), (4, 4), (3, None), (0, None)]


@pytest.mark.parametrize(("seq_max", "expected"), BOUNDS)
def test_the_newest_snapshot_that_is_not_beyond_an_entry_is_loaded(
    place: Place, seq_max: int | None, expected: int | None
) -> None:
    journal = place.open()
    put(journal, *[b"x"] * 9)
    for seq in (2, 4, 7):
        journal.save_snapshot(seq, b"state %d" % seq)
    found = None if expected is None else (expected, b"state %d" % expected)
    for reader in (journal, place.reader()):
        assert reader.load_snapshot(seq_max) == found
    # Where the journal does not begin at 1 any more, there must be one.
    journal.truncate(4)
    for reader in (journal, place.reader()):
        if found is not None:
            assert reader.load_snapshot(seq_max) == found
            continue
        with pytest.raises(SnapshotBroken, match=rf"{STREAM}: .* 1 to 4 .*after entry {seq_max} "):
            reader.load_snapshot(seq_max)


@pytest.mark.parametrize("seq", [0, 4, 100])
def test_only_what_was_committed_can_be_in_a_snapshot(place: Place, seq: int) -> None:
    journal = place.open()
    put(journal, *ABC)
    with pytest.raises(AssertionError):
        journal.save_snapshot(seq, b"s")
    assert journal.load_snapshot() is None


def test_truncation_stops_at_the_older_of_two_snapshots(place: Place) -> None:
    journal = place.open()
    put(journal, *[b"%d" % n for n in range(1, 11)], keys=(b"k1",))
    journal.truncate(0)
    for seq, allowed in ((3, 0), (6, 3), (8, 6)):
        journal.save_snapshot(seq, b"s")
        with pytest.raises(TruncateRefused, match=STREAM):
            journal.truncate(allowed + 1)
        assert len(bodies(journal)) == 10
    journal.truncate(6)
    assert journal.status().oldest_seq == 7
    journal.truncate(2)
    again = place.open()
    assert again.status().oldest_seq == 7
    assert bodies(again, 7) == [b"7", b"8", b"9", b"10"]
    assert run(again.find_keys([b"k1"])) == {b"k1"}
    assert opened(again) == Opened(b"s", 8, 11, 1)


def test_what_was_truncated_cannot_be_read_by_mistake(place: Place) -> None:
    journal = place.open()
    put(journal, *[b"x"] * 5)
    for seq in (3, 4):
        journal.save_snapshot(seq, b"s")
    journal.truncate(3)
    for from_seq in (1, 3):
        with pytest.raises(JournalForgotten, match="4"):
            journal.read(from_seq, ALL)
        with pytest.raises(JournalForgotten, match="4"):
            place.reader().read(from_seq, ALL)
    with pytest.raises(SnapshotFailed):
        journal.save_snapshot(2, b"late")
    assert [entry.seq for entry in journal.read(4, ALL)] == [4, 5]


def test_a_stream_that_was_truncated_whole_goes_on(place: Place) -> None:
    journal = place.open()
    put(journal, b"a", b"b", epoch=4)
    journal.save_snapshot(1, b"s1")
    journal.save_snapshot(2, b"s2")
    journal.truncate(1)
    put(journal, b"c", epoch=4)
    journal.save_snapshot(3, b"s3")
    journal.save_snapshot(3, b"s3")
    journal.truncate(2)
    put(journal, b"d", epoch=5)
    for seq in (3, 4):
        journal.save_snapshot(seq, b"s%d" % seq)
    journal.truncate(3)
    assert opened(place.open()) == Opened(b"s4", 4, 5, 5)
    journal = place.open()
    with pytest.raises(Fenced):
        run(journal.append(5, 4, [b"e"], []))
    journal = place.open()
    put(journal, b"e", epoch=5)
    assert bodies(journal, 4) == [b"d", b"e"]


def test_appends_come_one_after_the_other_on_one_loop(place: Place) -> None:
    journal = place.open()

    async def many() -> None:
        await asyncio.gather(*(journal.append(n, 1, [b"%d" % n], []) for n in range(1, 200)))
        await journal.check_owner()

    run(many())
    assert bodies(journal) == [b"%d" % n for n in range(1, 200)]


def test_status_says_what_the_entries_take(place: Place) -> None:
    journal = place.open()
    assert journal.status().bytes < 50_000
    put(journal, b"x" * 50_000)
    assert journal.status().bytes >= 50_000
    assert place.reader().status().bytes >= 50_000
