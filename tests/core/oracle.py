"""An exchange in the fewest words: a list of orders, accounts in Decimal, everything at once.

Separate from everything it checks: it shares no arithmetic, no index and no order of doing things
with the machines, and imports only the words of the commands.  Quantities are decimals as people
write them; each truncation is spelled out where it happens.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal

from excore_ray.core import commands as c
from excore_ray.core.specs import MarketRules

SELL = 1
ZERO = Decimal(0)
EXACT = Context(prec=100, rounding=ROUND_DOWN)  # whoever uses an Oracle works in this context


@dataclass
class Scales:
    """Digits kept of each kind of quantity."""

    stock_prec: int
    money_prec: int
    stock_save: int
    money_save: int
    min_amount: int

    def rules(self) -> MarketRules:
        """The same for a market of assets 1 and 2."""
        stock_unit = 10 ** (self.stock_save - self.stock_prec)
        money_unit = 10 ** (self.money_save - self.stock_prec - self.money_prec)
        precs = (self.stock_prec, self.money_prec)
        return MarketRules(1, 1, 2, *precs, stock_unit, money_unit, self.min_amount)


@dataclass
class NaiveOrder:
    """An order; of a market buy `left` is money."""

    arrival: int
    user: int
    side: int
    price: Decimal | None  # None: a market order
    left: Decimal
    taker_fee: Decimal
    maker_fee: Decimal
    referral: tuple[int, Decimal]
    frozen: Decimal = ZERO
    dealt: tuple[Decimal, Decimal, Decimal] = (ZERO, ZERO, ZERO)  # stock, money, fee

    @property
    def pays(self) -> str:
        return "stock" if self.side == SELL else "money"


def truncated(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits), ROUND_DOWN)


class Oracle:
    """The exchange as a whole.  accounts: (user, "stock" or "money") -> [available, frozen]."""

    def __init__(self, scales: Scales) -> None:
        self.scales = scales
        self.accounts: defaultdict[tuple[int, str], list[Decimal]] = defaultdict(lambda: [ZERO] * 2)
        self.fees = {"stock": ZERO, "money": ZERO}
        self.orders: list[NaiveOrder] = []
        self.deals: list[tuple[Decimal, Decimal, int, int, Decimal, Decimal]] = []
        self.arrivals = 0
        self.newest: NaiveOrder | None = None

    def update(self, update: c.Update) -> str:
        asset = "stock" if update.asset == 1 else "money"
        digits = self.scales.stock_save if update.asset == 1 else self.scales.money_save
        change = Decimal(update.change).scaleb(-digits)
        account = self.accounts[update.user, asset]
        if change < 0 and not update.force and account[0] + change < 0:
            return "BALANCE_NOT_ENOUGH"
        account[0] += change
        return "ok"

    def put(self, put: c.PutLimit | c.PutMarket) -> str:
        order = self.newest = self._order(put)
        if self._need(order) > self.accounts[order.user, order.pays][0]:
            return "BALANCE_NOT_ENOUGH"
        if order.price is None:
            refusal = self._refusal(order)
            if refusal:
                return refusal
        self._freeze(order, self._need(order))
        for maker in self._makers(order):
            if not order.left or not self._trade(order, maker):
                break
        self.orders = [other for other in self.orders if other.left]
        if order.price is not None and order.left:
            self._freeze(order, self._need(order) - order.frozen)
            self.orders.append(order)
        else:
            self._freeze(order, -order.frozen)
        return "ok"

    def cancel(self, user: int, arrivals: list[int]) -> None:
        """Take the orders of `user` that arrived at `arrivals` out."""
        for order in [o for o in self.orders if o.user == user and o.arrival in arrivals]:
            self._freeze(order, -order.frozen)
            self.orders.remove(order)

    def sorted_book(self, side: int) -> list[NaiveOrder]:
        """One side, best price first, oldest first within a price."""
        sign = 1 if side == SELL else -1
        orders = [o for o in self.orders if o.side == side]
        return sorted(orders, key=lambda o: (sign * (o.price or ZERO), o.arrival))

    def _order(self, put: c.PutLimit | c.PutMarket) -> NaiveOrder:
        self.arrivals += 1
        digits = self.scales.stock_prec
        price, maker_fee, referral = None, ZERO, (0, ZERO)
        if isinstance(put, c.PutLimit):
            price = Decimal(put.price).scaleb(-self.scales.money_prec)
            maker_fee = Decimal(put.maker_fee).scaleb(-4)
            referral = (put.ref_user, Decimal(put.ref_rate).scaleb(-4))
        elif put.side != SELL:
            digits += self.scales.money_prec
        amount = Decimal(put.amount).scaleb(-digits)
        taker_fee = Decimal(put.taker_fee).scaleb(-4)
        start = (self.arrivals, put.user, put.side, price, amount)
        return NaiveOrder(*start, taker_fee, maker_fee, referral)

    def _need(self, order: NaiveOrder) -> Decimal:
        if order.side == SELL or order.price is None:
            return order.left
        return order.left * order.price

    def _refusal(self, order: NaiveOrder) -> str:
        makers = self.sorted_book(3 - order.side)
        if not makers:
            return "NO_ENOUGH_TRADER"
        least = Decimal(self.scales.min_amount).scaleb(-self.scales.stock_prec)
        if order.side != SELL:
            assert makers[0].price is not None
            least *= makers[0].price
        return "AMOUNT_TOO_SMALL" if order.left < least else ""

    def _freeze(self, order: NaiveOrder, amount: Decimal) -> None:
        account = self.accounts[order.user, order.pays]
        account[0] -= amount
        account[1] += amount
        order.frozen += amount

    def _makers(self, order: NaiveOrder) -> list[NaiveOrder]:
        sign = 1 if order.side == SELL else -1
        makers = self.sorted_book(3 - order.side)
        if order.price is None:
            return makers
        return [m for m in makers if m.price is not None and sign * (m.price - order.price) >= 0]

    def _trade(self, taker: NaiveOrder, maker: NaiveOrder) -> bool:
        """Trade as much as both can; whether the taker may go on."""
        price = maker.price
        assert price is not None
        spends = taker.price is None and taker.side != SELL
        wants = taker.left
        if spends:
            wants = truncated(taker.left / price, self.scales.stock_prec)
        amount = min(wants, maker.left)
        if not amount:
            return False
        taker.left -= amount * price if spends else amount
        maker.left -= amount
        fees = [
            self._settle(order, amount, price, rate)
            for order, rate in ((taker, taker.taker_fee), (maker, maker.maker_fee))
        ]
        self.deals.append((price, amount, taker.arrival, maker.arrival, fees[0], fees[1]))
        return True

    def _settle(self, order: NaiveOrder, amount: Decimal, price: Decimal, rate: Decimal) -> Decimal:
        money = amount * price
        paid, got = (amount, money) if order.side == SELL else (money, amount)
        self.accounts[order.user, order.pays][1] -= paid
        order.frozen -= paid
        asset, digits = ("money", self.scales.money_save)
        if order.side != SELL:
            asset, digits = ("stock", self.scales.stock_save)
        fee = truncated(got * rate, digits)
        stock, before, fees = order.dealt
        order.dealt = (stock + amount, before + money, fees + fee)
        self.accounts[order.user, asset][0] += got - fee
        ref_user, ref_rate = order.referral
        share = truncated(fee * ref_rate, digits) if ref_user else ZERO
        if share:
            self.accounts[ref_user, asset][0] += share
        self.fees[asset] += fee - share
        return fee
