"""Names: what a copy of the catalog leads to."""

from __future__ import annotations

import pytest

from excore_ray.core.messages import CatalogCopy, Credential
from excore_ray.core.names import Names, bad_asset_name, bad_market_name
from excore_ray.core.reasons import Reason
from excore_ray.core.specs import Asset, Market, rules_of

BTC = Asset(1, "BTC", 20, 8, "")
BCH = Asset(2, "BCH", 18, 12, "")
MARKETS = [
    Market("BTCBCH", "first", rules_of(1, BTC, BCH, (8, 6, 100_000))),
    Market("A new name", "second", rules_of(2, BCH, BTC, (2, 3, 1))),
]
NAMES = Names(CatalogCopy(7, 3, [BTC, BCH], MARKETS, [Credential("key", "secret", 5)]))


def test_names_keep_the_order_of_creation() -> None:
    assert (NAMES.version, NAMES.shards) == (7, 3)
    assert NAMES.assets == (BTC, BCH)
    assert [listing.market for listing in NAMES.markets] == MARKETS


def test_every_dictionary_leads_to_the_same() -> None:
    assert NAMES.asset_by_name == {"BTC": BTC, "BCH": BCH}
    assert NAMES.asset_by_id == {1: BTC, 2: BCH}
    first, second = NAMES.markets
    assert NAMES.market_by_name == {"BTCBCH": first, "A new name": second}
    assert NAMES.market_by_no == {1: first, 2: second}
    assert NAMES.credential_by_key == {"key": Credential("key", "secret", 5)}


def test_a_listing_knows_the_scales_of_its_numbers() -> None:
    listing = NAMES.market_by_no[1]
    assert (listing.stock, listing.money) == (BTC, BCH)
    assert (listing.stock_prec, listing.money_prec, listing.min_amount) == (8, 6, 100_000)
    assert listing.money_scale == 14
    assert listing.money_limit == 10**32
    assert listing.stock_factor == 10**8
    assert listing.fee_scales[1:] == (18, 20)  # a seller pays in money, a buyer in stock


@pytest.mark.parametrize(
    ("name", "asset", "market"),
    [
        ("B", True, True),
        ("BTC BCH", True, True),
        ("x" * 15, True, True),
        ("x" * 16, False, True),
        ("ä" * 7, True, True),
        ("ä" * 8, False, True),
        ("x" * 31, False, True),
        ("x" * 32, False, False),
        ("ä" * 16, False, False),
        ("", False, False),
        ("a\nb", False, False),
        ("\x7f", False, False),
        ("x" * 10**6, False, False),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_may_be_a_name(name: str, asset: bool, market: bool) -> None:
    refused = bad_asset_name(name)
    assert (refused is None) == asset
    assert refused is None or refused.reason == Reason.INVALID_ASSET
    refused = bad_market_name(name)
    assert (refused is None) == market
    assert refused is None or refused.reason == Reason.INVALID_ARGUMENT
