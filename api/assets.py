"""Assets: the handlers of balance.* and asset.*.

Separate from orders and markets by the family of methods: here an unknown asset is 12 and one
that cannot exist 13.  It must not know the envelope, or how a shard keeps accounts.

Source: the balance and asset methods of the RPC reference.
"""

from __future__ import annotations

from typing import Any

import msgspec

from api import replies
from api.calls import Call, Result, catalog_behind, expect, success
from api.params import (
    LIST_LIMIT_DEFAULT,
    LIST_LIMIT_MAX,
    NESTING_MAX,
    bad_asset,
    bad_notes,
    bad_page,
    bad_precision,
    bad_user,
    bytes_of,
    decimal,
    invalid,
    nests_deeper,
    shown,
)
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.names import Names
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import (
    BUSINESS_BYTES_MAX,
    BUSINESS_ID_MAX,
    DETAIL_BYTES_MAX,
    MAGNITUDE_MAX,
    Asset,
)
from excore_ray.core.units import format_plain, rescale


async def balance_query(call: Call, index: int, params: list[Any]) -> Result:
    """Answer balance.query: one asset, or all with zeros included."""
    user, name = params
    if refused := bad_user(user):
        return refused
    assets = _assets_of(call.names, [] if name is None else [name])
    if isinstance(assets, Refused):
        return assets
    asked = [] if name is None else [assets[0].asset_id]
    names = call.names
    answer = expect(await call.exchange.ask_shard(user, m.AskAccounts(user, asked)), m.Accounts)
    if isinstance(answer, Refused):
        return answer
    kept = {account.asset: account for account in answer.accounts}
    if refused := _unknown(names, kept):
        return refused
    return {asset.name: _balance(asset, kept.get(asset.asset_id)) for asset in assets}


def _balance(asset: Asset, account: m.Account | None) -> replies.BalanceReply:
    if account is None:
        return replies.BalanceReply("0", "0")
    save, show = asset.prec_save, asset.prec_show
    return replies.BalanceReply(
        format_plain(rescale(account.available, save, show), show),
        format_plain(rescale(account.frozen, save, show), show),
    )


async def balance_update(call: Call, index: int, params: list[Any]) -> Result:
    """Answer balance.update."""
    user, name, business, business_id, change_text, detail, force = params
    detail_text = _detail_text(detail)
    if isinstance(detail_text, Refused):
        return detail_text
    if refused := _bad_business(business, business_id) or _bad_force(force):
        return refused
    # The form does not depend on the scale, which only the asset tells.
    form = decimal("change", change_text, 0)
    if isinstance(form, Refused):
        return form
    if refused := bad_user(user):
        return refused
    assets = _assets_of(call.names, [name])
    if isinstance(assets, Refused):
        return assets
    asset = assets[0]
    change = decimal("change", change_text, asset.prec_save)
    if isinstance(change, Refused):
        return change
    update = c.Update(
        call.request_id(index),
        call.caller.stamp_ms,
        user,
        asset.asset_id,
        business,
        business_id,
        change,
        detail_text,
        force is not None,
        MAGNITUDE_MAX * 10**asset.prec_save // call.names.shards,
    )
    return success(await call.exchange.ask_shard(user, update))


def _detail_text(detail: dict[str, Any]) -> str | Refused:
    if nests_deeper(detail, NESTING_MAX):
        return invalid("detail", detail, f"nests deeper than {NESTING_MAX}")
    text = msgspec.json.encode(detail)
    if len(text) > DETAIL_BYTES_MAX:
        return invalid("detail", detail, f"has {len(text)} bytes, over {DETAIL_BYTES_MAX}")
    return text.decode()


def _bad_business(business: str, business_id: int) -> Refused | None:
    if not 1 <= bytes_of(business) <= BUSINESS_BYTES_MAX:
        return invalid("business", business, f"is not 1..{BUSINESS_BYTES_MAX} bytes")
    if not 1 <= business_id <= BUSINESS_ID_MAX:
        return invalid("business_id", business_id, "is not in 1..2^63-1")
    return None


def _bad_force(force: str | None) -> Refused | None:
    if force is None or force == "force":
        return None
    return invalid("force", force, 'is not "force"')


