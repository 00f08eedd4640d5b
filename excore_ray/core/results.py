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

    shard: int
    out_seq: int
    answer: Placed | Done | Refused


# Groups of request ids with the record time at which they are forgotten, oldest first.
Group = tuple[int, list[tuple[bytes, msgspec.Raw]]]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Result).decode


class Results:
    """Recorded answers by request id, oldest first within the stamped and the others.

    Hundreds of thousands are kept and hardly any is asked for again, so they are kept as the
    JSON of their `Result`: half of the memory, and much less for the processor's caches.

    newest: the JSON of the answer that was recorded last, for whoever sends it now.
    """

    __slots__ = ("_by_id", "_plain", "_stamped", "newest")

    def __init__(self) -> None:
        self.newest = msgspec.Raw()
        self._by_id: dict[bytes, bytes] = {}
        self._stamped: deque[tuple[int, list[bytes]]] = deque()
        self._plain: deque[tuple[int, list[bytes]]] = deque()

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, request_id: bytes) -> Result | None:
        """The recorded result, or None."""
        packed = self._by_id.get(request_id)
        return None if packed is None else _decode(packed)

    def record(
        self,
        request_id: bytes,
        stamp_ms: int,
        time_us: int,
        answer: Placed | Done | Refused,
        place: tuple[int, int] = (0, 0),
    ) -> None:
        """Remember `answer` for the time its kind is kept.  place: (shard, out_seq)."""
        written = _encode(answer)
        self.newest = msgspec.Raw(written)
        packed = b"[%d,%d,%b]" % (*place, written)
        known = self._by_id.setdefault(request_id, packed)
        assert known is packed, "a request was executed twice"
        if stamp_ms:
            until_us, groups = time_us + RESULT_KEPT_STAMPED_US, self._stamped
        else:
            until_us, groups = time_us + RESULT_KEPT_US, self._plain
        if not groups or groups[-1][0] != until_us:
            groups.append((until_us, []))
        groups[-1][1].append(request_id)

    def expire(self, time_us: int) -> None:
        """Forget what need not be remembered at record time `time_us` any more."""
        for groups in (self._stamped, self._plain):
            while groups and groups[0][0] <= time_us:
                for request_id in groups.popleft()[1]:
                    del self._by_id[request_id]

    def due(self, time_us: int) -> bool:
        """Whether something need not be remembered at record time `time_us` any more."""
        return any(groups and groups[0][0] <= time_us for groups in (self._stamped, self._plain))

    def dump(self) -> list[list[Group]]:
        """The stamped and the others as plain values, for a snapshot."""
        by_id = self._by_id
        return [
            [(until_us, [(i, msgspec.Raw(by_id[i])) for i in ids]) for until_us, ids in groups]
            for groups in (self._stamped, self._plain)
        ]

    def load(self, dumped: list[list[Group]]) -> None:
        """Put a snapshot's results in place."""
        self._by_id = {
            i: bytes(raw) for groups in dumped for _, pairs in groups for i, raw in pairs
        }
        self._stamped, self._plain = (
            deque((until_us, [i for i, _ in pairs]) for until_us, pairs in groups)
            for groups in dumped
        )
