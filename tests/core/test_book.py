"""One side of a book: order, counts, pages and merged levels, and what a command may cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from excore_ray.core.book import BookSide
from excore_ray.core.matching import match
from excore_ray.core.orders import Order, OrderType, Side


def make(order_id: int, side: Side, price: int, left: int, kind: OrderType | None = None) -> Order:
    kind = kind or OrderType.LIMIT
    return Order(order_id, 1, side, kind, price, left, left, 0, 0, 0, 0, "", 0, 0)


def filled(side: Side, *rows: tuple[int, int]) -> BookSide:
    """A side with orders 1, 2, 3 and so on of (price, left)."""
    book = BookSide(side)
    for order_id, (price, left) in enumerate(rows, 1):
        book.add(make(order_id, side, price, left))
    return book


def ids(book: BookSide) -> list[int]:
    return [order.order_id for order in book]


def levels(book: BookSide) -> list[tuple[int, int, int]]:
    return [(level.price, level.amount, level.count) for level in book.levels()]


ROWS = ((102, 1), (100, 2), (101, 3), (100, 4), (102, 5))


@pytest.mark.parametrize(
    ("side", "order", "depth"),
    [
        (Side.SELL, [2, 4, 3, 1, 5], [(100, 6, 2), (101, 3, 1), (102, 6, 2)]),
        (Side.BUY, [1, 5, 3, 2, 4], [(102, 6, 2), (101, 3, 1), (100, 6, 2)]),
    ],
)
def test_best_price_first_then_oldest(
    side: Side, order: list[int], depth: list[tuple[int, int, int]]
) -> None:
    book = filled(side, *ROWS)
    assert ids(book) == order
    assert levels(book) == depth
    assert book.count == 5


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("gone", range(1, 6))
def test_an_order_taken_out_leaves_the_others_in_their_order(side: Side, gone: int) -> None:
    book = filled(side, *ROWS)
    before = ids(book)
    order = next(order for order in book if order.order_id == gone)
    book.remove(order)
    assert ids(book) == [i for i in before if i != gone]
    assert (order.older, order.newer) == (None, None)
    assert book.best is next(iter(book.levels()))


@pytest.mark.parametrize("side", Side)
def test_the_best_level_follows_what_comes_and_goes(side: Side) -> None:
    sign = 1 if side == Side.SELL else -1
    book = BookSide(side)
    orders = [make(i, side, 100 + sign * step, 1) for i, step in enumerate((5, 3, 4, 3, 9))]
    bests: list[int | None] = []

    def note() -> None:
        bests.append(None if book.best is None else (book.best.price - 100) * sign)

    for order in orders:
        book.add(order)
        note()
    for order in (orders[1], orders[3], orders[0], orders[2], orders[4]):
        book.remove(order)
        note()
    assert bests == [5, 3, 3, 3, 3, 3, 4, 4, 9, None]


def test_a_reduced_order_keeps_its_place() -> None:
    book = filled(Side.SELL, (100, 5), (100, 5))
    first = next(iter(book))
    book.reduce(first, 3)
    assert (first.left, ids(book), levels(book)) == (2, [1, 2], [(100, 7, 2)])


def test_taking_out_what_is_in_no_level_is_an_error() -> None:
    with pytest.raises(AssertionError, match="rests nowhere"):
        filled(Side.SELL, (100, 5)).remove(make(9, Side.SELL, 101, 1))


PAGES = [
    (0, 10, [2, 4, 3, 1, 5]),
    (0, 2, [2, 4]),
    (1, 2, [4, 3]),
    (2, 2, [3, 1]),
    (3, 1, [1]),
    (4, 5, [5]),
    (5, 5, []),
    (9, 1, []),
    (1, 3, [4, 3, 1]),
    (0, 0, []),
]


@pytest.mark.parametrize(("offset", "limit", "expected"), PAGES)
def test_a_page_of_orders(offset: int, limit: int, expected: list[int]) -> None:
    page = filled(Side.SELL, *ROWS).page(offset, limit)
    assert [order.order_id for order in page] == expected


DEPTHS = [
    # side, limit, interval, prices and amounts
    (Side.SELL, 9, 0, [100, 1, 101, 2, 109, 3, 110, 4, 111, 5]),
    (Side.SELL, 2, 0, [100, 1, 101, 2]),
    (Side.SELL, 9, 10, [100, 1, 110, 9, 120, 5]),  # asks go up to the interval
    (Side.SELL, 2, 10, [100, 1, 110, 9]),  # the limit counts merged levels
    (Side.BUY, 9, 0, [111, 5, 110, 4, 109, 3, 101, 2, 100, 1]),
    (Side.BUY, 9, 10, [110, 9, 100, 6]),  # bids go down
    (Side.BUY, 1, 10, [110, 9]),
    (Side.BUY, 9, 1_000, [0, 15]),
    (Side.SELL, 9, 1_000, [1_000, 15]),
    (Side.SELL, 0, 0, []),
]


@pytest.mark.parametrize(("side", "limit", "interval", "expected"), DEPTHS)
def test_depth(side: Side, limit: int, interval: int, expected: list[int]) -> None:
    rows = ((100, 1), (101, 2), (109, 3), (110, 4), (111, 5))
    assert filled(side, *rows).depth(limit, interval) == expected


@pytest.mark.parametrize("levels_count", [10, 10_000])
def test_matching_touches_as_many_levels_as_it_needs(levels_count: int) -> None:
    book = filled(Side.SELL, *((price, 2) for price in range(100, 100 + levels_count)))
    cases = [
        (make(0, Side.BUY, 99, 1), 1),  # finds out that it crosses nothing
        (make(0, Side.BUY, 100, 1), 1),
        (make(0, Side.BUY, 200, 5), 3),
        (make(0, Side.BUY, 0, 350, OrderType.MARKET), 3),  # two at 100, one at 101, none at 102
    ]
    for taker, count in cases:
        touched: list[int] = []
        match(taker, noted(book, touched))
        assert len(touched) == count


def noted(book: BookSide, touched: list[int]) -> Iterator[Order]:
    """The orders of `book`, one to a level, with a note of the price of each that is asked for."""
    for order in book:
        touched.append(order.price)
        yield order
