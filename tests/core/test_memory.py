"""What an open order weighs: bounded, for a market's book must fit its process."""

from __future__ import annotations

from tests.bench.memory import bytes_an_order

ORDERS = 100_000
BYTES_MAX = 600


def test_an_open_order_fits_its_bound() -> None:
    assert bytes_an_order(ORDERS) <= BYTES_MAX
