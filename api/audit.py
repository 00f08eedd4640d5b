"""Audit: the handler of exchange.audit: whether the books balance, asked while everybody works.

Separate because it asks every actor about everything it holds.  Nobody stands still for it: a
market is asked, then the shards, then the market again, and only what did not change in between
is compared.

Source: an extension of the RPC reference; ARCHITECTURE.md, invariants.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from api.calls import Call, Result
from excore_ray.core.audit import audit_assets, audit_holds
from excore_ray.core.messages import AskAssets, AskHolds, AssetTotals, MarketHolds, ShardHolds
from excore_ray.core.names import Listing
from excore_ray.core.reasons import Reason, Refused

Kind = TypeVar("Kind")

_TRIES = 20
_PAUSE_S = 0.05
_CONFIRM_S = 3.0


class _Missing(Exception):
    """An actor did not answer: the audit says nothing at all."""


async def exchange_audit(call: Call, index: int, params: list[Any]) -> Result:
    """Answer exchange.audit [] with what was compared and what was found wrong.

    findings: sentences, none when all is well.  holds: orders whose frozen funds were compared.
    behind: pairs of market and shard that could not be compared, the shard being behind.
    """
    try:
        totals = [_expect(answer, AssetTotals) for answer in await _shards(call, AskAssets([]))]
        findings = audit_assets(totals)
        holds = behind = 0
        for listing in call.names.markets:
            found, compared, late = await _audit_market(call, listing)
            if found:
                # A reservation that came late and doubled is held until its market aborts it.
                await asyncio.sleep(_CONFIRM_S)
                found, compared, late = await _audit_market(call, listing)
            findings += found
            holds += compared
            behind += late
    except _Missing as missing:
        return Refused(Reason.SERVICE_UNAVAILABLE, str(missing))
    return {
        "markets": len(call.names.markets),
        "shards": call.names.shards,
        "assets": len({total.asset for shard in totals for total in shard.totals}),
        "holds": holds,
        "behind": behind,
        "findings": findings,
    }


async def _audit_market(call: Call, listing: Listing) -> tuple[list[str], int, int]:
    """The findings about one market, the number of holds compared, and of shards behind."""
    shards = range(call.names.shards)
    before = await _market_holds(call, listing)
    held = await _held(call, listing, before)
    after = await _market_holds(call, listing)
    findings: list[str] = []
    for shard in shards:
        what = audit_holds(shard, before[shard], held[shard], after[shard])
        findings += [f"market {listing.name!r}: {finding}" for finding in what]
    compared = sum(len(one.holds) // 2 for one in held)
    late = sum(held[shard].applied < before[shard].out_seq for shard in shards)
    return findings, compared, late


async def _market_holds(call: Call, listing: Listing) -> list[MarketHolds]:
    """What the market needs frozen at each shard."""
    shards = range(call.names.shards)
    asked = [call.exchange.ask_market(listing.market_no, AskHolds(s, 0)) for s in shards]
    return [_expect(answer, MarketHolds) for answer in await asyncio.gather(*asked)]


async def _held(call: Call, listing: Listing, before: list[MarketHolds]) -> list[ShardHolds]:
    """What each shard holds, once it has applied all of `before`, or after some patience."""
    held: list[ShardHolds] = []
    for _ in range(_TRIES):
        answers = await _shards(call, AskHolds(0, listing.market_no))
        held = [_expect(answer, ShardHolds) for answer in answers]
        if all(h.applied >= b.out_seq for h, b in zip(held, before, strict=True)):
            break
        await asyncio.sleep(_PAUSE_S)
    return held


async def _shards(call: Call, ask: AskAssets | AskHolds) -> list[Any]:
    return list(await call.exchange.ask_shards(ask))


def _expect(answer: Any, kind: type[Kind]) -> Kind:
    if isinstance(answer, Refused):
        raise _Missing(answer.detail)
    if not isinstance(answer, kind):
        raise TypeError(f"{type(answer).__name__} answered where {kind.__name__} belongs")
    return answer
