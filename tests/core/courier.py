"""Courier: one market and its shards without any network, journals kept in lists.

Separate so that properties can drive the real machines in any order of delivery: it reserves,
places and carries entries as the protocol demands, and at once.  It must not know what any
amount should be.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.audit import check_conservation, check_ledger, check_market
from excore_ray.core.events import Deal, events_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.postings import postings_of
from excore_ray.core.reads import answer_ledger_query
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.sharding import shard_of
from excore_ray.core.snapshot import dump, load_ledger, load_market, state_hash
from excore_ray.core.specs import MarketRules
from tests.core.machines import START_US
from tests.core.postings import Change, changes_of

Record = TypeVar("Record", c.MarketRecord, c.LedgerRecord)

NOT_ENOUGH = Refused(Reason.BALANCE_NOT_ENOUGH)
IDS = 1_000


class Courier:
    """market and ledgers as they are now; deals and postings, all there ever were."""

    def __init__(self, rules: MarketRules, shards: int) -> None:
        self.market = Market()
        self.ledgers = [Ledger() for _ in range(shards)]
        self.deals: list[Deal] = []
        self.postings: list[Change] = []
        self.forced = False
        self._time_us = START_US
        self._number = 0
        self._journals: dict[str, list[Any]] = {}
        self._run_market(c.CreateMarket(rules, shards))
        self.new_epoch()
        for shard in range(shards):
            self._run_ledger(shard, c.CreateShard(shard, shards))
            self._run_ledger(shard, c.OpenEpoch(1))

    # What users do.

    def update(self, update: c.Update) -> m.Placed | m.Done | Refused:
        """Change a balance at its shard."""
        self.forced = self.forced or update.force
        return self._run_ledger(shard_of(update.user, len(self.ledgers)), update)

    def put(self, put: c.PutLimit | c.PutMarket) -> m.Placed | m.Done | Refused:
        """Reserve for an order and place it; a refused one gives its hold back."""
        order_id = self.reserve(put)
        if order_id is None:
            return NOT_ENOUGH
        answer = self._run_market(c.Place(order_id, put))
        if isinstance(answer, Refused):
            shard = shard_of(put.user, len(self.ledgers))
            self._run_ledger(shard, c.Void(self.market.rules.market_no, [order_id]))
        return answer

    def reserve(self, put: c.PutLimit | c.PutMarket) -> int | None:
        """Freeze what `put` needs under a new order id, or None when it is not there."""
        self._number += 1
        order_id = order_id_of(self._number, self.market.rules.market_no)
        shard = shard_of(put.user, len(self.ledgers))
        hold = self._hold(order_id, put)
        if hold.amount > self.ledgers[shard].available(put.user, hold.asset):
            return None
        market_no = self.market.rules.market_no
        self._run_ledger(shard, c.Reserve(market_no, self.market.epoch, [hold]))
        return order_id

    def cancel(self, cancel: c.Cancel) -> m.Placed | m.Done | Refused:
        """Cancel one order or all of a user's."""
        return self._run_market(cancel)

    # What the world does.

    def wait(self, time_us: int) -> None:
        """Let time pass."""
        self._time_us += time_us

    def deliver(self, shard: int, count: int, again: int = 0) -> None:
        """Carry the next `count` entries to a shard, and before them up to `again` old ones."""
        ledger, box = self.ledgers[shard], self.market.outboxes[shard]
        market_no = self.market.rules.market_no
        link = ledger.links.get(market_no)
        applied = link.applied if link is not None else 0
        start = max(box.acked, applied - again)
        entries, emitted = box.after(start, applied - start + count)
        fresh = entries[applied - start :]  # what was applied before is skipped by its number
        if fresh:
            low = order_id_of(self._number + 1, market_no)
            epoch = self.market.epoch
            command = c.Settle(market_no, epoch, low, applied + 1, fresh, emitted)
            self._run_ledger(shard, command)

    def settle(self, shard: int, count: int = 1_000) -> None:
        """Carry everything to one shard, `count` entries at a time."""
        while not self.settled(shard):
            self.deliver(shard, count)

    def settled(self, shard: int) -> bool:
        """Whether a shard has applied every entry there is for it."""
        link = self.ledgers[shard].links.get(self.market.rules.market_no)
        out_seq = self.market.outboxes[shard].out_seq
        return out_seq == (link.applied if link is not None else 0)

    def forget(self, shard: int) -> None:
        """Tell the market what a shard has durably."""
        link = self.ledgers[shard].links.get(self.market.rules.market_no)
        if link is not None:
            self._run_market(c.Forget(shard, link.applied))

    def new_epoch(self) -> None:
        """The market comes back as another incarnation, with order ids of its own."""
        self._run_market(c.OpenEpoch(self.market.epoch + 1))
        self._number = self.market.ids_high
        self._run_market(c.ReserveIds(self._number + IDS))

    def reload(self) -> None:
        """Go on with machines out of their snapshots."""
        self.market = load_market(dump(self.market))
        self.ledgers = [load_ledger(dump(ledger)) for ledger in self.ledgers]

    # What must hold.

    def check(self) -> None:
        """Assert what holds at every moment."""
        check_market(self.market)
        for ledger in self.ledgers:
            check_ledger(ledger, self.forced)
        check_conservation([self.market], self.ledgers)

    def check_replay(self) -> None:
        """Assert that the journals, written out and read back, make the same machines.

        Time has gone on for the live ones with every refusal, which no journal knows of.
        """
        market = Market()
        for record in self._journals["market-1"]:
            market.apply(_again(record), state_hash)
        market.begin(self.market.time_us)
        assert state_hash(market) == state_hash(self.market)
        for shard, live in enumerate(self.ledgers):
            ledger = Ledger()
            for ledger_record in self._journals[f"ledger-{shard}"]:
                ledger.apply(_again(ledger_record), state_hash)
            ledger.begin(live.time_us)
            assert state_hash(ledger) == state_hash(live)

    def shard_holds(self, shard: int) -> m.ShardHolds:
        """What a shard tells the audit."""
        ask = m.AskHolds(0, self.market.rules.market_no)
        answer = answer_ledger_query(self.ledgers[shard], ask)
        assert isinstance(answer, m.ShardHolds)
        return answer

    def market_holds(self, shard: int) -> m.MarketHolds:
        """What the market tells the audit; nothing is undecided between two calls."""
        boxes = self.market.outboxes
        low = order_id_of(self._number + 1, self.market.rules.market_no)
        emitted = [(box.stock, box.money) for box in boxes]
        holds = self.market.holds_at(shard)
        return m.MarketHolds(low, boxes[shard].out_seq, [], holds, emitted)

    # Parts of them.

    def _hold(self, order_id: int, put: c.PutLimit | c.PutMarket) -> c.Hold:
        rules = self.market.rules
        limit = isinstance(put, c.PutLimit)
        if put.side == Side.SELL:
            return c.Hold(order_id, put.user, rules.stock_id, put.amount * rules.stock_unit, limit)
        money = put.amount * (put.price if isinstance(put, c.PutLimit) else 1)
        return c.Hold(order_id, put.user, rules.money_id, money * rules.money_unit, limit)

    def _run_market(self, command: c.MarketCommand) -> m.Placed | m.Done | Refused:
        self.market.begin(self._time_us)
        answer = self.market.execute(command)
        if not isinstance(answer, Refused):
            record = self.market.record([command, c.Checkpoint(state_hash(self.market))])
            self._landed("market-1", record)
        return answer

    def _run_ledger(self, shard: int, command: c.LedgerCommand) -> m.Placed | m.Done | Refused:
        ledger = self.ledgers[shard]
        ledger.begin(self._time_us)
        answer = ledger.execute(command)
        if not isinstance(answer, Refused):
            record = ledger.record([command, c.Checkpoint(state_hash(ledger))])
            self._landed(f"ledger-{shard}", record)
        return answer

    def _landed(self, stream: str, record: c.MarketRecord | c.LedgerRecord) -> None:
        self._journals.setdefault(stream, []).append(record)
        if isinstance(record, c.MarketRecord):
            self.deals += (event for event in events_of(record) if isinstance(event, Deal))
        else:
            self.postings += changes_of(postings_of(record))


def _again(record: Record) -> Record:
    return msgspec.json.decode(msgspec.json.encode(record), type=type(record))
