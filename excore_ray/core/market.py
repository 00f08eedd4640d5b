"""Market: the machine of one market.  Records in, answers and events out.

Separate from `sequencer.py`, which decides what becomes a record: everything here is a function
of the journal alone, so that replay, audit and simulation run exactly what ran.  It must not
know clock, wire, shards' answers or names.

Source: the RPC reference for orders; ARCHITECTURE.md for epochs, outboxes and ids.
"""

from __future__ import annotations

from collections.abc import Iterator

from excore_ray.core import commands as c
from excore_ray.core.book import BookSide
from excore_ray.core.events import DEAL, FINISHED
from excore_ray.core.machine import DONE, Machine
from excore_ray.core.matching import match
from excore_ray.core.messages import Done, Placed
from excore_ray.core.orders import (
    MARKET_NO_MAX,
    ORDER_ID_STRIDE,
    ORDER_NUMBER_MAX,
    Order,
    OrderType,
    Role,
    Side,
    order_id_of,
)
from excore_ray.core.outbox import Outbox
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.settlement import leg_of, need_of, referral_of
from excore_ray.core.sharding import shard_of
from excore_ray.core.specs import MarketRules

IDS_PER_BLOCK = 65_536

# Looked up by name where it is hot: an enumeration's member costs three times as much.
_SELL, _BUY, _BOTH = Side.SELL, Side.BUY, 3
_LIMIT, _MARKET = OrderType.LIMIT, OrderType.MARKET
_TAKER, _MAKER = Role.TAKER, Role.MAKER


