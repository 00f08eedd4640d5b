"""Catalog: the machine of assets, markets and API keys: labels over permanent ids.

Separate because names may change and ids may not: whatever is journaled or settled elsewhere
speaks in ids, and this is the only place that knows what they are called.  It must not know
balances, books, gateways or leases.

Source: asset.add, asset.rename, market.add and market.rename of the RPC reference.
"""

from __future__ import annotations

import enum

import msgspec

from excore_ray.core import commands as c
from excore_ray.core.machine import DONE, Machine
from excore_ray.core.messages import CatalogCopy, Credential, Done, KeyView
from excore_ray.core.names import bad_asset_name, bad_market_name
from excore_ray.core.orders import MARKET_NO_MAX
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import (
    PREC_MAX,
    RATE_PREC,
    Asset,
    Market,
    rules_of,
)


class Scope(enum.IntFlag):
    """What an API credential allows."""

    READ = 1
    TRADE = 2
    ADMIN = 4


class Key(msgspec.Struct, array_like=True):
    """An API credential.  A revoked one stays, so that its name is never used again."""

    key: str
    secret: str
    scopes: int
    notes: str
    revoked: bool = False


class Catalog(Machine):
    """Assets and markets in order of creation, API keys, and the number of shards.

    version grows by one with every change a gateway must learn of.  freed: names that markets
    gave up, with whose each was and the record time until which no other market gets it; a
    stamped order that is sent again under it would be executed in that one too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.assets: list[Asset] = []
        self.markets: list[Market] = []
        self.keys: dict[str, Key] = {}
        self.freed: dict[str, tuple[int, int]] = {}  # market_no, until
        self.handlers |= {
            c.CreateCatalog: self._create,
            c.AddAsset: self._add_asset,
            c.RenameAsset: self._rename_asset,
            c.AddMarket: self._add_market,
            c.RenameMarket: self._rename_market,
            c.AddKey: self._add_key,
            c.RevokeKey: self._revoke_key,
        }

    def copy(self) -> CatalogCopy:
        """All a gateway needs, at this version."""
        live = [Credential(k.key, k.secret, k.scopes) for k in self.keys.values() if not k.revoked]
        return CatalogCopy(self.version, self.shards, [*self.assets], [*self.markets], live)

    def key_views(self) -> list[KeyView]:
        """The credentials without their secrets, in order of creation."""
        return [KeyView(k.key, k.scopes, k.notes, k.revoked) for k in self.keys.values()]

    def asset_named(self, name: str) -> Asset | None:
        """The asset called `name` now."""
        return next((asset for asset in self.assets if asset.name == name), None)

    def market_named(self, name: str) -> Market | None:
        """The market called `name` now."""
        return next((market for market in self.markets if market.name == name), None)

    def begin(self, time_us: int) -> None:
        """See Machine.begin."""
        super().begin(time_us)
        for name in [name for name, (_, until_us) in self.freed.items() if until_us <= time_us]:
            del self.freed[name]

    def record(self, commands: list[c.CatalogCommand]) -> c.CatalogRecord:
        """See Machine.record."""
        return c.CatalogRecord(self.time_us, commands)

    # Commands.

    def _create(self, command: c.CreateCatalog) -> Done:
        assert not self.shards, "a catalog is created once"
        assert command.shards > 0
        self.shards = command.shards
        return DONE

    def _add_asset(self, command: c.AddAsset) -> Done | Refused:
        name, save, show = command.name, command.prec_save, command.prec_show
        refused = bad_asset_name(name)
        if refused is not None:
            return refused
        if not 0 <= show <= save <= PREC_MAX:
            detail = f"0 <= prec_show {show} <= prec_save {save} <= {PREC_MAX} does not hold"
            return Refused(Reason.INVALID_PRECISION, detail)
        if self.asset_named(name) is not None:
            return Refused(Reason.EXISTS_YET, f"asset {name!r}")
        # From here on the command must succeed.
        self.assets.append(Asset(len(self.assets) + 1, name, save, show, command.notes))
        return self._changed(command)

    def _rename_asset(self, command: c.RenameAsset) -> Done | Refused:
        asset = self.asset_named(command.old_name)
        if asset is None:
            return Refused(Reason.ASSET_NOT_FOUND, f"asset {command.old_name!r}")
        refused = bad_asset_name(command.new_name)
        if refused is not None:
            return refused
        if self.asset_named(command.new_name) is not None:
            return Refused(Reason.EXISTS_YET, f"asset {command.new_name!r}")
        # From here on the command must succeed.
        renamed = msgspec.structs.replace(asset, name=command.new_name)
        self.assets[asset.asset_id - 1] = renamed
        return self._changed(command)

    def _add_market(self, command: c.AddMarket) -> Done | Refused:
        refused = bad_market_name(command.name)
        if refused is not None:
            return refused
        stock = self.asset_named(command.stock)
        money = self.asset_named(command.money)
        if stock is None or money is None:
            missing = command.stock if stock is None else command.money
            return Refused(Reason.MARKET_ASSET_NOT_FOUND, f"asset {missing!r}")
        if stock is money:
            detail = "stock and money are the same asset"
            return Refused(Reason.MARKET_ASSET_NOT_FOUND, detail)
        refused = _bad_precision(command, stock, money)
        if refused is not None:
            return refused
        if command.min_amount <= 0:
            return Refused(Reason.INVALID_ARGUMENT, "min_amount: not above 0")
        number = len(self.markets) + 1
        refused = self._taken(command.name, number)
        if refused is not None:
            return refused
        if len(self.markets) == MARKET_NO_MAX:
            return Refused(Reason.INVALID_ARGUMENT, f"there are {MARKET_NO_MAX} markets already")
        # From here on the command must succeed.
        scales = (command.stock_prec, command.money_prec, command.min_amount)
        rules = rules_of(number, stock, money, scales)
        self.markets.append(Market(command.name, command.notes, rules))
        return self._changed(command)

    def _rename_market(self, command: c.RenameMarket) -> Done | Refused:
        market = self.market_named(command.old_name)
        if market is None:
            return Refused(Reason.MARKET_NOT_FOUND, f"market {command.old_name!r}")
        refused = bad_market_name(command.new_name)
        if refused is not None:
            return refused
        refused = self._taken(command.new_name, market.market_no)
        if refused is not None:
            return refused
        # From here on the command must succeed.
        self.freed.pop(command.new_name, None)
        if command.kept_us:
            self.freed[market.name] = market.market_no, self.time_us + command.kept_us
        renamed = msgspec.structs.replace(market, name=command.new_name)
        self.markets[market.market_no - 1] = renamed
        return self._changed(command)

    def _add_key(self, command: c.AddKey) -> Done | Refused:
        if not command.key or not command.secret:
            return Refused(Reason.INVALID_ARGUMENT, "key and secret must not be empty")
        if not 0 < command.scopes <= Scope.READ | Scope.TRADE | Scope.ADMIN:
            return Refused(Reason.INVALID_ARGUMENT, "scopes: none, or an unknown one")
        if command.key in self.keys:
            return Refused(Reason.EXISTS_YET, "key")
        # From here on the command must succeed.
        key = Key(command.key, command.secret, command.scopes, command.notes)
        self.keys[command.key] = key
        return self._changed(command)

    def _revoke_key(self, command: c.RevokeKey) -> Done | Refused:
        key = self.keys.get(command.key)
        if key is None or key.revoked:
            return Refused(Reason.INVALID_ARGUMENT, "key: there is no such live key")
        # From here on the command must succeed.
        key.revoked = True
        return self._changed(command)

    def _taken(self, name: str, market_no: int) -> Refused | None:
        """Why the market of this number cannot be called `name` now, or None."""
        if self.market_named(name) is not None:
            return Refused(Reason.EXISTS_YET, f"market {name!r}")
        owner, until_us = self.freed.get(name, (market_no, 0))
        if owner == market_no:
            return None
        seconds = -((self.time_us - until_us) // 1_000_000)
        detail = f"market {name!r} was renamed moments ago: its old name is free in {seconds} s"
        return Refused(Reason.EXISTS_YET, detail)

    def _changed(
        self,
        command: (c.AddAsset | c.RenameAsset | c.AddMarket | c.RenameMarket)
        | (c.AddKey | c.RevokeKey),
    ) -> Done:
        self.version += 1
        self.results.record(command.request_id, command.stamp_ms, self.time_us, DONE)
        return DONE


def _bad_precision(command: c.AddMarket, stock: Asset, money: Asset) -> Refused | None:
    stock_prec, money_prec = command.stock_prec, command.money_prec
    sum_prec = stock_prec + money_prec
    in_stock = f"prec_save {stock.prec_save} of the stock"
    in_money = f"prec_save {money.prec_save} of the money"
    rules = (
        (stock_prec >= 0, f"stock_prec {stock_prec} is below 0"),
        (money_prec >= 0, f"money_prec {money_prec} is below 0"),
        (
            sum_prec <= money.prec_save,
            f"stock_prec {stock_prec} + money_prec {money_prec} exceed {in_money}",
        ),
        (
            stock_prec + RATE_PREC <= stock.prec_save,
            f"stock_prec {stock_prec} + {RATE_PREC} exceed {in_stock}",
        ),
        (
            money_prec + RATE_PREC <= money.prec_save,
            f"money_prec {money_prec} + {RATE_PREC} exceed {in_money}",
        ),
    )
    for holds, detail in rules:
        if not holds:
            return Refused(Reason.INVALID_PRECISION, detail)
    return None
