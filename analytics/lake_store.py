"""Where the bytes of a lake lie: a local directory, or any store that fsspec reaches.

Separate because only here one knows how bytes become durable.  It must not know what they say.
Names are relative to the root and use slashes.

What bears a name is whole: locally a file is written under a temporary name, synced, renamed, and
its directory synced; elsewhere it is one PUT, which the store must make visible whole or not at
all, as object stores do.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import fsspec.core  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

LOCK_NAME = "manifest.lock"
LOCK_S_MAX = 10.0
_LOCK_POLL_S = 0.01


class Store(Protocol):
    """Whole files by name.  A fault of the world is an OSError, or what the store's own makes."""

    def get(self, name: str) -> bytes:
        """The bytes under `name`; FileNotFoundError when there are none."""

    def put(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, in place of what was there; durable when it returns."""

    def size(self, name: str) -> int | None:
        """Bytes under `name`, None when there is no such file."""

    def names(self) -> list[str]:
        """Every file under the root, sorted; none when there is no root."""

    def modified_s(self, name: str) -> float | None:
        """When `name` was put, seconds since the epoch; None when there is no such file."""

    def remove(self, name: str) -> None:
        """Let go of `name`; nothing happens when it is gone already."""

    def lock(self) -> AbstractContextManager[None]:
        """Held by one writer at a time, where the store can see to that; else by whoever asks."""


def open_store(url: str) -> Store:
    """The store at a directory path or fsspec URL, which need not exist yet."""
    system, root = fsspec.core.url_to_fs(url)
    if isinstance(system, LocalFileSystem):
        return LocalStore(Path(root))
    return RemoteStore(system, root)


class LocalStore:
    """A store in a local directory, made when something is first put."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> bytes:
        """See Store."""
        return (self._root / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        """See Store."""
        path = self._root / name
        _make_folder(path.parent)
        # Named at random, because process ids repeat where each container counts its own.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        # Also the directories above: whoever made one may have ended before it was durable.
        folder = path.parent
        while folder != self._root:
            _sync_folder(folder)
            folder = folder.parent
        _sync_folder(self._root)

    def size(self, name: str) -> int | None:
        """See Store."""
        status = self._status(name)
        return None if status is None else status.st_size

    def names(self) -> list[str]:
        """See Store."""
        return sorted(
            (Path(folder) / name).relative_to(self._root).as_posix()
            for folder, _, names in os.walk(self._root)
            for name in names
        )

    def modified_s(self, name: str) -> float | None:
        """See Store."""
        status = self._status(name)
        return None if status is None else status.st_mtime

    def remove(self, name: str) -> None:
        """See Store."""
        (self._root / name).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """See Store.  TimeoutError after LOCK_S_MAX seconds."""
        _make_folder(self._root)
        path = self._root / LOCK_NAME
        deadline = time.monotonic() + LOCK_S_MAX
        with path.open("ab") as file:
            while not _locked(file.fileno()):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} is held by another writer: end that process")
                time.sleep(_LOCK_POLL_S)
            yield

    def _status(self, name: str) -> os.stat_result | None:
        try:
            return (self._root / name).stat()
        except FileNotFoundError:
            return None


class RemoteStore:
    """A store behind an fsspec file system whose PUT is atomic.

    It has no lock: two writers at once can overtake each other between reading and putting, so
    the caller must see to it that there is one.
    """

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def get(self, name: str) -> bytes:
        """See Store."""
        return bytes(self._system.cat_file(self._path(name)))

    def put(self, name: str, data: bytes) -> None:
        """See Store."""
        self._system.pipe_file(self._path(name), data)

    def size(self, name: str) -> int | None:
        """See Store."""
        self._system.invalidate_cache()
        try:
            return int(self._system.size(self._path(name)))
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """See Store."""
        self._system.invalidate_cache()
        prefix = self._path("")
        found = self._system.find(self._root)
        return sorted(path.removeprefix(prefix) for path in found if path.startswith(prefix))

    def modified_s(self, name: str) -> float | None:
        """See Store."""
        try:
            return float(self._system.modified(self._path(name)).timestamp())
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """See Store."""
        if self.size(name) is not None:
            self._system.rm_file(self._path(name))

    def lock(self) -> AbstractContextManager[None]:
        """See Store."""
        return nullcontext()

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _locked(handle: int) -> bool:
    """Whether the lock on the open file could be had; closing the file lets go of it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_folder(folder: Path) -> None:
    """Make the folder and those above it that are missing, durably."""
    fresh = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in fresh:
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
