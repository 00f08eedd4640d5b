"""What an open order weighs: bounded, for a market's book must fit its process."""

from __future__ import annotations

import gc

from excore_ray.core.orders import Level
from tests.bench.memory import bytes_an_order
from tests.core.test_snapshot import busy_market

ORDERS = 100_000
BYTES_MAX = 600


def test_an_open_order_fits_its_bound() -> None:
    assert bytes_an_order(ORDERS) <= BYTES_MAX


def test_nothing_stays_of_a_market_that_nobody_needs() -> None:
    gc.collect()
    before = levels()
    market = busy_market()
    rest = levels() - before
    assert rest == sum(len(list(side.levels())) for side in market.sides.values()) > 1
    del market
    gc.collect()
    assert levels() == before


def levels() -> int:
    """How many levels of books there are in this process."""
    return sum(type(found) is Level for found in gc.get_objects())
