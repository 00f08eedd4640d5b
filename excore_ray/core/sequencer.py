"""Sequencer: decides what becomes a record of a market, and what the market says to whom.

Separate from `market.py` because everything here is forgotten when the actor dies: orders
between arrival and commit, reservations asked for and given up, replies that wait for shards.
It must not know sockets, journals or clocks: messages and the time come in, a Turn goes out.

Orders are executed in the order they arrived, each when its funds are granted; one whose shard
stays silent is given up so that the rest can go on.
Source: ARCHITECTURE.md, the two-phase reservation protocol.
"""

from __future__ import annotations

from collections import deque

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.admission import SILENT, TOO_LATE, Admission
from excore_ray.core.desk import Desk
from excore_ray.core.market import IDS_PER_BLOCK, Market
from excore_ray.core.orders import Side, market_no_of, order_id_of
from excore_ray.core.reads import answer_market_query
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.reception import Inflight
from excore_ray.core.results import Result
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import Reply, SequencerLimits, ShardLink, Waiting, shard_name
from excore_ray.core.turns import Send, Superseded, Turn
from excore_ray.core.undecided import Undecided

# Looked up by name where it is hot: an enumeration's member costs three times as much.
_SELL = Side.SELL
_NOT_ENOUGH = Refused(Reason.BALANCE_NOT_ENOUGH, "less is available than the order needs")


