"""Router: what a gateway has asked of which actor, until it is answered or given up.

Separate from `exchange.py`, which owns the connections, because batching, resending and what to
believe are rules.  It must not know HTTP, sockets or clocks.

Requests gather while the last batch is on its way; a batch is on its way until the actor has
taken it in.  A second one may follow when it would be large, so that a busy actor has it when it
is done with the first.  A refusal is believed only from the newest epoch the request was sent
to: an older incarnation does not know what a newer one has done with it.

What may wait at an actor is bounded by a number and by time: an actor that had two seconds of
work before it for a whole second is at its capacity, and no more is then taken than it answers in
a little more.  What is refused for that is refused when it is asked, never after a wait.  An actor
that is away is not judged: what waits for it is sent when it is back.
Source: ARCHITECTURE.md, recorded results and sticky refusals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from excore_ray.core.commands import Cancel
from excore_ray.core.messages import Answer, Ask, Batch, Replies, Stale, WireMessage
from excore_ray.core.reasons import OVERLOADED, Reason, Refused
from excore_ray.core.turns import Send

_ON_THEIR_WAY_MAX = 2
_SECOND_US = 1_000_000
_JUDGED_EVERY_US = _SECOND_US
_BACKLOG_S = 2  # work for so many seconds is a queue, and not just what is on its way
_QUEUE_US = 2_500_000  # what waits no longer need not be sent again
_GROWTH = 4  # of the room, every second in which an actor was not at its capacity
_WAITING_MIN = 50  # so few may always wait: a few answers more or less say nothing


class RouterLimits(msgspec.Struct, frozen=True):
    """Times in microseconds.

    deadline_us: after it a request is given up.  resend_us: silence after which a request is
    sent again over a standing connection.  batch_max: requests in one batch.  follow_min:
    requests that must be waiting for a second batch to follow one that is not taken in.
    waiting_max: requests waiting at one actor; beyond it, or fewer while the actor is slow, they
    are refused with SERVICE_UNAVAILABLE, cancels beyond half as many again.
    """

    deadline_us: int = 10_000_000
    resend_us: int = 3_000_000
    batch_max: int = 1_000
    follow_min: int = 250
    waiting_max: int = 10_000


Deliver = Callable[[int, Answer], None]  # told the place that was named when asking


class Pending(msgspec.Struct, eq=False):
    """One request until it is answered.  tried: the newest epoch it was sent to, -1 for none."""

    token: int
    ask: Ask
    deadline_us: int
    deliver: Deliver
    place: int
    tried: int = -1
    sent_us: int = 0
    queued: bool = True
    answered: bool = False


class Route:
    """The requests waiting at one actor, oldest first.

    queue: to be sent.  unanswered: all of them by token.  untaken: batches on their way.
    room: how many may be unanswered.  Since it was last judged, at `judged_us`: answered: so many
    were; least: never fewer were not; overloaded: the actor has said so.
    """

    __slots__ = (
        "answered",
        "connected",
        "epoch",
        "judged_us",
        "least",
        "overloaded",
        "queue",
        "room",
        "sent_us",
        "unanswered",
        "untaken",
    )

    def __init__(self, room: int) -> None:
        self.room = room
        self.answered = 0
        self.least = 0
        self.judged_us = 0
        self.overloaded = False
        self.epoch = 0
        self.queue: deque[Pending] = deque()
        self.unanswered: dict[int, Pending] = {}
        self.untaken = 0
        self.sent_us = 0  # when the newest batch was sent
        self.connected = False


class Router:
    """All requests of one gateway.  Feed `ask` and `receive`, send what `flush` returns."""

    def __init__(self, limits: RouterLimits) -> None:
        self.limits = limits
        self.routes: dict[str, Route] = {}
        self._token = 0
        self._ready: dict[str, None] = {}  # actors with something to send, in order

    def ask(self, actor: str, ask: Ask, deliver: Deliver, place: int, now_us: int) -> None:
        """Have `actor` answer `ask`; `deliver` is called once, maybe before this returns."""
        route = self.routes.get(actor)
        if route is None:
            route = self.route(actor)
        waiting, room = len(route.unanswered), route.room
        # Whoever wants to get out still can.
        if waiting >= room and (type(ask) is not Cancel or waiting >= room + room // 2):
            deliver(place, _CROWDED)
            return
        if not waiting:
            route.least = 0
        token = self._token = self._token + 1
        pending = Pending(token, ask, now_us + self.limits.deadline_us, deliver, place)
        route.unanswered[token] = pending
        route.queue.append(pending)
        self._ready[actor] = None

    def route(self, actor: str) -> Route:
        """The route to `actor`, made when there is none."""
        route = self.routes.get(actor)
        if route is None:
            route = self.routes[actor] = Route(self.limits.waiting_max)
        return route

    def connected(self, actor: str) -> None:
        """A new connection: what is unanswered is sent again, in its order."""
        route = self.route(actor)
        route.connected = True
        route.untaken = 0
        self._requeue(actor, route, list(route.unanswered.values()))

    def disconnected(self, actor: str) -> None:
        """The connection is gone: requests wait for the next one."""
        route = self.route(actor)
        route.connected = False
        route.least = 0

    def receive(self, actor: str, message: WireMessage) -> None:
        """Take in what `actor` says."""
        route = self.route(actor)
        if type(message) is Replies:
            route.epoch = max(route.epoch, message.epoch)
            unanswered, epoch = route.unanswered, message.epoch
            route.answered += len(message.tokens)
            for token, answer in zip(message.tokens, message.answers, strict=True):
                pending = unanswered.get(token)
                if pending is None:
                    continue
                if type(answer) is Refused:
                    if epoch < pending.tried:
                        continue
                    if answer == OVERLOADED:
                        route.overloaded = True
                self._deliver(route, pending, answer)
            if message.taken:
                route.untaken = max(0, route.untaken - message.taken)
                if route.queue:
                    self._ready[actor] = None
        elif type(message) is Stale:
            route.epoch = max(route.epoch, message.epoch)
            found = [route.unanswered.get(token) for token in message.tokens]
            again = [p for p in found if p is not None and p.tried < route.epoch]
            self._requeue(actor, route, again)

    def flush(self, now_us: int) -> list[Send]:
        """The batches that may leave now."""
        sends: list[Send] = []
        for actor in list(self._ready):
            route = self.routes[actor]
            if not route.connected or not self._may_follow(route):
                continue
            batch = self._gather(route, now_us)
            if batch.asks:
                sends.append((actor, batch))
                route.untaken += 1
                route.sent_us = now_us
            del self._ready[actor]
        return sends

    def tick(self, now_us: int) -> None:
        """Give up what is past its deadline and send again what has met silence."""
        silent_us = now_us - self.limits.resend_us
        for actor, route in self.routes.items():
            waiting = len(route.unanswered)
            route.least = min(route.least, waiting)
            if route.overloaded or now_us - route.judged_us >= _JUDGED_EVERY_US:
                self._judge(route, now_us)
            if route.untaken and route.sent_us <= silent_us:
                route.untaken = 0
            if not waiting:
                continue
            again: list[Pending] = []
            oldest = next(iter(route.unanswered.values()))
            # Nothing can be due before the oldest is: all have the same time, and are in order.
            if oldest.deadline_us - self.limits.deadline_us > silent_us:
                continue
            for pending in list(route.unanswered.values()):
                if pending.deadline_us <= now_us:
                    unsent = pending.tried < 0
                    self._deliver(route, pending, _UNSENT if unsent else _UNKNOWN)
                elif not pending.queued and pending.sent_us <= silent_us:
                    again.append(pending)
            self._requeue(actor, route, again)

    def _judge(self, route: Route, now_us: int) -> None:
        """Set how many may wait, by what was answered lately."""
        limits, waiting = self.limits, len(route.unanswered)
        passed_us = now_us - route.judged_us
        if route.overloaded:
            room = waiting * 3 // 4
        elif route.least >= max(
            _WAITING_MIN, _BACKLOG_S * route.answered * _SECOND_US // passed_us
        ):
            room = route.answered * min(limits.deadline_us // 2, _QUEUE_US) // passed_us
        else:
            room = _GROWTH * route.room
        route.room = min(max(room, _WAITING_MIN), limits.waiting_max)
        route.answered, route.judged_us, route.overloaded = 0, now_us, False
        route.least = waiting if route.connected else 0

    def _may_follow(self, route: Route) -> bool:
        """Whether what waits may leave now, with what is on its way already."""
        if not route.untaken:
            return True
        return route.untaken < _ON_THEIR_WAY_MAX and len(route.queue) >= self.limits.follow_min

    def _gather(self, route: Route, now_us: int) -> Batch:
        epoch, queue = route.epoch, route.queue
        tokens: list[int] = []
        deadlines_us: list[int] = []
        asks: list[Ask] = []
        while queue and len(asks) < self.limits.batch_max:
            pending = queue.popleft()
            if pending.answered:
                continue
            pending.queued = False
            pending.tried = epoch if epoch > pending.tried else pending.tried
            pending.sent_us = now_us
            tokens.append(pending.token)
            deadlines_us.append(pending.deadline_us)
            asks.append(pending.ask)
        return Batch(epoch, tokens, deadlines_us, asks)

    def _requeue(self, actor: str, route: Route, again: list[Pending]) -> None:
        """Put requests back before those that were never sent, all in the order of asking."""
        added = [pending for pending in again if not pending.queued]
        for pending in added:
            pending.queued = True
        if added:
            waiting = [*added, *route.queue]
            waiting.sort(key=_token_of)
            route.queue = deque(waiting)
        if route.queue:
            self._ready[actor] = None

    def _deliver(self, route: Route, pending: Pending, answer: Answer) -> None:
        del route.unanswered[pending.token]
        pending.answered = True
        pending.deliver(pending.place, answer)


def _token_of(pending: Pending) -> int:
    return pending.token


_CROWDED = Refused(Reason.SERVICE_UNAVAILABLE, "too many requests are waiting")
_UNSENT = Refused(Reason.SERVICE_UNAVAILABLE, "the actor could not be reached")
_UNKNOWN = Refused(Reason.SERVICE_TIMEOUT, "no answer in time; it may or may not have happened")