class Market(Machine):
    """Book, open orders, outboxes and recorded results of one market.

    told: what has happened, as `MarketRecord` has it.
    """

    told: list[int | str]

    def __init__(self) -> None:
        super().__init__()
        self.rules = MarketRules(0, 0, 0, 0, 0, 1, 1, 1)
        self.ids_high = 0  # order numbers up to this one are durable
        self.id_base = 0  # smallest order id of this epoch
        self.last_order_id = 0
        self.last_deal_id = 0
        self.orders: dict[int, Order] = {}
        self.newest_of_user: dict[int, Order] = {}
        self.sides: dict[int, BookSide] = {side: BookSide(side) for side in Side}
        self.outboxes: list[Outbox] = []
        self.handlers |= {
            c.CreateMarket: self._create,
            c.ReserveIds: self._reserve_ids,
            c.Place: self._place,
            c.Cancel: self._cancel,
            c.Forget: self._forget,
        }

    def __del__(self) -> None:
        # The collector does not look into orders, so it would never free those that are chained.
        for order in self.orders.values():
            order.level = order.older = order.newer = order.user_older = order.user_newer = None

    def record(self, commands: list[c.MarketCommand]) -> c.MarketRecord:
        """See Machine.record."""
        return c.MarketRecord(self.time_us, commands, self.told)

    def open_orders_of(self, user: int) -> Iterator[Order]:
        """The open orders of `user`, newest first."""
        order = self.newest_of_user.get(user)
        while order is not None:
            yield order
            order = order.user_older

    def open_count_of(self, user: int) -> int:
        """How many open orders `user` has."""
        newest = self.newest_of_user.get(user)
        return newest.user_count if newest is not None else 0

    def holds_at(self, shard: int) -> list[int]:
        """Flat pairs order_id, need of all open orders whose holds are at `shard`."""
        flat: list[int] = []
        for order in self.orders.values():
            if shard_of(order.user, self.shards) == shard:
                flat += (order.order_id, need_of(self.rules, order))
        return flat

    def restore_outboxes(
        self, counts: list[tuple[int, int, int]], waiting: list[tuple[int, list[c.Entry]]]
    ) -> None:
        """Put a snapshot's outboxes in place: (out_seq, stock, money), and (acked, entries)."""
        for (out_seq, stock, money), (acked, entries) in zip(counts, waiting, strict=True):
            self.outboxes.append(Outbox(out_seq, acked, (stock, money), entries))

    def restore_order(self, order: Order) -> None:
        """Put an open order of a snapshot in its place; orders come oldest first."""
        self._rest(order)

    # Commands.

    def _create(self, command: c.CreateMarket) -> Done:
        assert not self.shards, "a market is created once"
        assert 0 < command.rules.market_no <= MARKET_NO_MAX
        self.rules = command.rules
        self.shards = command.shards
        self.outboxes = [Outbox() for _ in range(command.shards)]
        return DONE

    def _open_epoch(self, command: c.OpenEpoch) -> Done:
        super()._open_epoch(command)
        self.id_base = order_id_of(self.ids_high + 1, self.rules.market_no)
        for shard, outbox in enumerate(self.outboxes):
            outbox.add(c.OpenOrders(self.epoch, self.id_base, self.holds_at(shard)))
        return DONE

    def _reserve_ids(self, command: c.ReserveIds) -> Done:
        assert self.ids_high < command.high <= ORDER_NUMBER_MAX, "order ids have run out"
        self.ids_high = command.high
        return DONE

    def _forget(self, command: c.Forget) -> Done:
        outbox = self.outboxes[command.shard]
        # The live machine has forgotten on the shard's word already, and maybe more since.
        if command.out_seq > outbox.acked:
            outbox.forget(command.out_seq)
        return DONE

    def _place(self, command: c.Place) -> Placed | Refused:
        put = command.put
        if type(put) is c.PutMarket:
            refusal = self.refusal_of_market_order(put)
            if refusal is not None:
                return refusal
        # From here on the command must succeed.
        order = self._order_of(command.order_id, put)
        self._take_id(command.order_id)
        shard = shard_of(order.user, self.shards)
        outbox = self.outboxes[shard]
        written = outbox.out_seq
        limited = order.type == _LIMIT
        opposite = self.sides[_BOTH - order.side]
        unused = 0
        if not limited or opposite.crosses(order.price):
            unused = need_of(self.rules, order)
            for maker, amount in match(order, opposite):
                unused -= self._deal(order, maker, amount)
            if order.left and limited:
                unused -= need_of(self.rules, order)
        if order.left and limited:
            self._rest(order)
        else:
            self._tell_finished(order)
        if unused:
            outbox.add(c.Release(order.order_id, unused))
        answer = Placed(
            order.order_id,
            order.ctime_us,
            order.mtime_us,
            order.left,
            order.deal_stock,
            order.deal_money,
            order.deal_fee,
        )
        self._record(put, answer, (shard, outbox.out_seq if outbox.out_seq > written else 0))
        return answer

    def refusal_of_market_order(self, put: c.PutMarket) -> Refused | None:
        """Why a market order cannot be executed now, in the order it is checked."""
        best = self.sides[3 - put.side].best
        if best is None:
            return Refused(Reason.NO_ENOUGH_TRADER, "the opposite side of the book is empty")
        least = self.rules.min_amount * (best.price if put.side == Side.BUY else 1)
        if put.amount < least:
            return Refused(Reason.AMOUNT_TOO_SMALL, "amount: below the market's minimum")
        return None

    def _cancel(self, command: c.Cancel) -> Done | Refused:
        if command.order_id:
            order = self.orders.get(command.order_id)
            if order is None:
                return Refused(Reason.ORDER_NOT_FOUND, f"order_id {command.order_id} is not open")
            if order.user != command.user:
                return Refused(Reason.USER_NOT_MATCH, f"order_id {command.order_id}")
            orders = [order]
        else:
            orders = list(self.open_orders_of(command.user))
        # From here on the command must succeed.
        shard = shard_of(command.user, self.shards)
        outbox = self.outboxes[shard]
        for order in orders:
            need = need_of(self.rules, order)
            self.sides[order.side].remove(order)
            self._close(order)
            outbox.add(c.Release(order.order_id, need))
        self._record(command, DONE, (shard, outbox.out_seq if orders else 0))
        return DONE

    # Parts of them.

    def _order_of(self, order_id: int, put: c.PutLimit | c.PutMarket) -> Order:
        now = self.time_us
        if type(put) is c.PutMarket:
            return Order(
                order_id,
                put.user,
                put.side,
                OrderType.MARKET,
                0,
                put.amount,
                put.amount,
                put.taker_fee,
                0,
                0,
                0,
                put.source,
                now,
                now,
            )
        assert type(put) is c.PutLimit
        return Order(
            order_id,
            put.user,
            put.side,
            OrderType.LIMIT,
            put.price,
            put.amount,
            put.amount,
            put.taker_fee,
            put.maker_fee,
            put.ref_user,
            put.ref_rate,
            put.source,
            now,
            now,
        )

    def _take_id(self, order_id: int) -> None:
        assert self.last_order_id < order_id, "order ids only grow"
        assert self.id_base <= order_id, "an order id of an older epoch"
        number, market_no = divmod(order_id, ORDER_ID_STRIDE)
        assert market_no == self.rules.market_no, "an order id of another market"
        assert number <= self.ids_high, "an order id that was not reserved"
        self.last_order_id = order_id

    def _deal(self, taker: Order, maker: Order, amount: int) -> int:
        """Execute one match; returns what the taker's hold paid (prec_save)."""
        price = maker.price
        self.last_deal_id += 1
        spends_money = taker.type == _MARKET and taker.side == _BUY
        taker.left -= amount * price if spends_money else amount
        side = self.sides[maker.side]
        side.reduce(maker, amount)
        deal = (self.last_deal_id, price, amount)
        paid = self._leg(taker, deal, _TAKER)
        given = self._leg(maker, deal, _MAKER)
        self.told += (
            DEAL,
            self.last_deal_id,
            taker.side,
            price,
            amount,
            taker.order_id,
            taker.user,
            paid.fee,
            maker.order_id,
            maker.user,
            given.fee,
        )
        if not maker.left:
            side.remove(maker)
            self._close(maker)
        return paid.debit

    def _leg(self, order: Order, deal: tuple[int, int, int], role: Role) -> c.Leg:
        leg = leg_of(self.rules, order, deal, role)
        _, price, amount = deal
        order.deal_stock += amount
        order.deal_money += amount * price
        order.deal_fee += leg.fee
        order.mtime_us = self.time_us
        self.outboxes[shard_of(order.user, self.shards)].add(leg)
        if leg.referral:
            referral = referral_of(order, leg)
            self.outboxes[shard_of(referral.user, self.shards)].add(referral)
        return leg

    def _rest(self, order: Order) -> None:
        user = order.user
        self.sides[order.side].add(order)
        self.orders[order.order_id] = order
        newest = self.newest_of_user.get(user)
        if newest is not None:
            order.user_older = newest
            order.user_count = newest.user_count + 1
            newest.user_newer = order
            # A user's orders are alike: what is equal is kept in memory once.
            order.user = newest.user
            if order.source == newest.source:
                order.source = newest.source
        self.newest_of_user[user] = order

    def _close(self, order: Order) -> None:
        user = order.user
        del self.orders[order.order_id]
        older, newer = order.user_older, order.user_newer
        if newer is not None:
            newer.user_older = older
            order.user_newer = None
            self.newest_of_user[user].user_count -= 1
        elif older is not None:
            older.user_count = order.user_count - 1
            self.newest_of_user[user] = older
        else:
            del self.newest_of_user[user]
        if older is not None:
            older.user_newer = newer
            order.user_older = None
        self._tell_finished(order)

    def _tell_finished(self, order: Order) -> None:
        if order.type == _LIMIT and order.left and not order.deal_stock:
            return  # cancelled untouched: it leaves no history
        self.told += (
            FINISHED,
            order.order_id,
            order.user,
            order.side,
            order.type,
            order.price,
            order.amount,
            order.left,
            order.taker_fee,
            order.maker_fee,
            order.ref_user,
            order.ref_rate,
            order.source,
            order.ctime_us,
            order.deal_stock,
            order.deal_money,
            order.deal_fee,
        )

    def _record(
        self,
        command: c.PutLimit | c.PutMarket | c.Cancel,
        answer: Placed | Done,
        place: tuple[int, int],
    ) -> None:
        """Remember the answer.  place: the caller's shard and the last entry caused there, or 0."""
        self.results.record(command.request_id, command.stamp_ms, self.time_us, answer, place)
