"""A market as anybody would write it down: a list of open orders, and exact decimals.

An oracle for the gateway's tests: it shares no arithmetic with the core.  It knows units of the
wire, not scaled integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Context, Decimal, localcontext

from excore_ray.core.reasons import Reason, Refused

EXACT = Context(prec=200, rounding=ROUND_DOWN)
ZERO = Decimal(0)


def cut(value: Decimal, digits: int) -> Decimal:
    """`value` with at most `digits` decimals, cut off toward zero."""
    with localcontext(EXACT):
        return value.quantize(Decimal(1).scaleb(-digits), ROUND_DOWN)


@dataclass
class Money:
    """One user's asset."""

    available: Decimal = ZERO
    frozen: Decimal = ZERO


@dataclass
class NaiveOrder:
    order_id: int
    user: int
    side: int
    price: Decimal  # 0 for a market order
    amount: Decimal
    taker_fee: Decimal
    maker_fee: Decimal = ZERO
    ref_user: int = 0
    ref_rate: Decimal = ZERO
    source: str = ""
    ctime_us: int = 0
    mtime_us: int = 0
    left: Decimal = ZERO
    deal_stock: Decimal = ZERO
    deal_money: Decimal = ZERO
    deal_fee: Decimal = ZERO
    ftime_us: int = 0


@dataclass
class NaiveDeal:
    deal_id: int
    time_us: int
    price: Decimal
    amount: Decimal
    taker: NaiveOrder
    maker: NaiveOrder
    taker_fee: Decimal = ZERO
    maker_fee: Decimal = ZERO


@dataclass(frozen=True)
class Cause:
    """Why an account changed: an update has an id and a detail, a deal has the rest.

    price, amount: None for a referrer, to whom the deal is not told.  rate: of a fee.
    """

    time_us: int
    business: str
    business_id: int = 0
    detail: str = ""
    market_no: int = 0
    order_id: int = 0
    price: Decimal | None = None
    amount: Decimal | None = None
    rate: Decimal | None = None


