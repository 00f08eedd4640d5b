"""What an open order weighs: bounded, for a market's book must fit its process."""

from __future__ import annotations

from tests.bench.memory import bytes_an_order
from tests.core.machines import stray_levels
from tests.core.test_snapshot import busy_market

ORDERS = 100_000
BYTES_MAX = 600


def test_an_open_order_fits_its_bound() -> None:
    assert bytes_an_order(ORDERS) <= BYTES_MAX


def test_nothing_stays_of_a_market_that_nobody_needs() -> None:
    before = stray_levels()
    market = busy_market()
    assert stray_levels() > before + 1
    assert stray_levels(market) == before
    del market
    assert stray_levels() == before
