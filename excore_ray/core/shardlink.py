"""ShardLink: what a market has said to one shard, and what waits for the shard's word.

Separate because loss, doubling and silence are one shard's matter: all that is here can be said
again at any time, and is, until the shard answers.
"""

from __future__ import annotations

from collections import deque

import msgspec

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.outbox import Outbox
from excore_ray.core.reasons import Refused
from excore_ray.core.reception import Inflight, Written


class SequencerLimits(msgspec.Struct, frozen=True):
    """What a market bounds.  Times in microseconds.

    queue_max: orders between arrival and commit; results_max: remembered results; beyond
    either a request is refused with SERVICE_UNAVAILABLE.  cancels_spare: so many more cancels are
    taken beyond both.  late_us: what is not executed so long before its gateway gives it up is
    refused with SERVICE_UNAVAILABLE.  user_orders_max: open orders of one user, orders_max: of
    all; with so many a limit order is refused with TOO_MANY_REQUESTS, those in flight included.
    entries_per_send_max: entries sent to a shard and not yet acknowledged.  forget_every: entries
    applied between two Forget commands.  commits_max: orders and cancels executed in one turn, so
    that shards and gateways have work while the next ones are executed.
    """

    reserve_timeout_us: int = 1_000_000
    others_wait_us: int = 250_000
    resend_us: int = 300_000
    heartbeat_us: int = 1_000_000
    queue_max: int = 50_000
    results_max: int = 3_000_000
    cancels_spare: int = 10_000
    late_us: int = 250_000
    user_orders_max: int = 10_000
    orders_max: int = 1_000_000
    entries_per_send_max: int = 8_192
    forget_every: int = 1_024
    commits_max: int = 512


Reply = tuple[Inflight, Refused]


def shard_name(shard: int) -> str:
    """The name of a shard's actor and stream."""
    return f"ledger-{shard}"


class Waiting(Inflight, eq=False, gc=False):
    """An order or cancel from its arrival to its reply.

    order_id: 0 for a cancel.  shard: the caller's.  asked_us: when its hold was first asked for.
    ready: its fate is known.  refused: it has been answered.  Once it is executed: answer: what
    is owed.  missing: shards that have not applied its entries yet.  own_seen: the caller's has.
    due_us: when to stop waiting for others, 0 for never.  paid: the answer has been given.
    repeated: it was executed long ago, and only this attempt is owed an answer.
    """

    order_id: int = 0
    shard: int = 0
    asked_us: int = 0
    ready: bool = False
    refused: bool = False
    answer: Written | None = None
    missing: int = 0
    own_seen: bool = False
    due_us: int = 0
    paid: bool = False
    repeated: bool = False


class ShardLink:
    """One market's side of its talk with one shard.

    silent: a reservation has timed out and nothing was heard since.  reserves, confirms: to be
    said in this turn.  owed: replies by the entry they wait for, in order.  noted: the newest
    entry that a reply was made to wait for, or that none has to wait for.
    """

    __slots__ = (
        "_aborts_unsaid",
        "_said_us",
        "_sent",
        "_waiting_us",
        "aborting",
        "asked_us",
        "confirms",
        "noted",
        "owed",
        "reserves",
        "shard",
        "silent",
    )

    def __init__(self, shard: int, noted: int) -> None:
        self.shard = shard
        self.noted = noted
        self.silent = False
        self.reserves: list[c.Hold] = []
        self.confirms: list[int] = []
        self.aborting: dict[int, tuple[int, Reply | None]] = {}
        self.owed: deque[tuple[int, Waiting]] = deque()
        self.asked_us = 0  # when the undecided reservations were last asked for again
        self._aborts_unsaid: list[int] = []
        self._sent = 0  # newest entry sent
        self._waiting_us = 0  # since when the shard owes a word on entries or aborts
        self._said_us = 0  # when anything was last sent

    def restart(self) -> None:
        """Whatever was said may be lost: say it all again."""
        self._sent = 0
        self._aborts_unsaid = list(self.aborting)

    def abort(self, order_id: int, after_out_seq: int, reply: Reply | None) -> None:
        """Have the shard void `order_id` once it has applied `after_out_seq`; then reply."""
        if order_id not in self.aborting:
            self.aborting[order_id] = (after_out_seq, reply)
            self._aborts_unsaid.append(order_id)

    def aborted(self, order_id: int) -> Reply | None:
        """The shard has voided `order_id` durably: the reply that waited for it, if any."""
        found = self.aborting.pop(order_id, None)
        return found[1] if found is not None else None

    def progressed(self, now_us: int) -> None:
        """The shard has acknowledged entries, so what follows them need not be sent again yet."""
        self._waiting_us = now_us

    def owes(self, box: Outbox) -> bool:
        """Whether anything here waits for the shard."""
        return bool(self.aborting or self.owed or box.acked < box.out_seq)

    def gather(
        self, header: tuple[int, int, int], box: Outbox, now_us: int, limits: SequencerLimits
    ) -> m.ToShard | None:
        """All there is to say now, or None.  header: (market_no, epoch, low)."""
        if not self.aborting and box.acked >= self._sent:
            self._waiting_us = now_us  # everything said so far was heard
        elif now_us - self._waiting_us >= limits.resend_us:
            self._waiting_us = now_us
            self.restart()
        self._sent = max(self._sent, box.acked)
        room = limits.entries_per_send_max - (self._sent - box.acked)
        entries: list[c.Entry] = []
        emitted = (0, 0)
        if room > 0 and self._sent < box.out_seq:
            entries, emitted = box.after(self._sent, room)
        aborts: list[int] = []
        for order_id in self._aborts_unsaid:
            if order_id in self.aborting:
                aborts += (order_id, self.aborting[order_id][0])
        something = entries or aborts or self.reserves or self.confirms
        if not something and now_us - self._said_us < limits.heartbeat_us:
            return None
        first = self._sent + 1
        message = m.ToShard(*header, self.reserves, aborts, self.confirms, first, entries, emitted)
        self._sent += len(entries)
        self._said_us = now_us
        self._aborts_unsaid = []
        self.reserves = []
        self.confirms = []
        return message
