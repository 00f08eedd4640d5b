"""Custodian: decides what becomes a record of a ledger shard, and what the shard says to whom.

Separate from `ledger.py` because everything here is forgotten when the actor dies: which holds
nothing has been heard of, and what is owed to whom in this turn.  It must not know sockets,
journals or clocks.  Dedupe keys are looked up by the shell: it asks `keys_of` each message and
hands in which of them the journal knows.

Source: ARCHITECTURE.md, the two-phase reservation protocol.
"""

from __future__ import annotations

from collections import deque
from functools import cache

import msgspec

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.desk import Desk
from excore_ray.core.ledger import Ledger, MarketLink
from excore_ray.core.orders import market_no_of
from excore_ray.core.reads import answer_ledger_query
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.reception import Inflight
from excore_ray.core.shardlink import shard_name
from excore_ray.core.turns import Send, Turn


class CustodianLimits(msgspec.Struct, frozen=True):
    """What a shard bounds.  Times in microseconds.

    inquire_us: how long a hold may go without a word of its market.  inquiries_max: holds asked
    about in one turn.  results_max: remembered results; beyond it updates are refused with
    SERVICE_UNAVAILABLE.
    """

    inquire_us: int = 1_000_000
    inquiries_max: int = 1_000
    results_max: int = 3_000_000


class Talk:
    """What is said to one market in this turn."""

    __slots__ = ("aborted", "denied", "granted", "inquiries")

    def __init__(self) -> None:
        self.granted: list[int] = []
        self.denied: list[int] = []
        self.aborted: list[int] = []
        self.inquiries: list[int] = []


@cache
def market_name(market_no: int) -> str:
    """The name of a market's actor and stream."""
    return f"market-{market_no}"


def key_of(update: c.Update) -> bytes:
    """The key under which an update happens once for ever."""
    key = f"{update.user}:{update.asset}:{update.business_id}:{update.business}"
    return key.encode()


def keys_of(message: m.WireMessage) -> list[bytes]:
    """The keys of all updates in `message`."""
    if type(message) is not m.Batch:
        return []
    return [key_of(ask) for ask in message.asks if type(ask) is c.Update]


