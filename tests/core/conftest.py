"""Machines as fixtures: what a test leaves behind must be consistent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from excore_ray.core.audit import check_catalog, check_conservation, check_ledger, check_market
from excore_ray.core.catalog import Catalog
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from tests.core.machines import new_catalog, new_ledger, new_market


@pytest.fixture
def market() -> Iterator[Market]:
    """A market of whole numbers with two shards; checked when the test is over."""
    market = new_market()
    yield market
    check_market(market)
    check_conservation([market], [])


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """The only shard; checked when the test is over."""
    ledger = new_ledger()
    yield ledger
    check_ledger(ledger, forced=True)


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """A catalog without assets; checked when the test is over."""
    catalog = new_catalog()
    yield catalog
    check_catalog(catalog)
