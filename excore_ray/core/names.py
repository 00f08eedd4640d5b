"""Names: one version of the catalog, arranged for looking things up.

Separate because commands speak in ids and callers in names, and whatever stands between them
needs the same dictionaries.  It must not know how a copy of the catalog arrives, or how long it
may be used.

Source: asset and market names of the RPC reference.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from excore_ray.core.messages import CatalogCopy, Credential
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import (
    ASSET_NAME_BYTES_MAX,
    MAGNITUDE_MAX,
    MARKET_NAME_BYTES_MAX,
    Asset,
    Market,
)


class Listing(msgspec.Struct, frozen=True):
    """A market with its assets looked up and the scales of its numbers worked out.

    money_scale: stock_prec + money_prec, the scale of amount * price, of deal_money, and of what
    is left of a market buy.  money_limit: 10**18 at that scale.  stock_factor: 10**stock_prec,
    which lifts money from money_prec to money_scale.  fee_scales: by side (1 sell, 2 buy; index
    0 is unused) the scale of deal_fee, prec_save of the asset that side receives.
    """

    market: Market
    name: str
    market_no: int
    stock: Asset
    money: Asset
    stock_prec: int
    money_prec: int
    min_amount: int
    money_scale: int
    money_limit: int
    stock_factor: int
    fee_scales: tuple[int, int, int]


class Names:
    """One version of the catalog; never changed.

    assets, markets: in order of creation.  The dictionaries lead from a name, or from an id or
    number, to the asset or market it stands for; credentials are found by their key.
    """

    __slots__ = (
        "asset_by_id",
        "asset_by_name",
        "assets",
        "credential_by_key",
        "market_by_name",
        "market_by_no",
        "markets",
        "shards",
        "version",
    )

    def __init__(self, copy: CatalogCopy) -> None:
        self.version = copy.version
        self.shards = copy.shards
        self.assets: tuple[Asset, ...] = tuple(copy.assets)
        self.asset_by_id: Mapping[int, Asset] = {a.asset_id: a for a in copy.assets}
        self.asset_by_name: Mapping[str, Asset] = {a.name: a for a in copy.assets}
        self.markets: tuple[Listing, ...] = tuple(
            _listing(market, self.asset_by_id) for market in copy.markets
        )
        self.market_by_name: Mapping[str, Listing] = {m.name: m for m in self.markets}
        self.market_by_no: Mapping[int, Listing] = {m.market_no: m for m in self.markets}
        self.credential_by_key: Mapping[str, Credential] = {c.key: c for c in copy.credentials}


def _listing(market: Market, asset_by_id: Mapping[int, Asset]) -> Listing:
    rules = market.rules
    stock, money = asset_by_id[rules.stock_id], asset_by_id[rules.money_id]
    money_scale = rules.stock_prec + rules.money_prec
    return Listing(
        market=market,
        name=market.name,
        market_no=rules.market_no,
        stock=stock,
        money=money,
        stock_prec=rules.stock_prec,
        money_prec=rules.money_prec,
        min_amount=rules.min_amount,
        money_scale=money_scale,
        money_limit=MAGNITUDE_MAX * 10**money_scale,
        stock_factor=10**rules.stock_prec,
        fee_scales=(0, money.prec_save, stock.prec_save),
    )


def bad_asset_name(name: str) -> Refused | None:
    """Why no asset can have this name, or None: 1..15 bytes of UTF-8, all printable."""
    if _is_name(name, ASSET_NAME_BYTES_MAX):
        return None
    detail = f"name: not 1..{ASSET_NAME_BYTES_MAX} printable bytes"
    return Refused(Reason.INVALID_ASSET, detail)


def bad_market_name(name: str) -> Refused | None:
    """Why no market can have this name, or None: 1..31 bytes of UTF-8, all printable."""
    if _is_name(name, MARKET_NAME_BYTES_MAX):
        return None
    detail = f"name: not 1..{MARKET_NAME_BYTES_MAX} printable bytes"
    return Refused(Reason.INVALID_ARGUMENT, detail)


def _is_name(name: str, bytes_max: int) -> bool:
    # The number of characters bounds the number of bytes from below and costs nothing to know.
    return 1 <= len(name) <= bytes_max >= len(name.encode()) and name.isprintable()