async def asset_list(call: Call, index: int, params: list[Any]) -> Result:
    """Answer asset.list."""
    offset = 0 if params[0] is None else params[0]
    limit = LIST_LIMIT_DEFAULT if params[1] is None else params[1]
    if refused := bad_page(offset, limit, LIST_LIMIT_MAX):
        return refused
    page = call.names.assets[offset : offset + limit]
    records = [replies.AssetReply(asset.name, asset.prec_show) for asset in page]
    return replies.ListReply(limit, offset, records)


async def asset_summary(call: Call, index: int, params: list[Any]) -> Result:
    """Answer asset.summary over all shards."""
    totals = await _totals(call, params)
    if isinstance(totals, Refused):
        return totals
    return [
        replies.AssetSummary(
            asset.name,
            format_plain(total.available + total.frozen, asset.prec_save),
            total.available_count,
            format_plain(total.available, asset.prec_save),
            total.frozen_count,
            format_plain(total.frozen, asset.prec_save),
        )
        for asset, total in totals
    ]


async def asset_fees(call: Call, index: int, params: list[Any]) -> Result:
    """Answer asset.fees: what the exchange has collected, over all shards."""
    totals = await _totals(call, params)
    if isinstance(totals, Refused):
        return totals
    return [
        replies.AssetFees(asset.name, format_plain(total.fees, asset.prec_save))
        for asset, total in totals
    ]


class _Sum:
    """One asset over all shards."""

    __slots__ = ("available", "available_count", "fees", "frozen", "frozen_count")

    def __init__(self) -> None:
        self.available = self.available_count = self.frozen = self.frozen_count = self.fees = 0

    def add(self, total: m.AssetTotal) -> None:
        self.available += total.available
        self.available_count += total.available_count
        self.frozen += total.frozen
        self.frozen_count += total.frozen_count
        self.fees += total.fees


async def _totals(call: Call, wanted: list[str]) -> list[tuple[Asset, _Sum]] | Refused:
    names = call.names
    assets = _assets_of(names, wanted)
    if isinstance(assets, Refused):
        return assets
    sums = {asset.asset_id: _Sum() for asset in assets}
    for given in await call.exchange.ask_shards(m.AskAssets(list(sums) if wanted else [])):
        answer = expect(given, m.AssetTotals)
        if isinstance(answer, Refused):
            return answer
        for total in answer.totals:
            if total.asset not in sums:
                return catalog_behind(f"asset number {total.asset}")
            sums[total.asset].add(total)
    return [(asset, sums[asset.asset_id]) for asset in assets]


async def asset_add(call: Call, index: int, params: list[Any]) -> Result:
    """Answer asset.add."""
    name, prec_save, prec_show, notes = params
    if refused := bad_notes(notes) or bad_asset(name) or bad_precision(prec_save, prec_show):
        return refused
    command = c.AddAsset(
        call.request_id(index), call.caller.stamp_ms, name, prec_save, prec_show, notes
    )
    return success(await call.exchange.ask_catalog(command))


async def asset_rename(call: Call, index: int, params: list[Any]) -> Result:
    """Answer asset.rename."""
    old_name, new_name = params
    # Whether old_name is known only the catalog may say: asked again, it repeats its success.
    if refused := bad_asset(old_name) or bad_asset(new_name):
        return refused
    command = c.RenameAsset(call.request_id(index), call.caller.stamp_ms, old_name, new_name)
    return success(await call.exchange.ask_catalog(command))


def _assets_of(names: Names, wanted: list[str]) -> list[Asset] | Refused:
    """The assets called `wanted`, all of them for none."""
    if not wanted:
        return list(names.assets)
    found = []
    for name in wanted:
        asset = names.asset_by_name.get(name)
        if asset is None:
            detail = f"asset: {shown(name)}"
            return bad_asset(name) or Refused(Reason.ASSET_NOT_FOUND, detail)
        found.append(asset)
    return found


def _unknown(names: Names, kept: dict[int, m.Account]) -> Refused | None:
    for asset_id in kept:
        if asset_id not in names.asset_by_id:
            return catalog_behind(f"asset number {asset_id}")
    return None
