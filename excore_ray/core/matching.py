"""Who trades with whom, touching neither.

Separate because price-time priority is the rule everybody asks about, and a pure function of
two arguments is the easiest thing to check it on.
"""

from __future__ import annotations

from collections.abc import Iterable

from excore_ray.core.orders import Order, OrderType, Side

Match = tuple[Order, int]  # a maker, and how much stock (stock_prec) it trades at its own price


def match(taker: Order, makers: Iterable[Order]) -> list[Match]:
    """Pair `taker` with the makers it reaches, best price first, oldest first within a price.

    makers: the opposite side in price-time order; read only as far as needed.
    Returns matches in execution order.  A limit order and a market sell take at most
    `taker.left` of stock; a market buy takes as much as `taker.left` of money buys, floored to
    a step of stock.  Cost: O(matches).
    """
    if taker.type == OrderType.MARKET and taker.side == Side.BUY:
        return _spend(taker.left, makers)
    matches: list[Match] = []
    left = taker.left
    limit = taker.price
    sign = 0 if taker.type == OrderType.MARKET else 1 if taker.side == Side.BUY else -1
    for maker in makers:
        if (maker.price - limit) * sign > 0:
            break
        amount = maker.left if maker.left < left else left
        matches.append((maker, amount))
        left -= amount
        if not left:
            break
    return matches


def _spend(money: int, makers: Iterable[Order]) -> list[Match]:
    matches: list[Match] = []
    for maker in makers:
        affordable = money // maker.price
        if not affordable:
            break
        amount = maker.left if maker.left < affordable else affordable
        matches.append((maker, amount))
        money -= amount * maker.price
    return matches
