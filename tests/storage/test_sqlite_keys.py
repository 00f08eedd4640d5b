"""The dedupe keys: all that were appended are found, no others, and damage never hides one."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from excore_ray.errors import JournalBroken
from excore_ray.storage.sqlite import open_sqlite, read_sqlite
from excore_ray.storage.sqlite_faults import OddRows
from excore_ray.storage.sqlite_keys import BLOCK_KEYS_MAX, Keys
from tests.storage.places import OWNER, STREAM, edit, put, run

SEQS, A_SEQ = 60, 20


def keys_of(seq: int) -> list[bytes]:
    return [b"%d:USDT:%d:deposit" % (seq, number) for number in range(A_SEQ)]


ALL_KEYS = [key for seq in range(1, SEQS + 1) for key in keys_of(seq)]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "some.db", isolation_level=None)) as found:
        yield found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_found_is_what_was_appended(seed: int, db: sqlite3.Connection) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    keys, said = Keys(db, STREAM), dict[bytes, int]()
    keys.create()
    fresh = iter(chance.sample(range(1_000_000), 4_000))
    for seq in range(1, 80):
        new = [b"%d" % next(fresh) for _ in range(chance.choice((0, 1, 2, 40)))]
        asked = [*new, *chance.sample(sorted(said), min(5, len(said)))]
        if chance.random() < 0.7:
            assert keys.find(asked) == said.keys() & set(asked)
        db.execute("BEGIN")
        keys.insert(new, seq)
        if chance.random() < 0.2:
            db.execute("ROLLBACK")
            continue
        db.execute("COMMIT")
        said.update(dict.fromkeys(new, seq))
        if chance.random() < 0.1:
            # As another incarnation.
            keys = Keys(db, STREAM)
            assert keys.check(seq) == len(said)
    assert keys.find([*said, b"another"]) == said.keys()
    [(blocks, longest)] = db.execute("SELECT count(*), max(length(body)) FROM keys")
    assert blocks > len(said) / BLOCK_KEYS_MAX
    assert longest <= 24 * BLOCK_KEYS_MAX
    for last in (60, 30, 0):
        keys.forget_after(last)
        left = {key for key, seq in said.items() if seq <= last}
        assert keys.find(list(said)) == left
        assert keys.check(last) == len(left)


def test_an_append_that_did_not_happen_is_tried_again(db: sqlite3.Connection) -> None:
    keys = Keys(db, STREAM)
    keys.create()
    assert keys.find([b"a", b"b"]) == frozenset()
    for end in ("ROLLBACK", "COMMIT"):
        db.execute("BEGIN")
        keys.insert([b"a", b"b"], 1)
        db.execute(end)
    assert keys.find([b"a", b"b", b"c"]) == {b"a", b"b"}
    assert keys.check(1) == 2


@pytest.mark.parametrize("again", [[b"old"], [b"new", b"new"]])
def test_a_key_is_appended_once(again: list[bytes], db: sqlite3.Connection) -> None:
    for looked in (False, True):
        keys = Keys(db, STREAM)
        if not looked:
            keys.create()
            keys.insert([b"old"], 1)
        else:
            keys.find(again)
        with pytest.raises(AssertionError, match="a key was appended before"):
            keys.insert(again, 2)


FOURTH = "(SELECT first FROM keys ORDER BY first LIMIT 1 OFFSET 3)"
DAMAGE = {
    "a block gone": f"DELETE FROM keys WHERE first = {FOURTH}",
    "the first gone": "DELETE FROM keys WHERE first = 0",
    "the last gone": "DELETE FROM keys WHERE first = (SELECT max(first) FROM keys)",
    "all gone": "DELETE FROM keys",
    "no table": "DROP TABLE keys",
    "one key gone": f"UPDATE keys SET body = substr(body, 25) WHERE first = {FOURTH}",
    "half a key": f"UPDATE keys SET body = substr(body, 13) WHERE first = {FOURTH}",
    "a shorter range": f"UPDATE keys SET last = last - 1 WHERE first = {FOURTH}",
    "a later range": f"UPDATE keys SET first = first + 1 WHERE first = {FOURTH}",
    "a CRC": f"UPDATE keys SET crc = crc + 1 WHERE first = {FOURTH}",
    "a CRC that is text": f"UPDATE keys SET crc = 'text' WHERE first = {FOURTH}",
    "a body that is text": f"UPDATE keys SET body = 'text' WHERE first = {FOURTH}",
    "an end that is text": f"UPDATE keys SET last = 'text' WHERE first = {FOURTH}",
    "a block of another place": f"""UPDATE keys SET (crc, body) =
        (SELECT crc, body FROM keys WHERE first = 0) WHERE first = {FOURTH}""",
    "a block before all others": "INSERT INTO keys VALUES (-5, -1, 0, x'')",
}
HARMLESS = {"a block before all others"}  # to who looks for a key


def written(place: Path) -> None:
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        for seq in range(1, SEQS + 1):
            put(journal, b"{}", keys=tuple(keys_of(seq)))


def find(place: Path) -> None:
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        run(journal.find_keys(ALL_KEYS))


def append(place: Path) -> None:
    with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
        put(journal, b"{}", keys=tuple(b"new %d" % number for number in range(1_000)))


def check(place: Path) -> None:
    with closing(read_sqlite(place, STREAM)) as reader:
        assert reader.check_keys() == len(ALL_KEYS)


def test_untouched_keys_are_all_there(tmp_path: Path) -> None:
    written(tmp_path)
    with closing(open_sqlite(tmp_path, STREAM, owner=OWNER)) as journal:
        assert run(journal.find_keys([*ALL_KEYS, *keys_of(0)])) == set(ALL_KEYS)
        check(tmp_path)  # beside the owner
    check(tmp_path)
    append(tmp_path)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("use", [find, append, check])
def test_damage_halts_whoever_asks(
    use: Callable[[Path], None], damage: str, tmp_path: Path
) -> None:
    written(tmp_path)
    edit(tmp_path, DAMAGE[damage])
    if damage in HARMLESS and use is not check:
        use(tmp_path)
        return
    with pytest.raises(JournalBroken, match=r"keys.* restore the stream from a backup"):
        use(tmp_path)


def test_no_key_is_of_an_entry_that_is_not_there(db: sqlite3.Connection) -> None:
    keys = Keys(db, STREAM)
    keys.create()
    keys.insert([b"a"], 7)
    assert keys.check(7) == 1
    with pytest.raises(OddRows, match="do not belong there"):
        keys.check(6)


def test_keys_of_another_stream_are_damage(tmp_path: Path, db: sqlite3.Connection) -> None:
    keys = Keys(db, STREAM)
    keys.create()
    keys.insert([b"a"], 1)
    with pytest.raises(OddRows, match="CRC"):
        Keys(db, "another").find([b"a"])
