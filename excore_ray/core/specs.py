"""Assets and markets as the catalog defines them, and the limits of their fields.

Separate because the catalog, the gateways and the markets all read them.
It must not know balances or orders.

Source: asset.add and market.add of the RPC reference.
"""

from __future__ import annotations

import msgspec

PREC_MAX = 20
RATE_PREC = 4
ASSET_NAME_BYTES_MAX = 15
MARKET_NAME_BYTES_MAX = 31
NOTES_BYTES_MAX = 1024
SOURCE_BYTES_MAX = 30
BUSINESS_BYTES_MAX = 31
DETAIL_BYTES_MAX = 4096
USER_MAX = 2**32 - 1
BUSINESS_ID_MAX = 2**63 - 1
MAGNITUDE_MAX = 10**18  # every decimal stays below this in magnitude


class Asset(msgspec.Struct, frozen=True, array_like=True):
    """An asset.  asset_id is permanent, from 1; the name is a label over it.

    prec_save: digits kept by the ledger, 0..20; account quantities are integers at this scale.
    prec_show: digits shown by balance.query, at most prec_save.
    """

    asset_id: int
    name: str
    prec_save: int
    prec_show: int
    notes: str


class MarketRules(msgspec.Struct, frozen=True, array_like=True):
    """What a market's machine needs of its definition: numbers only, permanent.

    stock_unit: ledger units of stock in one step of amount: 10**(stock.prec_save - stock_prec).
    money_unit: ledger units of money in one step of amount * price:
    10**(money.prec_save - stock_prec - money_prec).
    min_amount: at stock_prec, above 0.
    """

    market_no: int
    stock_id: int
    money_id: int
    stock_prec: int
    money_prec: int
    stock_unit: int
    money_unit: int
    min_amount: int


class Market(msgspec.Struct, frozen=True, array_like=True):
    """A market: its label and notes over its permanent rules."""

    name: str
    notes: str
    rules: MarketRules

    @property
    def market_no(self) -> int:
        """Number of the market, 1..4095, in order of creation."""
        return self.rules.market_no


def rules_of(
    market_no: int, stock: Asset, money: Asset, scales: tuple[int, int, int]
) -> MarketRules:
    """The rules of a market of `stock` priced in `money`.

    scales: (stock_prec, money_prec, min_amount at stock_prec), already checked by the catalog.
    """
    stock_prec, money_prec, min_amount = scales
    return MarketRules(
        market_no=market_no,
        stock_id=stock.asset_id,
        money_id=money.asset_id,
        stock_prec=stock_prec,
        money_prec=money_prec,
        stock_unit=10 ** (stock.prec_save - stock_prec),
        money_unit=10 ** (money.prec_save - stock_prec - money_prec),
        min_amount=min_amount,
    )
