"""Any sequence of uses of the port, held against a naive model: a list, a set and a dictionary."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from excore_ray.errors import Fenced, JournalForgotten, SnapshotBroken, TruncateRefused
from excore_ray.storage.journal import Entry, opened
from tests.storage.places import ALL, PLACES, run

BODIES = st.lists(st.binary(max_size=40) | st.just(b"long" * 3000), min_size=1, max_size=4)
KEYS = st.lists(st.binary(max_size=2), max_size=4, unique=True)


class Machine(RuleBasedStateMachine):
    """The port against the model; subclasses say which implementation."""

    implementation: str

    @initialize()
    def start(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.place = PLACES[self.implementation](Path(self.directory))
        self.journal = self.place.open()
        self.entries: list[Entry] = []
        self.keys: set[bytes] = set()
        self.snapshots: dict[int, bytes] = {}
        self.base = 0

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.place.close()
            shutil.rmtree(self.directory)

    @property
    def last_epoch(self) -> int:
        return self.entries[-1].epoch if self.entries else 0

    @rule(bodies=BODIES, keys=KEYS, newer=st.integers(0, 2))
    def append(self, bodies: list[bytes], keys: list[bytes], newer: int) -> None:
        seq, epoch = len(self.entries) + 1, self.last_epoch + newer
        fresh = [key for key in keys if key not in self.keys]
        run(self.journal.append(seq, epoch, bodies, fresh))
        self.entries += [Entry(at, epoch, body) for at, body in enumerate(bodies, seq)]
        self.keys |= set(fresh)

    @rule(off=st.sampled_from([-3, -1, 1, 2]), bodies=BODIES, keys=KEYS)
    def append_elsewhere(self, off: int, bodies: list[bytes], keys: list[bytes]) -> None:
        with pytest.raises(Fenced):
            run(self.journal.append(len(self.entries) + 1 + off, self.last_epoch, bodies, keys))
        self.restart()

    @precondition(lambda self: self.last_epoch > 0)
    @rule(bodies=BODIES)
    def append_as_an_old_incarnation(self, bodies: list[bytes]) -> None:
        with pytest.raises(Fenced):
            run(self.journal.append(len(self.entries) + 1, self.last_epoch - 1, bodies, []))
        self.restart()

    @precondition(lambda self: self.keys)
    @rule(data=st.data(), bodies=BODIES)
    def append_a_key_again(self, data: st.DataObject, bodies: list[bytes]) -> None:
        key = data.draw(st.sampled_from(sorted(self.keys)))
        with pytest.raises(AssertionError):
            run(self.journal.append(len(self.entries) + 1, self.last_epoch, bodies, [key]))
        self.restart()

    @rule()
    def restart(self) -> None:
        self.journal = self.place.open()
        found = opened(self.journal)
        newest = max(self.snapshots, default=0)
        assert (found.snapshot_seq, found.snapshot) == (newest, self.snapshots.get(newest))
        assert (found.next_seq, found.last_epoch) == (len(self.entries) + 1, self.last_epoch)

    @rule(keys=st.lists(st.binary(max_size=2)))
    def find_keys(self, keys: list[bytes]) -> None:
        assert run(self.journal.find_keys(keys)) == self.keys & set(keys)

    @rule(data=st.data(), bytes_max=st.integers(0, 30_000))
    def read(self, data: st.DataObject, bytes_max: int) -> None:
        from_seq = data.draw(st.integers(1, len(self.entries) + 3))
        if from_seq <= self.base:
            with pytest.raises(JournalForgotten):
                self.journal.read(from_seq, bytes_max)
            return
        found = self.journal.read(from_seq, bytes_max)
        expected = self.entries[from_seq - 1 :]
        assert found == expected[: len(found)]
        size = sum(len(entry.body) for entry in found)
        assert len(found) <= 1 or size <= bytes_max
        if len(found) < len(expected):
            assert found
            assert size + len(expected[len(found)].body) > bytes_max

    @precondition(lambda self: len(self.entries) > self.base)
    @rule(data=st.data(), body=st.binary(max_size=100), by_reader=st.booleans())
    def save_snapshot(self, data: st.DataObject, body: bytes, by_reader: bool) -> None:
        seq = data.draw(st.integers(max(self.base, 1), len(self.entries)))
        writer = self.place.reader() if by_reader else self.journal
        writer.save_snapshot(seq, body)
        self.snapshots[seq] = body
        self.snapshots = {at: self.snapshots[at] for at in sorted(self.snapshots)[-2:]}

    @rule(data=st.data(), by_reader=st.booleans())
    def load_snapshot(self, data: st.DataObject, by_reader: bool) -> None:
        seq_max = data.draw(st.integers(0, len(self.entries) + 1))
        reader = self.place.reader() if by_reader else self.journal
        fitting = {at: body for at, body in self.snapshots.items() if at <= seq_max}
        if self.base and not fitting:
            with pytest.raises(SnapshotBroken):
                reader.load_snapshot(seq_max)
        else:
            assert reader.load_snapshot(seq_max) == max(fitting.items(), default=None)

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        up_to = data.draw(st.integers(0, len(self.entries) + 1))
        older = min(self.snapshots) if len(self.snapshots) == 2 else 0
        if up_to > older:
            with pytest.raises(TruncateRefused):
                self.journal.truncate(up_to)
        else:
            self.journal.truncate(up_to)
            self.base = max(self.base, up_to)

    @invariant()
    def everything_is_there(self) -> None:
        if not hasattr(self, "place"):
            return
        status = self.journal.status()
        assert (status.next_seq, status.last_epoch) == (len(self.entries) + 1, self.last_epoch)
        assert status.oldest_seq == self.base + 1
        assert self.journal.read(self.base + 1, ALL) == self.entries[self.base :]


class MemoryMachine(Machine):
    implementation = "memory"


class SqliteMachine(Machine):
    implementation = "sqlite"


# A failure prints the steps that lead to it, and the seed.
CHECKS: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}
MemoryMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, **CHECKS)
SqliteMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, **CHECKS)

TestMemory = MemoryMachine.TestCase
TestSqlite = SqliteMachine.TestCase
