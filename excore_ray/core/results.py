"""Results: what was answered to each request, so that a repeated request executes nothing.

Separate because markets, shards and the catalog keep the same promise: a request is executed
once, and asked again within its time it gets the recorded answer.  Forgetting follows record
time only, so that every replay forgets alike.

Source: ARCHITECTURE.md, ids and recorded results.
"""

from __future__ import annotations

from collections import deque

import msgspec

from excore_ray.core.commands import RESULT_KEPT_STAMPED_US, RESULT_KEPT_US
from excore_ray.core.messages import Done, Placed
from excore_ray.core.reasons import Refused


class Result(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A recorded answer.  shard, out_seq: the entry it waits for at the caller's shard."""

    until_us: int
    shard: int
    out_seq: int
    answer: Placed | Done | Refused


class Results:
    """Recorded answers by request id, oldest first within the stamped and the others."""

    __slots__ = ("_by_id", "_plain", "_stamped")

    def __init__(self) -> None:
        self._by_id: dict[bytes, Result] = {}
        self._stamped: deque[bytes] = deque()
        self._plain: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, request_id: bytes) -> Result | None:
        """The recorded result, or None."""
        return self._by_id.get(request_id)

    def record(
        self,
        request_id: bytes,
        stamp_ms: int,
        time_us: int,
        answer: Placed | Done | Refused,
        place: tuple[int, int] = (0, 0),
    ) -> None:
        """Remember `answer` for the time its kind is kept.  place: (shard, out_seq)."""
        assert request_id not in self._by_id, "a request was executed twice"
        shard, out_seq = place
        if stamp_ms:
            until_us = time_us + RESULT_KEPT_STAMPED_US
            self._stamped.append(request_id)
        else:
            until_us = time_us + RESULT_KEPT_US
            self._plain.append(request_id)
        self._by_id[request_id] = Result(until_us, shard, out_seq, answer)

    def expire(self, time_us: int) -> None:
        """Forget what need not be remembered at record time `time_us` any more."""
        by_id = self._by_id
        for queue in (self._stamped, self._plain):
            while queue and by_id[queue[0]].until_us <= time_us:
                del by_id[queue.popleft()]

    def dump(self) -> list[list[tuple[bytes, Result]]]:
        """Both queues as plain values, for a snapshot."""
        by_id = self._by_id
        return [[(i, by_id[i]) for i in queue] for queue in (self._stamped, self._plain)]

    def load(self, dumped: list[list[tuple[bytes, Result]]]) -> None:
        """Put a snapshot's results in place."""
        stamped, plain = dumped
        self._stamped = deque(request_id for request_id, _ in stamped)
        self._plain = deque(request_id for request_id, _ in plain)
        self._by_id = dict(stamped) | dict(plain)
