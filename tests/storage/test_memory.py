"""What only the journal in memory promises: several incarnations at once on one disk."""

from __future__ import annotations

import pytest

from excore_ray.errors import Fenced
from excore_ray.storage.memory import MemoryDisk, open_memory, read_memory
from tests.storage.places import bodies, put, run


def test_an_older_incarnation_is_not_the_owner_any_more() -> None:
    disk = MemoryDisk("m")
    old = open_memory(disk)
    run(old.check_owner())
    read_memory(disk)
    run(old.check_owner())
    new = open_memory(disk)
    with pytest.raises(Fenced):
        run(old.check_owner())
    with pytest.raises(Fenced):
        run(old.find_keys([b"k"]))
    run(new.check_owner())


def test_an_append_of_an_older_incarnation_that_lands_late_fences_the_newer() -> None:
    disk = MemoryDisk("m")
    old = open_memory(disk)
    put(old, b"a")
    new = open_memory(disk)
    old.land(2, 1, [b"late"], [])
    with pytest.raises(Fenced):
        run(new.append(2, 2, [b"mine"], []))
    assert bodies(open_memory(disk)) == [b"a", b"late"]


def test_an_append_of_an_older_incarnation_that_lands_too_late_does_not_land() -> None:
    disk = MemoryDisk("m")
    old = open_memory(disk)
    new = open_memory(disk)
    put(new, b"mine", epoch=2)
    for seq in (1, 2):
        with pytest.raises(Fenced):
            disk.land(seq, 1, [b"late"], [b"k"])
    with pytest.raises(Fenced):
        old.land(2, 1, [b"late"], [])
    assert bodies(new) == [b"mine"]
    assert run(new.find_keys([b"k"])) == frozenset()


def test_what_the_caller_changes_afterwards_is_not_changed_on_the_disk() -> None:
    journal = open_memory(MemoryDisk("m"))
    body = bytearray(b"a")
    run(journal.append(1, 1, [memoryview(body)], []))  # type: ignore[list-item]
    body[0] = 0
    assert bodies(journal) == [b"a"]