class Sequencer(Desk):
    """One incarnation of a market.  Feed `receive`, call `turn`, obey what it returns."""

    def __init__(self, market: Market, limits: SequencerLimits) -> None:
        super().__init__(market, Waiting)
        self.market = market
        self.limits = limits
        self.links = _links_to(market)
        self._undecided = Undecided()
        self._admission = Admission(market, self._undecided, limits)
        self._queue: deque[Waiting] = deque()  # in order of arrival
        self._late: deque[Waiting] = deque()  # replies to send when due, whoever is missing
        self._next_number = 0
        self._forgotten = [box.acked for box in market.outboxes]

    def open(self, now_us: int, create: c.CreateMarket | None) -> Turn:
        """The first turn of an incarnation: nothing may be received before it is durable.

        create: the market's definition when its journal is empty.
        """
        self.now_us = now_us
        if create is not None:
            self.run(create)
            self._forgotten = [0] * create.shards
        self.open_epoch()
        self.links = _links_to(self.market)
        self._next_number = self.market.ids_high + 1
        self.run(c.ReserveIds(self.market.ids_high + IDS_PER_BLOCK))
        return self._finish()

    def connected(self, shard: int) -> None:
        """A new connection to `shard`: whatever it may have missed is sent again."""
        self.links[shard].restart()
        self._ask_again(self.links[shard])

    def turn(self, now_us: int, checkpoint: bool = False) -> Turn:
        """Decide what can be decided and say what is to be said.

        checkpoint: journal the state_hash before anything else.
        """
        self.now_us = now_us
        if checkpoint:
            self.checkpoint()
        self._give_up()
        self._advance()
        for link in self.links:
            if now_us - link.asked_us >= self.limits.resend_us:
                self._ask_again(link)
        self._release_late()
        self.answer_reads()
        self._forget()
        self.full(self.limits.results_max, c.Forget(0, self.market.outboxes[0].acked))
        self._admission.results = len(self.market.results)
        return self._finish()

    @property
    def pressing(self) -> bool:
        """Whether orders are left that were decided and not executed for the turn was full."""
        return bool(self._queue) and self._queue[0].ready

    @property
    def busy(self) -> bool:
        """Whether something waits for a shard or for time, so that turns must go on."""
        waits = self._undecided.by_id or self._queue or self.reception.inflight or self._late
        return bool(waits) or any(
            link.owes(box) for link, box in zip(self.links, self.market.outboxes, strict=True)
        )

    # Gateways.

    def admit(self, inflight: Inflight) -> None:
        """Reserve for an order, or queue a cancel, or refuse."""
        assert type(inflight) is Waiting
        ask = inflight.ask
        queued = len(self._queue)
        if type(ask) is c.Cancel:
            refused = self._admission.refusal_of_cancel(queued)
        elif type(ask) is c.PutLimit or type(ask) is c.PutMarket:
            refused = self._admission.refusal_of_put(ask, queued)
        else:
            self.refuse_foreign(inflight)
            return
        if refused is not None:
            self.refuse(inflight, refused)
            return
        inflight.shard = shard_of(ask.user, self.market.shards)
        inflight.asked_us = self.now_us
        if type(ask) is c.Cancel:
            inflight.ready = True
            self._queue.append(inflight)
            if not queued:
                self._advance()
        elif self.links[inflight.shard].silent:
            self.refuse(inflight, SILENT)
        else:
            assert type(ask) is c.PutLimit or type(ask) is c.PutMarket
            self._reserve(inflight, ask)

    def _reserve(self, waiting: Waiting, put: c.PutLimit | c.PutMarket) -> None:
        if self._next_number > self.market.ids_high:
            self.run(c.ReserveIds(self.market.ids_high + IDS_PER_BLOCK))
        order_id = order_id_of(self._next_number, self.market.rules.market_no)
        self._next_number += 1
        waiting.order_id = order_id
        self._undecided.add(waiting)
        self._queue.append(waiting)
        self._ask(waiting, put)

    def _ask(self, waiting: Waiting, put: c.PutLimit | c.PutMarket) -> None:
        rules = self.market.rules
        limit = type(put) is c.PutLimit
        if put.side == _SELL:
            asset, amount = rules.stock_id, put.amount * rules.stock_unit
        else:
            price = put.price if type(put) is c.PutLimit else 1
            asset, amount = rules.money_id, put.amount * price * rules.money_unit
        hold = c.Hold(waiting.order_id, put.user, asset, amount, limit)
        self.links[waiting.shard].reserves.append(hold)

    def _ask_again(self, link: ShardLink) -> None:
        link.asked_us = self.now_us
        unasked = {hold.order_id for hold in link.reserves}
        for order_id, waiting in self._undecided.by_id.items():
            mine = waiting.shard == link.shard and not waiting.ready
            if mine and order_id not in unasked:
                put = waiting.ask
                assert type(put) is c.PutLimit or type(put) is c.PutMarket
                self._ask(waiting, put)

    def repeat(self, inflight: Inflight, result: Result) -> None:
        """Answer a request that was executed, once its own shard has everything up to now.

        Waiting for the newest entry, not the result's own, keeps the waiting line in order.
        """
        assert type(inflight) is Waiting
        box = self.market.outboxes[result.shard]
        if box.acked >= result.out_seq:
            self.reception.reply(inflight.peer, inflight.token, result.answer)
            return
        inflight.repeated = True
        inflight.answer = result.answer
        inflight.shard = result.shard
        inflight.missing = 1
        self.links[result.shard].owed.append((box.out_seq, inflight))

    def read(self, ask: m.Ask) -> m.Answer:
        """Answer a question about the book, or how the market is."""
        if type(ask) is m.AskHolds:
            return self._holds(ask.shard)
        if type(ask) is m.AskStatus:
            return self._status()
        return answer_market_query(self.market, ask)

    # Shards.

    def hear(self, peer: str, message: m.WireMessage) -> None:
        """Take in what a shard says."""
        if type(message) is not m.ToMarket:
            return
        if message.epoch > self.market.epoch:
            raise Superseded(f"shard {message.shard} knows epoch {message.epoch}")
        if not 0 <= message.shard < len(self.links):
            return
        link = self.links[message.shard]
        link.silent = False
        undecided = self._undecided.by_id
        for order_id in message.granted:
            waiting = undecided.get(order_id)
            if waiting is not None:
                waiting.ready = True
            else:
                self._granted(link, order_id)
        for order_id in message.inquiries:
            self._granted(link, order_id)
        for order_id in message.denied:
            self._denied(order_id)
        for order_id in message.aborted:
            self._aborted(link, order_id)
        box = self.market.outboxes[message.shard]
        if message.applied > box.acked:
            box.forget(message.applied)
            link.progressed(self.now_us)
            self._settled(link, message.applied)

    def _granted(self, link: ShardLink, order_id: int) -> None:
        waiting = self._undecided.by_id.get(order_id)
        if waiting is not None:
            waiting.ready = True
        elif order_id in self.market.orders:
            link.confirms.append(order_id)
        elif market_no_of(order_id) == self.market.rules.market_no:
            self._abort(link, order_id, None)

    def _denied(self, order_id: int) -> None:
        waiting = self._undecided.by_id.get(order_id)
        if waiting is None or waiting.ready:
            return
        self._undecided.remove(waiting)
        waiting.ready = waiting.refused = True
        self.refuse(waiting, _NOT_ENOUGH)

    def _abort(self, link: ShardLink, order_id: int, reply: Reply | None) -> None:
        box = self.market.outboxes[link.shard]
        link.abort(order_id, box.out_seq, reply)

    def _aborted(self, link: ShardLink, order_id: int) -> None:
        reply = link.aborted(order_id)
        if reply is not None:
            inflight, refused = reply
            self.refuse(inflight, refused)

    def _settled(self, link: ShardLink, applied: int) -> None:
        owed_queue = link.owed
        while owed_queue and owed_queue[0][0] <= applied:
            _, waiting = owed_queue.popleft()
            waiting.missing -= 1
            if link.shard == waiting.shard:
                waiting.own_seen = True
            if not waiting.missing or (waiting.own_seen and 0 < waiting.due_us <= self.now_us):
                self._pay(waiting)

    # Decisions.

    def _advance(self) -> None:
        """Execute what stands at the head of the queue and is decided, within the turn's bound."""
        queue, commits_max = self._queue, self.limits.commits_max
        # Executed any later, it would be answered when nobody waits for the answer.
        late_us = self.now_us + self.limits.late_us
        while queue and queue[0].ready and len(self._commands) < commits_max:
            waiting = queue.popleft()
            if waiting.refused:
                continue
            if waiting.order_id:
                self._undecided.remove(waiting)
            if waiting.deadline_us > late_us:
                self._commit(waiting)
            else:
                self._reject(waiting, TOO_LATE)

    def _commit(self, waiting: Waiting) -> None:
        ask = waiting.ask
        command: c.Place | c.Cancel
        if type(ask) is c.Cancel:
            command = ask
        else:
            assert type(ask) is c.PutLimit or type(ask) is c.PutMarket
            command = c.Place(waiting.order_id, ask)
        answer = self.run(command)
        if type(answer) is Refused:
            self._reject(waiting, answer)
            return
        waiting.answer = self.market.results.newest
        own_seen, missing = True, 0
        for link, box in zip(self.links, self.market.outboxes, strict=True):
            out_seq = box.out_seq
            if out_seq == link.noted:
                continue
            link.noted = out_seq
            link.owed.append((out_seq, waiting))
            missing += 1
            if link.shard == waiting.shard:
                own_seen = False
            elif not waiting.due_us:
                waiting.due_us = self.now_us + self.limits.others_wait_us
        waiting.own_seen = own_seen
        waiting.missing = missing
        if not missing:
            self._pay(waiting)
        elif waiting.due_us:
            self._late.append(waiting)

    def _reject(self, waiting: Waiting, refused: Refused) -> None:
        """Refuse what was not executed; an order once its shard has given back its hold."""
        if waiting.order_id:
            self._abort(self.links[waiting.shard], waiting.order_id, (waiting, refused))
        else:
            self.refuse(waiting, refused)

    def _pay(self, waiting: Waiting) -> None:
        """Give the answer, once."""
        if waiting.paid:
            return
        waiting.paid = True
        assert waiting.answer is not None
        if waiting.repeated:
            self.reception.reply(waiting.peer, waiting.token, waiting.answer)
        else:
            self.reception.answer(waiting, waiting.answer)

    def _release_late(self) -> None:
        """Send the replies that have waited long enough for shards of others."""
        late = self._late
        while late and late[0].due_us <= self.now_us:
            waiting = late.popleft()
            if waiting.own_seen:
                self._pay(waiting)

    def _give_up(self) -> None:
        """Give up orders whose shard has been silent for too long."""
        started_us = self.now_us - self.limits.reserve_timeout_us
        for waiting in self._queue:
            if waiting.asked_us > started_us:
                break
            if not waiting.order_id or waiting.ready:
                continue
            waiting.ready = waiting.refused = True
            self._undecided.remove(waiting)
            link = self.links[waiting.shard]
            link.silent = True
            self._abort(link, waiting.order_id, None)
            detail = "the user's accounts did not answer in time"
            self.refuse(waiting, Refused(Reason.SERVICE_UNAVAILABLE, detail))

    # Turn.

    def _forget(self) -> None:
        """Tell replays which entries need not be offered again, when much has been applied."""
        for shard, box in enumerate(self.market.outboxes):
            if box.acked - self._forgotten[shard] >= self.limits.forget_every:
                self._forgotten[shard] = box.acked
                self.run(c.Forget(shard, box.acked))

    def low(self) -> int:
        """The smallest undecided order id."""
        for waiting in self._queue:
            if waiting.order_id and not waiting.refused:
                return waiting.order_id
        return order_id_of(self._next_number, self.market.rules.market_no)

    def _finish(self) -> Turn:
        sends: list[Send] = []
        header = (self.market.rules.market_no, self.market.epoch, self.low())
        for link, box in zip(self.links, self.market.outboxes, strict=True):
            message = link.gather(header, box, self.now_us, self.limits)
            if message is not None:
                sends.append((shard_name(link.shard), message))
        return self.close(sends)

    def _holds(self, shard: int) -> m.MarketHolds:
        asked = self._undecided.by_id.items()
        undecided = [i for i, waiting in asked if waiting.shard == shard]
        undecided += self.links[shard].aborting
        boxes = self.market.outboxes
        emitted = [(box.stock, box.money) for box in boxes]
        return m.MarketHolds(
            self.low(), boxes[shard].out_seq, undecided, self.market.holds_at(shard), emitted
        )

    def _status(self) -> m.Status:
        market = self.market
        facts = {
            "orders": len(market.orders),
            "deals": market.last_deal_id,
            "last_order_id": market.last_order_id,
            "queue": len(self._queue),
            "results": len(market.results),
            "lag_entries": max((box.out_seq - box.acked for box in market.outboxes), default=0),
            "shards_silent": sum(link.silent for link in self.links),
            "time_us": market.time_us,
        }
        return self.status(f"market-{market.rules.market_no}", facts)


def _links_to(market: Market) -> list[ShardLink]:
    return [ShardLink(shard, box.out_seq) for shard, box in enumerate(market.outboxes)]
