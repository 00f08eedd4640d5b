"""Who trades with whom: one table of takers and makers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from excore_ray.core.matching import match
from excore_ray.core.orders import Order, OrderType, Side
from tests.core.test_book import make

LIMIT, MARKET = OrderType.LIMIT, OrderType.MARKET
SELL, BUY = Side.SELL, Side.BUY

# taker: side, type, price, left; makers: (price, left), best first; matches: (maker, amount)
TABLE = [
    ("nothing to trade with", (BUY, LIMIT, 100, 5), [], []),
    ("too dear", (BUY, LIMIT, 100, 5), [(101, 5)], []),
    ("too cheap", (SELL, LIMIT, 100, 5), [(99, 5)], []),
    ("at the very price", (BUY, LIMIT, 100, 5), [(100, 5)], [(1, 5)]),
    ("a better price", (BUY, LIMIT, 105, 5), [(100, 5)], [(1, 5)]),
    ("sells for more than it asked", (SELL, LIMIT, 95, 5), [(100, 5)], [(1, 5)]),
    ("part of a maker", (BUY, LIMIT, 100, 2), [(100, 5)], [(1, 2)]),
    ("more than there is", (BUY, LIMIT, 100, 9), [(100, 5)], [(1, 5)]),
    ("oldest first", (BUY, LIMIT, 100, 7), [(100, 5), (100, 5)], [(1, 5), (2, 2)]),
    ("exactly two", (BUY, LIMIT, 100, 10), [(100, 5), (100, 5), (100, 5)], [(1, 5), (2, 5)]),
    ("up to its price", (BUY, LIMIT, 101, 9), [(100, 1), (101, 2), (102, 9)], [(1, 1), (2, 2)]),
    ("down to its price", (SELL, LIMIT, 101, 9), [(102, 1), (101, 2), (100, 9)], [(1, 1), (2, 2)]),
    ("at any price", (SELL, MARKET, 0, 9), [(102, 1), (5, 2), (1, 9)], [(1, 1), (2, 2), (3, 6)]),
    ("all its money", (BUY, MARKET, 0, 300), [(100, 2), (50, 9)], [(1, 2), (2, 2)]),
    ("its money, floored", (BUY, MARKET, 0, 349), [(100, 9)], [(1, 3)]),
    ("not enough for one", (BUY, MARKET, 0, 99), [(100, 9)], []),
    ("stops where one is too dear", (BUY, MARKET, 0, 350), [(100, 3), (60, 1)], [(1, 3)]),
    ("a maker and part of the next", (BUY, MARKET, 0, 500), [(100, 2), (100, 9)], [(1, 2), (2, 3)]),
]


@pytest.mark.parametrize(("taker", "makers", "expected"), [t[1:] for t in TABLE], ids=lambda v: "")
def test_matches(
    taker: tuple[Side, OrderType, int, int],
    makers: list[tuple[int, int]],
    expected: list[tuple[int, int]],
) -> None:
    side, kind, price, left = taker
    order = make(99, side, price, left, kind)
    resting = [make(i, Side(3 - side), *row) for i, row in enumerate(makers, 1)]
    matches = match(order, resting)
    assert [(maker.order_id, amount) for maker, amount in matches] == expected
    assert order.left == left, "matching touches nobody"
    assert [maker.left for maker in resting] == [amount for _, amount in makers]


@pytest.mark.parametrize("kind", OrderType)
@pytest.mark.parametrize("side", Side)
def test_makers_are_read_only_as_far_as_needed(side: Side, kind: OrderType) -> None:
    read: list[int] = []

    def makers() -> Iterator[Order]:
        for order_id in range(1, 1_000_000):
            read.append(order_id)
            yield make(order_id, Side(3 - side), 100, 1)

    match(make(0, side, 100, 300, kind), makers())
    spends = side == Side.BUY and kind == OrderType.MARKET
    assert len(read) == (4 if spends else 300)  # money for three; the fourth is too dear
