"""Owners of real journals that write while somebody looks for an instant of all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from excore_ray.storage.ownership import Ownership
from excore_ray.storage.sqlite import SqliteJournal, open_sqlite


def opened(directory: Path, stream: str) -> SqliteJournal:
    """The journal of a stream, owned from now on."""
    return open_sqlite(directory, stream, owner=Ownership(stream))


@contextmanager
def beside(write: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[threading.Thread]:
    """Run it in a thread, which must have ended at the end, and not by a failure."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(write())
        except BaseException as failure:
            failures.append(failure)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        yield writer
    finally:
        writer.join()
    assert not failures


@contextmanager
def written_by_turns(
    directory: Path, streams: Sequence[str], pause_s: float = 0.0
) -> Iterator[None]:
    """One thread appends to all streams by turns: at any instant they differ by one at most.

    pause_s: after each round.
    """
    ready, stop = threading.Event(), threading.Event()

    async def write() -> None:
        journals = [opened(directory, stream) for stream in streams]
        seq = 0
        while not stop.is_set():
            seq += 1
            for journal in journals:
                await journal.append(seq, 1, [b"{}"], [])
            ready.set()
            await asyncio.sleep(pause_s)
        for journal in journals:
            journal.close()

    with beside(write):
        try:
            assert ready.wait(60)
            yield
        finally:
            stop.set()
