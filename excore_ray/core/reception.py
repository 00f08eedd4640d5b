"""Reception: what was promised to each request of each gateway, and what is owed to it.

Separate because markets, shards and the catalog owe gateways the same: a request addressed to
an older epoch is not looked at, one that was executed gets its recorded result, one in flight
is joined, one that was refused is refused again, and one whose deadline has passed is dropped.
It must not know what any command does.

A refusal with SERVICE_UNAVAILABLE binds one attempt (peer and token) until its deadline, for the
client may freely send again; any other refusal binds the request for as long as its result
would be remembered.  Both bind within one epoch only, which is why requests name the epoch.
Source: ARCHITECTURE.md, recorded results and sticky refusals.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeGuard

import msgspec

from excore_ray.core import commands as c
from excore_ray.core.messages import Answer, Ask, Batch, Replies, Stale
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.results import Result, Results
from excore_ray.core.turns import Send, Superseded

REFUSALS_MAX = 500_000
REFUSALS_SHARE = 8  # one user's may be this part of them
DEADLINE_SLACK_US = 10_000_000  # a doubled message is not expected later than this

ExecutedAsk = (c.PutLimit | c.PutMarket | c.Cancel | c.Update) | (
    c.AddAsset | c.RenameAsset | c.AddMarket | c.RenameMarket | c.AddKey | c.RevokeKey
)
_EXECUTED = frozenset(
    {c.PutLimit, c.PutMarket, c.Cancel, c.Update}
    | {c.AddAsset, c.RenameAsset, c.AddMarket, c.RenameMarket, c.AddKey, c.RevokeKey}
)


NEW = "new"  # of a request: to be executed
Written = Answer | msgspec.Raw  # an answer, or the JSON of one
_NO_ROOM = Refused(Reason.SERVICE_TIMEOUT, "too many fresh refusals")
_NO_REPLIES: tuple[list[int], list[Any]] = ([], [])


class Inflight(msgspec.Struct, eq=False, gc=False):
    """A request that is being executed, and everybody who waits for its answer.

    deadline_us: when its gateway gives up.  peer, token: the first attempt.  others: further ones
    that joined it, None for none.
    """

    ask: ExecutedAsk
    deadline_us: int
    peer: str
    token: int
    others: list[tuple[str, int]] | None = None

    def attempts(self) -> list[tuple[str, int]]:
        """All who wait."""
        return [(self.peer, self.token), *(self.others or ())]


class Reception:
    """The gateways' side of one actor in one epoch.

    refusals_max bounds the remembered refusals, and a part of it those of one user: beyond it a
    request is dropped, and answered that nobody knows.
    """

    def __init__(self, results: Results, refusals_max: int = REFUSALS_MAX) -> None:
        self.epoch = 0
        self.inflight: dict[bytes, Inflight] = {}
        self._results = results
        self._refusals_max = refusals_max
        self._refusals: dict[tuple[bytes, str, int], tuple[int, Refused, int]] = {}  # with the user
        self._refusals_of: dict[int, int] = {}  # how many, by user
        self._expiries: dict[bool, deque[tuple[int, tuple[bytes, str, int]]]] = {
            True: deque(),
            False: deque(),
        }
        self._replies: dict[str, tuple[list[int], list[Any]]] = {}  # tokens, answers
        self._stale: dict[str, list[int]] = {}
        self._taken: dict[str, int] = {}  # how many batches came in from each gateway

    def check_epoch(self, batch: Batch) -> None:
        """Raises Superseded when the batch shows a newer epoch than ours."""
        if batch.epoch > self.epoch:
            raise Superseded(f"a gateway knows epoch {batch.epoch}, this is {self.epoch}")

    def admit(self, inflight: Inflight, batch_epoch: int, now_us: int) -> Result | str | None:
        """NEW to execute a request, the result of an executed one, or None: it is dealt with.

        A new one stays in `inflight` until `answer` or `refuse` is called for it.
        """
        request_id, peer, token = inflight.ask.request_id, inflight.peer, inflight.token
        result = self._results.get(request_id)
        if result is not None:
            return result
        if batch_epoch != self.epoch:
            self._stale.setdefault(peer, []).append(token)
            return None
        found = self.inflight.get(request_id)
        if found is not None:
            _join(found, peer, token)
            return None
        if self._refusals:
            refused = self._refusal(request_id, peer, token)
            if refused is not None:
                self.reply(peer, token, refused)
                return None
            if self._crowded(_user_of(inflight)):
                self.reply(peer, token, _NO_ROOM)
                return None
        if inflight.deadline_us <= now_us:
            return None
        self.inflight[request_id] = inflight
        stamp_ms = inflight.ask.stamp_ms
        if stamp_ms and stamp_ms * 1000 - now_us >= c.STAMP_AHEAD_MAX_US:
            # Its result would be forgotten before it is too old.
            ahead = Refused(Reason.AUTHENTICATION_FAILED, "TIMESTAMP: 60 s ahead or more")
            self.refuse(inflight, ahead, now_us)
            return None
        if stamp_ms and now_us - stamp_ms * 1000 > c.STAMP_AGE_MAX_US:
            too_old = Refused(Reason.AUTHENTICATION_FAILED, "TIMESTAMP: over 60 s ago")
            self.refuse(inflight, too_old, now_us)
            return None
        return NEW

    def answer(self, inflight: Inflight, answer: Written) -> None:
        """Tell everybody who waits for it; the request's result is recorded elsewhere."""
        del self.inflight[inflight.ask.request_id]
        self.reply(inflight.peer, inflight.token, answer)
        if inflight.others is not None:
            for peer, token in inflight.others:
                self.reply(peer, token, answer)

    def refuse(self, inflight: Inflight, refused: Refused, now_us: int) -> None:
        """Tell everybody who waits for it, and tell the same again if asked again."""
        request_id, user = inflight.ask.request_id, _user_of(inflight)
        if refused.reason == Reason.SERVICE_UNAVAILABLE:
            until_us = inflight.deadline_us + DEADLINE_SLACK_US
            for peer, token in inflight.attempts():
                self._remember((request_id, peer, token), (until_us, refused, user), plain=True)
        else:
            stamped = bool(inflight.ask.stamp_ms)
            kept_us = c.RESULT_KEPT_STAMPED_US if stamped else c.RESULT_KEPT_US
            until_us = now_us + kept_us
            self._remember((request_id, "", 0), (until_us, refused, user), plain=not stamped)
        self.answer(inflight, refused)

    def reply(self, peer: str, token: int, answer: Written) -> None:
        """Answer one attempt of one gateway when the turn's records are durable."""
        replies = self._replies.get(peer)
        if replies is None:
            replies = self._replies[peer] = ([], [])
        replies[0].append(token)
        replies[1].append(answer)

    def taken(self, peer: str) -> None:
        """A batch of this gateway has come in, and its next one may."""
        self._taken[peer] = self._taken.get(peer, 0) + 1

    def expire(self, now_us: int) -> None:
        """Forget refusals whose time is over."""
        for queue in self._expiries.values():
            while queue and queue[0][0] <= now_us:
                _, key = queue.popleft()
                found = self._refusals.get(key)
                if found is not None and found[0] <= now_us:
                    del self._refusals[key]
                    count = self._refusals_of[found[2]] = self._refusals_of[found[2]] - 1
                    if not count:
                        del self._refusals_of[found[2]]

    def take_sends(self) -> list[Send]:
        """The replies of this turn, one message a gateway."""
        replies, taken = self._replies, self._taken
        if not replies and not taken and not self._stale:
            return []
        sends: list[Send] = [
            (peer, Replies(self.epoch, *replies.get(peer, _NO_REPLIES), taken.get(peer, 0)))
            for peer in (taken | replies if taken else replies)
        ]
        for peer, tokens in self._stale.items():
            sends.append((peer, Stale(self.epoch, tokens)))
        self._replies = {}
        self._stale = {}
        self._taken = {}
        return sends

    def _refusal(self, request_id: bytes, peer: str, token: int) -> Refused | None:
        refusals = self._refusals
        found = refusals.get((request_id, "", 0)) or refusals.get((request_id, peer, token))
        return found[1] if found is not None else None

    def _crowded(self, user: int) -> bool:
        share = self._refusals_max // REFUSALS_SHARE
        mine = self._refusals_of.get(user, 0) if user else 0
        return mine >= share or len(self._refusals) >= self._refusals_max

    def _remember(
        self, key: tuple[bytes, str, int], refusal: tuple[int, Refused, int], plain: bool
    ) -> None:
        if key not in self._refusals:
            self._refusals_of[refusal[2]] = self._refusals_of.get(refusal[2], 0) + 1
        self._refusals[key] = refusal
        self._expiries[plain].append((refusal[0], key))


def _user_of(inflight: Inflight) -> int:
    """Whom it acts for, 0 for nobody."""
    user: int = getattr(inflight.ask, "user", 0)
    return user


def _join(inflight: Inflight, peer: str, token: int) -> None:
    """Have one more attempt wait for the answer."""
    if (peer, token) in inflight.attempts():
        return
    if inflight.others is None:
        inflight.others = []
    inflight.others.append((peer, token))


def is_executed(ask: Ask) -> TypeGuard[ExecutedAsk]:
    """Whether `ask` changes something, and so carries a request id."""
    return type(ask) in _EXECUTED