@dataclass
class NaiveMarket:
    """stock, money: asset ids; saves: their prec_save.  account finds or makes an account.

    booked: told of each change of a user's asset by a deal, when it is made.
    deals, finished: everything there ever was, in the order it came about.
    """

    market_no: int
    stock: int
    money: int
    saves: dict[int, int]
    stock_prec: int
    min_amount: Decimal
    account: Callable[[int, int], Money]
    collect_fee: Callable[[int, Decimal], None]
    booked: Callable[[int, int, Decimal, Cause], None]

    def __post_init__(self) -> None:
        self.open: list[NaiveOrder] = []
        self.deals: list[NaiveDeal] = []
        self.finished: list[NaiveOrder] = []

    def side(self, side: int) -> list[NaiveOrder]:
        """Open orders of a side, best first, oldest first."""
        sign = 1 if side == 1 else -1
        return sorted(
            (o for o in self.open if o.side == side), key=lambda o: (sign * o.price, o.order_id)
        )

    def of_user(self, user: int) -> list[NaiveOrder]:
        """A user's open orders, oldest first."""
        return [order for order in self.open if order.user == user]

    def need(self, order: NaiveOrder) -> tuple[int, Decimal]:
        """The asset and how much of it `order.left` needs frozen."""
        if order.side == 1:
            return self.stock, order.left
        return self.money, order.left * order.price if order.price else order.left

    def put(self, order: NaiveOrder) -> Refused | None:
        """Execute `order`, resting what is left of a limit order."""
        order.left = order.amount
        asset, need = self.need(order)
        if self.account(order.user, asset).available < need:
            return Refused(Reason.BALANCE_NOT_ENOUGH, "amount: more than is available")
        if not order.price:
            best = self.side(3 - order.side)
            if not best:
                return Refused(Reason.NO_ENOUGH_TRADER, "the other side is empty")
            if order.amount < self.min_amount * (best[0].price if order.side == 2 else 1):
                return Refused(Reason.AMOUNT_TOO_SMALL, "amount: below the minimum")
        self._freeze(order, need)
        before = need
        for maker in self.side(3 - order.side):
            if not self._trade(order, maker):
                break
        if order.left and order.price:
            self.open.append(order)
            spent = before - self.need(order)[1]
        else:
            self._finish(order, order.ctime_us)
            spent = before
        paid = order.deal_stock if order.side == 1 else order.deal_money
        self._freeze(order, paid - spent)
        return None

    def cancel(self, user: int, order_id: int, now_us: int = 0) -> Refused | None:
        """Cancel one order, or all of the user's when order_id is 0."""
        found = [
            o for o in self.open if o.order_id == order_id or (not order_id and o.user == user)
        ]
        if order_id and not found:
            return Refused(Reason.ORDER_NOT_FOUND, f"order_id {order_id}")
        if order_id and found[0].user != user:
            return Refused(Reason.USER_NOT_MATCH, f"order_id {order_id}")
        for order in found:
            self._freeze(order, -self.need(order)[1])
            self.open.remove(order)
            if order.deal_stock:
                self._finish(order, now_us)
        return None

    def _finish(self, order: NaiveOrder, now_us: int) -> None:
        order.ftime_us = now_us
        self.finished.append(order)

    def _freeze(self, order: NaiveOrder, amount: Decimal) -> None:
        account = self.account(order.user, self.need(order)[0])
        account.available -= amount
        account.frozen += amount

    def _trade(self, taker: NaiveOrder, maker: NaiveOrder) -> bool:
        crosses = maker.price <= taker.price if taker.side == 2 else maker.price >= taker.price
        if taker.price and not crosses:
            return False
        wanted = taker.left
        if not taker.price and taker.side == 2:
            wanted = cut(taker.left / maker.price, self.stock_prec)
        amount = min(wanted, maker.left)
        if not amount:
            return False
        deal = NaiveDeal(len(self.deals) + 1, taker.ctime_us, maker.price, amount, taker, maker)
        self.deals.append(deal)
        deal.taker_fee = self._leg(taker, deal, taker.taker_fee)
        deal.maker_fee = self._leg(maker, deal, maker.maker_fee)
        self._refer(taker, deal, deal.taker_fee)
        self._refer(maker, deal, deal.maker_fee)
        taker.left -= amount * maker.price if not taker.price and taker.side == 2 else amount
        maker.left -= amount
        if not maker.left:
            self.open.remove(maker)
            self._finish(maker, taker.ctime_us)
        return bool(taker.left)

    def _leg(self, order: NaiveOrder, deal: NaiveDeal, rate: Decimal) -> Decimal:
        """What the order gives, what it gets, and the fee off that, which is returned."""
        amount, paid = deal.amount, deal.amount * deal.price
        stock, money = (self.stock, amount), (self.money, paid)
        (gives, debit), (gets, credit) = (stock, money) if order.side == 1 else (money, stock)
        fee = cut(credit * rate, self.saves[gets])
        cause = replace(self._cause(deal, "trade", order), price=deal.price, amount=amount)
        self.account(order.user, gives).frozen -= debit
        self.booked(order.user, gives, -debit, cause)
        self.account(order.user, gets).available += credit
        self.booked(order.user, gets, credit, cause)
        if fee:
            self.account(order.user, gets).available -= fee
            self.booked(order.user, gets, -fee, replace(cause, rate=rate))
        order.deal_stock += amount
        order.deal_money += paid
        order.deal_fee += fee
        return fee

    def _cause(self, deal: NaiveDeal, business: str, order: NaiveOrder) -> Cause:
        return Cause(deal.time_us, business, market_no=self.market_no, order_id=order.order_id)

    def _refer(self, order: NaiveOrder, deal: NaiveDeal, fee: Decimal) -> None:
        """Share a fee between the order's referrer, if it has one, and the exchange."""
        gets = self.money if order.side == 1 else self.stock
        share = cut(fee * order.ref_rate, self.saves[gets]) if order.ref_user else ZERO
        if share:
            self.account(order.ref_user, gets).available += share
            self.booked(order.ref_user, gets, share, self._cause(deal, "ref", order))
        self.collect_fee(gets, fee - share)