class Custodian(Desk):
    """One incarnation of a shard.  Feed `receive`, call `turn`, obey what it returns."""

    def __init__(self, ledger: Ledger, limits: CustodianLimits) -> None:
        super().__init__(ledger)
        self.ledger = ledger
        self.limits = limits
        self.known: frozenset[bytes] = frozenset()  # keys in the journal, of the next message
        self._lows: dict[int, int] = {}  # market_no -> ids below are decided, as last heard
        self._fresh: deque[tuple[int, list[int]]] = deque()  # when granted, and the order ids
        self._unheard: dict[int, int] = {}  # order_id of an older hold -> when it was asked about
        self._talks: dict[int, Talk] = {}

    def open(self, now_us: int, create: c.CreateShard | None) -> Turn:
        """The first turn of an incarnation: nothing may be received before it is durable.

        create: which shard this is, when its journal is empty.
        """
        self.now_us = now_us
        if create is not None:
            self.run(create)
        self.open_epoch()
        for holds in self.ledger.holds.values():
            self._unheard.update(dict.fromkeys(holds, now_us))
        return self.close([])

    def turn(self, now_us: int, checkpoint: bool = False) -> Turn:
        """Ask about holds nothing was heard of, and say what is to be said.

        checkpoint: journal the state_hash, unless commands were run since the last turn.
        """
        self.now_us = now_us
        if checkpoint:
            self.checkpoint()
        nothing = c.Void(next(iter(self.ledger.links), 1), [])
        self.full(self.limits.results_max, nothing)
        self._inquire()
        self.answer_reads()
        sends: list[Send] = []
        for market_no, talk in self._talks.items():
            link = self.ledger.links.get(market_no, _UNKNOWN)
            message = m.ToMarket(
                self.ledger.shard,
                link.applied,
                link.epoch,
                talk.granted,
                talk.denied,
                talk.aborted,
                talk.inquiries,
            )
            sends.append((market_name(market_no), message))
        self._talks = {}
        return self.close(sends)

    def admit(self, inflight: Inflight) -> None:
        """Execute an update, or refuse it."""
        update = inflight.ask
        if type(update) is not c.Update:
            self.refuse_foreign(inflight)
            return
        if len(self.ledger.results) >= self.limits.results_max:
            overloaded = Refused(Reason.SERVICE_UNAVAILABLE, "too many fresh results")
            self.refuse(inflight, overloaded)
            return
        key = key_of(update)
        repeat = key in self.known or key in self._keys
        answer = self.run(msgspec.structs.replace(update, repeat=repeat))
        if type(answer) is Refused:
            self.refuse(inflight, answer)
            return
        self._keys.append(key)
        self.reception.answer(inflight, answer)

    def hear(self, peer: str, message: m.WireMessage) -> None:
        """Take in what a market says: entries first, for they may free what is reserved next."""
        if type(message) is not m.ToShard:
            return
        talk = self._talks.setdefault(message.market_no, Talk())
        known = self.ledger.links.get(message.market_no, _UNKNOWN)
        if message.epoch < known.epoch:
            return  # a zombie: the answer shows it the newer epoch
        self._settle(message, known.applied)
        if message.low > self._lows.get(message.market_no, 0):
            self._lows[message.market_no] = message.low
        self._abort(message, talk)
        self._reserve(message, talk)
        for order_id in message.confirms:
            self._unheard.pop(order_id, None)

    def read(self, ask: m.Ask) -> m.Answer:
        """Answer a question about accounts, holds, or how the shard is."""
        if type(ask) is m.AskStatus:
            return self._status()
        return answer_ledger_query(self.ledger, ask)

    # Parts of them.

    def _settle(self, message: m.ToShard, applied: int) -> None:
        """Apply the entries that come next, skip older ones, leave what lies beyond a gap."""
        if not message.entries or message.first_out_seq > applied + 1:
            return
        entries = message.entries[applied + 1 - message.first_out_seq :]
        if not entries:
            return
        self.run(
            c.Settle(
                message.market_no,
                message.epoch,
                message.low,
                applied + 1,
                entries,
                message.emitted,
            )
        )
        for entry in entries:
            if type(entry) is c.OpenOrders:
                for order_id in entry.holds[::2]:
                    self._unheard.pop(order_id, None)

    def _abort(self, message: m.ToShard, talk: Talk) -> None:
        if not message.aborts:
            return
        link = self.ledger.links.get(message.market_no, _UNKNOWN)
        void: list[int] = []
        for order_id, after_out_seq in zip(message.aborts[::2], message.aborts[1::2], strict=True):
            if link.applied < after_out_seq:
                continue  # the settlement of this very order may be on its way
            talk.aborted.append(order_id)
            held = self.ledger.hold_of(order_id) is not None
            never = order_id < link.low or order_id in link.void
            if (held or not never) and order_id not in void:
                void.append(order_id)
        if void:
            self.run(c.Void(message.market_no, void))

    def _reserve(self, message: m.ToShard, talk: Talk) -> None:
        if not message.reserves:
            return
        ledger, market_no = self.ledger, message.market_no
        link, held = ledger.links.get(market_no, _UNKNOWN), ledger.holds_of(market_no)
        low = max(link.low, self._lows.get(market_no, 0))
        # Each hold is frozen as soon as it is decided, so that the next one finds it frozen.
        holds: list[c.Hold] = []
        fresh: list[int] = []
        for hold in message.reserves:
            order_id = hold.order_id
            found = held.get(order_id)
            if found is not None:
                if found.remaining == hold.amount:
                    talk.granted.append(order_id)
                continue
            granted = order_id >= low and order_id not in link.void
            if granted and not holds:
                granted = 0 < hold.amount <= ledger.available(hold.user, hold.asset)
                if granted:
                    self.run(c.Reserve(market_no, message.epoch, holds))
                    link, held = ledger.links[market_no], ledger.holds[market_no]
            if granted and ledger.freeze(market_no, hold):
                holds.append(hold)
                fresh.append(order_id)
                talk.granted.append(order_id)
            else:
                talk.denied.append(order_id)
        if fresh:
            self._fresh.append((self.now_us, fresh))

    def _inquire(self) -> None:
        """Ask about the holds nothing was heard of for long, oldest first."""
        since_us = self.now_us - self.limits.inquire_us
        asked: list[int] = []
        gone: list[int] = []
        while self._fresh and self._fresh[0][0] <= since_us:
            for order_id in self._fresh.popleft()[1]:
                if self.ledger.hold_of(order_id) is not None:
                    self._unheard[order_id] = since_us
        for order_id, unheard_us in self._unheard.items():
            if unheard_us > since_us or len(asked) >= self.limits.inquiries_max:
                break
            held = self.ledger.hold_of(order_id) is not None
            (asked if held else gone).append(order_id)
        for order_id in gone:
            del self._unheard[order_id]
        for order_id in asked:
            del self._unheard[order_id]
            self._unheard[order_id] = self.now_us
            talk = self._talks.setdefault(market_no_of(order_id), Talk())
            talk.inquiries.append(order_id)

    def _status(self) -> m.Status:
        ledger = self.ledger
        facts = {
            "users": len(ledger.accounts),
            "holds": sum(len(holds) for holds in ledger.holds.values()),
            "unheard": len(self._unheard) + sum(len(ids) for _, ids in self._fresh),
            "results": len(ledger.results),
            "time_us": ledger.time_us,
        }
        return self.status(shard_name(ledger.shard), facts)


_UNKNOWN = MarketLink()
