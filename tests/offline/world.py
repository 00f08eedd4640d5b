"""An exchange that has ended, as files: journals, snapshots and a lake, and defects to plant.

Separate because audit, backup and restore all look at such files.  The machines are the real
ones, driven by `Life`; its disks are written out as the journals of a data directory.  A journal
that is wrong is written by the library, with good CRCs and a good chain: only what it says is
wrong.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from analytics.lake import Lake
from excore_ray.actors.replay import KINDS, kind_of
from excore_ray.core import commands as c
from excore_ray.core.snapshot import dump, state_hash
from excore_ray.offline.backup import Source
from excore_ray.serving import Places
from excore_ray.storage.journal import Entry
from excore_ray.storage.memory import MemoryDisk
from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import open_sqlite
from tests.actors.archive_world import AT_ONCE, Clock, Life, archive_of, live

Change = Callable[[Any], Any]
SECRET = b"of the cluster"


class Remembered(Life):
    """landed: every entry of every stream, in the order in which they were written."""

    def __init__(self) -> None:
        self.landed: list[tuple[str, Entry]] = []
        super().__init__()

    def _land(self, stream: str, epoch: int, record: Any) -> None:
        super()._land(stream, epoch, record)
        self.landed.append((stream, self.disks[stream].entries[-1]))


def lived(seed: int = 1, steps: int = 150, settle: bool = True) -> Remembered:
    """An exchange with a past.  settle: whether its shards have applied everything."""
    life = Remembered()
    live(life, random.Random(seed), steps)
    if settle:
        life.settle_all()
    return life


class Planted:
    """The data directory of an exchange that does not run."""

    def __init__(self, root: Path, life: Remembered) -> None:
        self.places = Places(root)
        self.life = life
        self.kept: dict[str, list[int]] = {}  # snapshots to be written, by stream
        self.forgotten: dict[str, int] = {}  # truncated up to here

    def fill_lake(self) -> Lake:
        """Bring all that the journals have into the lake."""
        lake = Lake(str(self.places.lake))
        archive = archive_of(self.life, lake, Clock(), AT_ONCE)

        async def work() -> None:
            await archive.round()
            await archive.finish()
            await archive.close()

        asyncio.run(work())
        return lake

    def write(self) -> None:
        """Write the journals and snapshots out, as they are now on the disks of the life."""
        asyncio.run(self._write())

    async def _write(self) -> None:
        for stream, disk in self.life.disks.items():
            journal = open_sqlite(self.places.journals, stream, owner=Ownership(stream))
            for entry in disk.entries:
                keys = [key for key, seq in disk.keys.items() if seq == entry.seq]
                await journal.append(entry.seq, entry.epoch, [entry.body], keys)
            for seq in self.kept.get(stream, []):
                journal.save_snapshot(seq, dump(machine_at(disk, seq)))
            if stream in self.forgotten:
                journal.truncate(self.forgotten[stream])
            journal.close()

    def change(self, stream: str, change: Change) -> int:
        """Rewrite a journal as if the actor had run other commands; how many were changed.

        change: gets each command, and gives it back, or another, or None for none.
        """
        disk = self.life.disks[stream]
        kind = KINDS[kind_of(stream)]
        machine, changed = kind.make(), 0
        again = MemoryDisk(stream)
        for entry in disk.entries:
            record = kind.decode(entry.body)
            machine.begin(record.time_us)
            commands: list[Any] = []
            for command in record.commands:
                made = change(command)
                changed += made is not command
                if type(made) is c.Checkpoint:
                    made = c.Checkpoint(state_hash(machine))
                elif made is not None:
                    machine.execute(made)
                commands += [made] if made is not None else []
            body = msgspec.json.encode(machine.record(commands))
            again.land(entry.seq, entry.epoch, [body], [])
        self.life.disks[stream] = again
        return changed


def machine_at(disk: MemoryDisk, seq: int) -> Any:
    """The machine of a stream after entry `seq`."""
    kind = KINDS[kind_of(disk.stream)]
    machine = kind.make()
    for entry in disk.entries[:seq]:
        machine.apply(kind.decode(entry.body), state_hash)
    return machine


def newest(life: Life, stream: str) -> int:
    """The newest entry of a stream."""
    return life.disks[stream].next_seq - 1


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""


def made(root: Path, seed: int = 1) -> Planted:
    """A data directory in order, as an exchange leaves it."""
    planted = Planted(root / "data", lived(seed))
    planted.fill_lake()
    planted.write()
    planted.places.secret.write_bytes(SECRET)
    planted.places.admin.write_text('{"key": "k", "secret": "s"}')
    planted.places.running.write_text("{}")
    return planted


def source_of(planted: Planted, link: bool = False) -> Source:
    places = planted.places
    return Source(places.journals, str(places.lake), (places.secret, places.admin), link)
