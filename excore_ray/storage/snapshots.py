"""Snapshot files: the state after one entry of a stream, whole or not at all.

Separate from the journal because they are written by another process, the compactor, and because
every embedded journal can keep them.  It must not know what a snapshot says, nor the database.

    <stream>.<seq, 20 digits>.snapshot =
        magic, 8 bytes | u32 format | u64 seq | u64 length of the body | chain, 32 bytes
        | SHA-256 of all before it and the body, 32 bytes | body                    (big endian)

`chain` is the running hash of the journal after entry `seq`: a snapshot of another history, left
lying about when a backup was restored, is recognised and passed over.

A file is written under a temporary name, synced, renamed and the directory synced, so what bears
the name is complete.  The two newest that verify are kept; one that does not verify is never
counted, and stays until two good ones are newer, for whoever looks into the damage.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from excore_ray.errors import SnapshotFailed
from excore_ray.storage.journal import SNAPSHOTS_KEPT

logger = logging.getLogger(__name__)

MAGIC = b"excorsnp"
FORMAT = 1
_HEADER = struct.Struct(">8sIQQ32s")
_DIGEST_BYTES = 32


class Snapshot(msgspec.Struct, frozen=True):
    """A snapshot that verified.  chain: the running hash of its journal after entry `seq`."""

    seq: int
    chain: bytes
    body: bytes


class SnapshotFiles:
    """The snapshots of one stream in one directory.

    agrees: tells of (seq, chain) whether the journal has, or had, exactly this history; asked of
    every snapshot that is read, so it may raise what the journal raises.
    """

    def __init__(self, directory: Path, stream: str, agrees: Callable[[int, bytes], bool]) -> None:
        self.directory = directory
        self.stream = stream
        self._agrees = agrees
        self._name = re.compile(rf"{re.escape(stream)}\.(\d{{20}})\.snapshot")
        self._partial = re.compile(rf"{re.escape(stream)}\.\d{{20}}\.snapshot\.(\d+)\.partial")

    def path(self, seq: int) -> Path:
        """Where the snapshot after entry `seq` is, or would be."""
        return self.directory / f"{self.stream}.{seq:020d}.snapshot"

    def valid(self, seq_max: int | None = None) -> Iterator[Snapshot]:
        """The snapshots that verify, newest first; the others are logged.  Reads lazily.

        seq_max: those beyond it are not even read.
        """
        for seq in self.numbers():
            if seq_max is not None and seq > seq_max:
                continue
            snapshot = self._read(seq)
            if isinstance(snapshot, Snapshot):
                yield snapshot
            else:
                logger.warning("%s is passed over: %s", self.path(seq), snapshot)

    def save(self, snapshot: Snapshot) -> None:
        """Write `snapshot`, durably, then delete what two newer good ones have made needless.

        Raises SnapshotFailed, having touched no other snapshot.
        """
        path = self.path(snapshot.seq)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            try:
                _write(partial, _encode(snapshot))
                os.replace(partial, path)
                sync_directory(self.directory)
            finally:
                partial.unlink(missing_ok=True)
            self._prune()
        except OSError as fault:
            raise SnapshotFailed(
                f"{path} could not be written: {fault}. Those before it stand, and it is tried"
                " again; make room, or look at the disk and the system's log."
            ) from fault

    def numbers(self) -> list[int]:
        """Entry numbers of all snapshots that are there, good or not, newest first."""
        names = (self._name.fullmatch(name) for name in os.listdir(self.directory))
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def _read(self, seq: int) -> Snapshot | str:
        """The snapshot, or what is wrong with it."""
        try:
            with open(self.path(seq), "rb") as file:
                header, recorded = file.read(_HEADER.size), file.read(_DIGEST_BYTES)
                body = file.read()
        except OSError as fault:
            return f"it cannot be read ({fault})"
        if len(recorded) < _DIGEST_BYTES:
            return f"it has only {len(header) + len(recorded)} bytes"
        magic, version, own_seq, length, chain = _HEADER.unpack(header)
        if magic != MAGIC:
            return "it is no snapshot"
        if version != FORMAT:
            return f"it has format {version}, and this version reads format {FORMAT}"
        if len(body) != length or _digest(header, body) != recorded:
            return "it is damaged: its SHA-256 does not match"
        if own_seq != seq:
            return f"it is the snapshot of entry {own_seq}"
        if not self._agrees(seq, chain):
            return "it is of another history than the journal, or older than what the journal keeps"
        return Snapshot(seq, chain, body)

    def _prune(self) -> None:
        # Partial files of processes that are gone; those of the living are being written.
        for name in os.listdir(self.directory):
            partial = self._partial.fullmatch(name)
            if partial and not _is_alive(int(partial[1])):
                (self.directory / name).unlink(missing_ok=True)
        good = 0
        for seq in self.numbers():
            if good == SNAPSHOTS_KEPT:
                self.path(seq).unlink(missing_ok=True)
            elif isinstance(self._read(seq), Snapshot):
                good += 1


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable.  Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _digest(header: bytes, body: bytes) -> bytes:
    running = hashlib.sha256(header)
    running.update(body)
    return running.digest()


def _encode(snapshot: Snapshot) -> tuple[bytes, bytes]:
    size = len(snapshot.body)
    header = _HEADER.pack(MAGIC, FORMAT, snapshot.seq, size, snapshot.chain)
    return header + _digest(header, snapshot.body), snapshot.body


def _write(path: Path, parts: tuple[bytes, ...]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(fd)
