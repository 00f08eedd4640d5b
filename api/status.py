"""Status: the handler of exchange.status: how every actor is.

Separate because it is for operators alone, and the only reply without a fixed set of fields.  It
must not know what the figures mean.

Source: an extension of the RPC reference.
"""

from __future__ import annotations

from typing import Any

from api.calls import Call, Result, expect
from api.replies import error_of
from excore_ray.core.custodian import market_name
from excore_ray.core.messages import Answer, AskStatus, Status
from excore_ray.core.questions import ARCHIVE
from excore_ray.core.reasons import Refused
from excore_ray.core.registrar import CATALOG
from excore_ray.core.shardlink import shard_name


async def exchange_status(call: Call, index: int, params: list[Any]) -> Result:
    """Answer exchange.status [] with catalog, archive, markets and shards, all asked at once.

    An actor that does not answer shows its stream, and its error in place of its figures.
    """
    exchange, listings = call.exchange, call.names.markets
    catalog = exchange.ask_catalog(AskStatus())
    markets = [exchange.ask_market(listing.market_no, AskStatus()) for listing in listings]
    archive = exchange.ask_archive(AskStatus())
    shards = await exchange.ask_shards(AskStatus())
    return {
        "catalog": _shown(CATALOG, await catalog),
        "archive": _shown(ARCHIVE, await archive),
        "markets": [
            {"name": listing.name, **_shown(market_name(listing.market_no), await future)}
            for listing, future in zip(listings, markets, strict=True)
        ],
        "shards": [_shown(shard_name(shard), answer) for shard, answer in enumerate(shards)],
    }


def _shown(stream: str, answer: Answer) -> dict[str, Any]:
    status = expect(answer, Status)
    if isinstance(status, Refused):
        return {"stream": stream, "error": error_of(status)}
    return {
        "stream": status.stream,
        "epoch": status.epoch,
        "next_seq": status.next_seq,
        "facts": status.facts,
        "texts": status.texts,
    }
