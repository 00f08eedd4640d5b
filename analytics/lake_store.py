"""Where the bytes of a lake lie: a local directory, or any store that fsspec reaches.

Separate because only here one knows how bytes become durable.  It must not know what they say.
Names are relative to the root and use slashes.

What bears a name is whole: locally a file is written under a temporary name, synced, renamed, and
its directory synced; elsewhere it is one PUT, which the store must make visible whole or not at
all, as object stores do.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import fsspec.core  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

LOCK_NAME = "manifest.lock"
LOCK_S_MAX = 10.0
_LOCK_POLL_S = 0.01
_S3 = frozenset({"s3", "s3a"})
# What a reader of one column fetches beyond it; s3fs would fetch 50 MiB, and keep them.
_READ_AHEAD_BYTES = 1 << 20


class Store(Protocol):
    """Whole files by name.  A fault of the world is an OSError."""

    def get(self, name: str) -> bytes:
        """The bytes under `name`; FileNotFoundError when there are none."""

    def open(self, name: str) -> io.IOBase:
        """The file under `name`, to be read in parts; FileNotFoundError when there is none."""

    def put(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, in place of what was there; durable when it returns."""

    def version(self, name: str) -> str:
        """For `put_if`: what is under `name` now, in a word that changes with it."""

    def put_if(self, name: str, data: bytes, version: str) -> bool:
        """Put `data` under `name` as `put` does, unless the version is another; whether it did.

        Where the store cannot tell, it always does: then only the lock, or that there is one
        writer, keeps a second one out.
        """

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
    system, root = file_system(url)
    if isinstance(system, LocalFileSystem):
        return LocalStore(Path(root))
    protocols = system.protocol
    if not _S3.isdisjoint([protocols] if isinstance(protocols, str) else protocols):
        return S3Store(system, root)
    return RemoteStore(system, root)


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a directory path or URL, set up for a lake, and the root in it.

    fsspec shares a file system among all in a process who ask for the same one.  This one keeps
    no listings, for those are kept without end, and would hide what another process commits.
    """
    options: dict[str, object] = {"use_listings_cache": False}
    if url.split("://")[0] in _S3:
        options["default_block_size"] = _READ_AHEAD_BYTES
    system, root = fsspec.core.url_to_fs(url, **options)
    return system, root


class LocalStore:
    """A store in a local directory, made when something is first put."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, name: str) -> bytes:
        """See Store."""
        return (self._root / name).read_bytes()

    def open(self, name: str) -> io.IOBase:
        """See Store."""
        return (self._root / name).open("rb")

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

    def version(self, name: str) -> str:
        """See Store.  Always the same: who holds the lock is alone."""
        return ""

    def put_if(self, name: str, data: bytes, version: str) -> bool:
        """See Store."""
        self.put(name, data)
        return True

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
    the caller must see to it that there is one.  Any thread may use it, also while an event loop
    runs in that thread, which then waits.
    """

    def __init__(self, system: Any, root: str) -> None:
        self._system = system
        self._root = root.rstrip("/")

    def get(self, name: str) -> bytes:
        """See Store."""
        with self._faults(name):
            return bytes(self._system.cat_file(self._path(name)))

    def open(self, name: str) -> io.IOBase:
        """See Store."""
        with self._faults(name):
            file = self._system.open(self._path(name), "rb")
        return _RemoteFile(file, lambda: self._faults(name))

    def put(self, name: str, data: bytes) -> None:
        """See Store."""
        with self._faults(name):
            self._system.pipe_file(self._path(name), data)

    def version(self, name: str) -> str:
        """See Store.  Always the same: fsspec has no common word for it."""
        return ""

    def put_if(self, name: str, data: bytes, version: str) -> bool:
        """See Store."""
        self.put(name, data)
        return True

    def size(self, name: str) -> int | None:
        """See Store."""
        info = self._info(name)
        return None if info is None else int(info["size"])

    def names(self) -> list[str]:
        """See Store."""
        prefix, found = self._path(""), []
        with self._faults(""), suppress(FileNotFoundError):
            self._system.invalidate_cache()
            found = self._system.find(self._root)
        return sorted(path.removeprefix(prefix) for path in found if path.startswith(prefix))

    def modified_s(self, name: str) -> float | None:
        """See Store."""
        with self._faults(name):
            try:
                self._system.invalidate_cache()
                modified = self._system.modified(self._path(name))
            except (FileNotFoundError, IsADirectoryError):
                return None
            if modified.tzinfo is None:
                # A guess that is hours wrong would let files be removed that are in use.
                raise ValueError(f"the store tells no time zone with {modified}")
        return float(modified.timestamp())

    def remove(self, name: str) -> None:
        """See Store."""
        with self._faults(name), suppress(FileNotFoundError):
            self._system.rm_file(self._path(name))

    def lock(self) -> AbstractContextManager[None]:
        """See Store."""
        return nullcontext()

    def _info(self, name: str) -> dict[str, Any] | None:
        """What the file system tells of a file; a name that only begins others is none."""
        with self._faults(name):
            try:
                # Some keep listings although they were asked not to.
                self._system.invalidate_cache()
                info: dict[str, Any] = self._system.info(self._path(name))
            except FileNotFoundError:
                return None
        return info if info["type"] == "file" else None

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _faults(self, name: str) -> Iterator[None]:
        """Makes an OSError that names the file of whatever the file system raises.

        Their libraries have exceptions of their own for a network that is down, and callers must
        be able to tell such a fault, which may pass, from a mistake of ours.
        """
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:
            url = self._system.unstrip_protocol(self._path(name))
            fault = OSError(f"{url}: {str(error) or type(error).__name__}")
            fault.errno = getattr(error, "errno", None)
            raise fault from error


class S3Store(RemoteStore):
    """A store that speaks S3, where a PUT may depend on what is there: so no writer overtakes.

    Some that speak S3 refuse conditions, and are then what any RemoteStore is.
    """

    def get(self, name: str) -> bytes:
        """See Store."""
        # One GET: several for the parts could be of several versions.
        with self._faults(name):
            return bytes(self._system.cat_file(self._path(name), max_concurrency=1))

    def version(self, name: str) -> str:
        """See Store.  "" when there is no such file."""
        info = self._info(name)
        return "" if info is None else str(info["ETag"])

    def put_if(self, name: str, data: bytes, version: str) -> bool:
        """See Store."""
        condition = {"IfMatch": version} if version else {"IfNoneMatch": "*"}
        try:
            with self._faults(name):
                # In one piece: the parts of a larger file would not take the condition.
                whole = len(data) + 1
                self._system.pipe_file(self._path(name), data, chunksize=whole, **condition)
        except OSError as fault:
            if fault.errno == errno.ENOSYS:
                return super().put_if(name, data, version)
            # An answer may be lost on its way and the PUT be made again, which then finds its own
            # work in the way.  So what is there decides, and not what was said.
            found = self.version(name)
            if found == version:
                raise
            return bool(found) and self.get(name) == data
        return True


class _RemoteFile(io.RawIOBase):
    """A file that is read in parts, and whose faults are those of its store."""

    def __init__(self, file: Any, faults: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = file
        self._faults = faults

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill as much of the buffer as there is; how many bytes that were."""
        with self._faults():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; where that is from the beginning."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """The place, from the beginning."""
        return int(self._file.tell())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        super().close()


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
