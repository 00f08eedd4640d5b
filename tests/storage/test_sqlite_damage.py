"""Damage to the files of a SQLite journal: seen, named with what to do, and never built on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from excore_ray.errors import JournalBroken, JournalForeign, SnapshotBroken
from excore_ray.storage.chain import entry_crc
from excore_ray.storage.sqlite import open_sqlite, read_sqlite
from tests.storage.places import ALL, OWNER, STREAM, edit, filled, forget_note, put, use


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "data"


DAMAGE = {
    "a body": ("UPDATE journal SET body = CAST('X' AS BLOB) WHERE seq = 7", 7, "CRC"),
    "a bit of a body": (
        "UPDATE journal SET body = CAST(replace(body, '007', '006') AS BLOB) WHERE seq = 7",
        7,
        "CRC",
    ),
    "an epoch": ("UPDATE journal SET epoch = 2 WHERE seq = 7", 7, "CRC"),
    "a CRC": ("UPDATE journal SET crc = crc + 1 WHERE seq = 7", 7, "CRC"),
    "a chain": ("UPDATE journal SET chain = zeroblob(32) WHERE seq = 7", 7, "running hash"),
    "an entry gone": ("DELETE FROM journal WHERE seq = 7", 7, "the entry after 6 is 8"),
    "the first gone": ("DELETE FROM journal WHERE seq = 1", 1, "the entry after 0 is 2"),
    "one in the tail": ("UPDATE journal SET epoch = 2 WHERE seq = 40", 40, "CRC"),
    "the base": ("UPDATE base SET chain = zeroblob(32)", 1, "running hash"),
}


@pytest.mark.parametrize(("statement", "seq", "word"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_stops_the_replay_at_the_entry(
    place: Path, statement: str, seq: int, word: str
) -> None:
    filled(place)
    edit(place, statement)
    with pytest.raises(JournalBroken) as caught:
        use(place)
    message = str(caught.value)
    assert all(part in message for part in (STREAM, f"entry {seq} ", word, "restore", str(place)))
    with closing(read_sqlite(place, STREAM)) as reader:
        with pytest.raises(JournalBroken, match=f"entry {seq} "):
            reader.read(1, ALL)
        if seq > 1:
            # What comes before the damage can be had, for whoever rescues it.
            assert len(reader.read(1, 509 * (seq - 1))) == seq - 1


def test_damage_among_the_newest_entries_stops_the_opening(place: Path) -> None:
    filled(place)
    edit(place, "UPDATE journal SET epoch = 2 WHERE seq = 39")
    with pytest.raises(JournalBroken, match="entry 39 "):
        open_sqlite(place, STREAM, owner=OWNER)


def test_a_body_of_another_type_is_damage(place: Path) -> None:
    filled(place)
    edit(place, "UPDATE journal SET body = 7 WHERE seq = 7")
    with pytest.raises(JournalBroken, match=r"entry 7 .*not bytes"):
        use(place)


# Damage can turn any column into any type, and a text into none.
ODD = {
    "a hash": "UPDATE journal SET chain = 'text' WHERE seq = 40",
    "half a hash": "UPDATE journal SET chain = zeroblob(16) WHERE seq = 40",
    "an epoch in the middle": "UPDATE journal SET epoch = 'text' WHERE seq = 7",
    "a negative epoch": "UPDATE journal SET epoch = -1 WHERE seq = 40",
    "no base": "DELETE FROM base",
    "the hash of the base": "UPDATE base SET chain = 'text'",
    "the place of the base": "UPDATE base SET seq = 5",
    "a text": "INSERT INTO meta VALUES (CAST(x'ff' AS TEXT), 1)",
    "a table gone": "DROP TABLE base",
    "a column gone": "ALTER TABLE journal RENAME COLUMN crc TO krc",
}


@pytest.mark.parametrize("statement", ODD.values(), ids=ODD.keys())
def test_rows_that_were_never_written_are_damage(place: Path, statement: str) -> None:
    filled(place)
    edit(place, statement)
    with pytest.raises(JournalBroken, match=rf"{place}.* restore the stream from a backup"):
        use(place)


def test_an_old_copy_is_not_taken_until_its_loss_is_accepted(place: Path) -> None:
    filled(place, 10)
    copy = (place / f"{STREAM}.db").read_bytes()
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        put(journal, b"acknowledged")
    (place / f"{STREAM}.db").write_bytes(copy)
    for opened in (use, lambda _: read_sqlite(place, STREAM)):
        with pytest.raises(JournalBroken, match=r"with entry 10, but .*\.head says .* entry 11 "):
            opened(place)
    forget_note(place)
    use(place)


def test_a_copy_of_another_history_is_seen(place: Path) -> None:
    filled(place, 10)
    copy = (place / f"{STREAM}.db").read_bytes()
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        put(journal, b"acknowledged")
    note = (place / f"{STREAM}.head").read_bytes()
    (place / f"{STREAM}.db").write_bytes(copy)
    forget_note(place)
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        put(journal, b"another", b"and more")
    (place / f"{STREAM}.head").write_bytes(note)
    with pytest.raises(JournalBroken, match="another entry 11 than"):
        use(place)


def test_a_damaged_note_is_told_and_written_anew(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(place, 3)
    note = place / f"{STREAM}.head"
    before = note.read_bytes()
    note.write_bytes(before[:20])
    use(place)
    assert f"{note} is damaged" in caplog.text
    assert note.read_bytes() == before


def test_a_forged_entry_with_a_right_crc_breaks_the_chain(place: Path) -> None:
    filled(place)
    crc = entry_crc(7, 1, b"mine")
    edit(place, f"UPDATE journal SET body = CAST('mine' AS BLOB), crc = {crc} WHERE seq = 7")
    with pytest.raises(JournalBroken, match=r"entry 7 .* running hash"):
        use(place)


def test_a_flipped_bit_in_the_file_is_found(place: Path) -> None:
    filled(place)
    path = place / f"{STREAM}.db"
    data = bytearray(path.read_bytes())
    at = data.index(b"entry 007.....")
    data[at + 20] ^= 4
    path.write_bytes(data)
    with pytest.raises(JournalBroken, match=f"stream {STREAM}: entry 7 .*CRC"):
        use(place)


def test_a_file_that_is_torn_to_pieces_is_broken(place: Path) -> None:
    filled(place)
    path = place / f"{STREAM}.db"
    path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 20_000)
    with pytest.raises(JournalBroken, match="restore"):
        use(place)
    path.write_bytes(b"\xff" * 20_000)
    with pytest.raises(JournalBroken, match="restore"):
        use(place)
    with pytest.raises(JournalBroken, match="restore"):
        read_sqlite(place, STREAM)


FOREIGN = {
    "newer": ("UPDATE meta SET value = 3 WHERE name = 'schema'", "newer than this one"),
    "older": ("UPDATE meta SET value = 1 WHERE name = 'schema'", "older than this one"),
    "none": ("DELETE FROM meta WHERE name = 'schema'", "older than this one"),
    "another stream": ("UPDATE meta SET value = 'ledger-9' WHERE name = 'stream'", "of stream led"),
    "no journal": ("DROP TABLE meta", "no journal"),
}


@pytest.mark.parametrize(("statement", "word"), FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_file_is_refused_and_not_touched(place: Path, statement: str, word: str) -> None:
    filled(place, 2)
    edit(place, statement)
    path = place / f"{STREAM}.db"
    before = path.read_bytes()
    with pytest.raises(JournalForeign, match=word):
        use(place)
    with pytest.raises(JournalForeign, match=word):
        read_sqlite(place, STREAM)
    assert path.read_bytes() == before


def lose_both(place: Path) -> None:
    for path in place.glob("*.snapshot"):
        path.write_bytes(b"damaged")


def lose_newest(place: Path) -> None:
    max(place.glob("*.snapshot")).unlink()


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("lose", [lose_both, lose_newest])
def test_a_restart_without_its_newest_snapshots(
    place: Path, truncated: bool, lose: Callable[[Path], None]
) -> None:
    filled(place)
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        journal.save_snapshot(20, b"older")
        journal.save_snapshot(30, b"newer")
        if truncated:
            journal.truncate(20)
    lose(place)
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        if lose is lose_newest:
            assert journal.load_snapshot() == (20, b"older")
        elif truncated:
            with pytest.raises(SnapshotBroken, match=f"{STREAM}.*1 to 20 were truncated.*backup"):
                journal.load_snapshot()
        else:
            assert journal.load_snapshot() is None


def test_a_damaged_snapshot_that_a_rebuild_needs_is_told_with_what_to_put_back(
    place: Path,
) -> None:
    filled(place)
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        journal.save_snapshot(20, b"older")
        journal.save_snapshot(30, b"newer")
        journal.truncate(20)
    min(place.glob("*.snapshot")).write_bytes(b"damaged")
    with closing(read_sqlite(place, STREAM)) as reader:
        assert reader.load_snapshot() == (30, b"newer")
        with pytest.raises(SnapshotBroken, match=r"1 to 20 were truncated.* entry 20 to 29 from a"):
            reader.load_snapshot(29)


def test_a_journal_shorter_than_its_snapshot_has_lost_entries(place: Path) -> None:
    filled(place, 10)
    copy = (place / f"{STREAM}.db").read_bytes()
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        put(journal, b"x", b"y")
        journal.save_snapshot(12, b"s")
    (place / f"{STREAM}.db").write_bytes(copy)
    forget_note(place)
    with pytest.raises(JournalBroken, match=r"snapshot of entry 12, but .* ends with entry 10"):
        use(place)


def test_a_snapshot_of_another_history_is_not_loaded(place: Path) -> None:
    filled(place, 10)
    copy = (place / f"{STREAM}.db").read_bytes()
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        journal.save_snapshot(10, b"both")
        put(journal, b"x", b"y")
        journal.save_snapshot(12, b"of the first history")
    (place / f"{STREAM}.db").write_bytes(copy)
    forget_note(place)
    newest = place / f"{STREAM}.00000000000000000012.snapshot"
    away = newest.rename(place / "away")
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        put(journal, b"p", b"q", b"r")
        away.rename(newest)
        assert journal.load_snapshot() == (10, b"both")
