"""An archive that is asked, over the journals of a small exchange, and somebody who asks it.

Separate because the tests of the service and of its troubles both start from it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from analytics import history
from analytics.lake import Lake
from excore_ray.actors.archive import Archive
from excore_ray.actors.archive_service import ArchiveService
from excore_ray.actors.plan import ArchiveSettings, ServiceSettings
from excore_ray.actors.wire import Connection
from excore_ray.core import messages as m
from excore_ray.core import questions as q
from excore_ray.core.reasons import Reason, Refused
from tests.actors.archive_world import NEVER, Clock, Life, archive_of

ALL = 10**6
NEWEST = q.AskDeals(1, 0, ALL, True)
OLDEST = q.AskDeals(1, 0, ALL, False)


class Ear:
    """A connection that keeps what it is sent."""

    id = 7
    name = "gateway-1"

    def __init__(self) -> None:
        self.replies: list[tuple[int, m.Answer]] = []
        self.taken = 0
        self.reasons: list[str] = []

    def send(self, body: bytes, request_id: int = 0) -> None:
        message = m.decode(body)
        assert type(message) is m.Replies
        self.taken += message.taken
        self.replies += zip(message.tokens, message.answers, strict=True)

    def close(self, reason: str) -> None:
        self.reasons.append(reason)

    def say(self, service: ArchiveService, *asks: m.Ask, deadline_us: int = 2**60) -> None:
        tokens = list(range(1, len(asks) + 1))
        batch = m.Batch(0, tokens, [deadline_us] * len(asks), list(asks))
        service.received(cast(Connection, self), 0, m.encode(batch))


@contextlib.asynccontextmanager
async def serving(
    life: Life, root: Path, flush: ArchiveSettings = NEVER, **questions: Any
) -> AsyncIterator[tuple[ArchiveService, Archive]]:
    """A service over the journals of a life; rounds are the test's own business."""
    archive = archive_of(life, Lake(str(root)), Clock(), flush)
    service = ArchiveService(archive, str(root), ServiceSettings(**questions))
    service.start()
    try:
        yield service, archive
    finally:
        await service.close()
        await archive.close()


class Gate:
    """A reading that waits, in its thread, until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.begun = 0
        self.open = threading.Event()
        self._reading: Callable[..., Any] = getattr(history, name)
        monkeypatch.setattr(history, name, self._read)

    def _read(self, *args: Any) -> Any:
        self.begun += 1
        assert self.open.wait(20)
        return self._reading(*args)


def deal_count(answer: m.Answer) -> int:
    assert type(answer) is q.PublicDeals, answer
    return len(answer.records)


def expect_refused(answer: m.Answer, reason: Reason, detail: str) -> None:
    assert type(answer) is Refused, answer
    assert answer.reason == reason
    assert detail in answer.detail
