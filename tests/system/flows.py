"""Flows: public order flow with known answers, sent to a running exchange over HTTP.

Separate because it is sent twice: in peace, and while parts of the exchange are killed.  The files
share names, so each flow renames its market and its assets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, cast

import httpx

from api.client import Client, ExcoreRpcError
from tests.api.gateway_world import Gateway
from tests.api.test_vectors import FLOWS, NAMES, play


class Flow:
    """One file and its market.  It is a gateway to `play`, which knows the files.

    number: its market's, and what its names end in.  single: send one request at a time, where a
    batch could be sent again as a whole and in another order.  before: awaited before each
    sending.  sent: requests answered so far.
    """

    def __init__(self, number: int, client: Client, *, single: bool) -> None:
        self.name = NAMES[number - 1]
        self.market_no = number
        self.sent = 0
        self.before: Callable[[], Awaitable[None]] | None = None
        self._client = client
        self._single = single
        self._final = json.loads((FLOWS / f"{self.name}.final.json").read_text())
        self._names = {
            self._final[kind]: f"{self._final[kind]}_{number}"
            for kind in ("market", "stock", "money")
        }

    def prepare(self) -> None:
        """Add the market and give every user the first money."""
        final, names, client = self._final, self._names, self._client
        market, stock, money = (names[final[kind]] for kind in ("market", "stock", "money"))
        for asset in (stock, money):
            client.call("asset.add", asset, 20, 20, "")
        client.call("market.add", market, stock, 8, money, 8, "0.00000001", "")
        deposits: list[tuple[Any, ...]] = [
            ("balance.update", user, names[final[kind]], "deposit", 1, final["initial"][kind], {})
            for user in final["users"]
            for kind in ("stock", "money")
        ]
        assert client.batch(deposits) == [{"status": "success"}] * len(deposits)

    async def play(self) -> None:
        """Send everything in its order; each answer is compared with what is known."""
        await play(cast(Gateway, self), self.name)

    async def post(self, batch: list[dict[str, Any]]) -> httpx.Response:
        """The replies to a batch, in its order."""
        requests = [(item["method"], *self._renamed(item["params"])) for item in batch]
        results: list[Any] = []
        if self._single:
            for request in requests:
                if self.before is not None:
                    await self.before()
                results.append(await asyncio.to_thread(self._ask, request))
                self.sent += 1
        else:
            results = await asyncio.to_thread(self._client.batch, requests)
            self.sent += len(results)
        return httpx.Response(200, json=[_reply(result) for result in results])

    def check_end(self) -> None:
        """Compare balances, fees, counts, depth and the number of deals with what is known."""
        final, names, client = self._final, self._names, self._client
        market = names[final["market"]]
        for user, balances in final["balances"].items():
            got = client.call("balance.query", int(user))
            for asset, parts in balances.items():
                for part, value in parts.items():
                    assert Decimal(got[names[asset]][part]) == Decimal(value), (user, asset)
        fees = client.call("asset.fees", [names[asset] for asset in final["fees"]])
        assert {row["name"]: Decimal(row["fees"]) for row in fees} == {
            names[asset]: Decimal(fee) for asset, fee in final["fees"].items()
        }
        [counts] = client.call("market.summary", market)
        assert (counts["ask_count"], counts["bid_count"]) == (
            final["ask_count"],
            final["bid_count"],
        )
        depth = client.call("order.depth", market, 100, "0")
        for side, levels in final["depth"].items():
            got = [[Decimal(n) for n in level] for level in depth[side]]
            assert got[: len(levels)] == [[Decimal(n) for n in level] for level in levels][:100]
        status = client.call("exchange.status")["markets"]
        [deals] = [one["facts"]["deals"] for one in status if one["name"] == market]
        assert deals == final["deals"]

    def _renamed(self, params: list[Any]) -> list[Any]:
        user, market, *rest = params
        return [user, self._names[market], *rest]

    def _ask(self, request: tuple[Any, ...]) -> Any:
        try:
            return self._client.call(*request)
        except ExcoreRpcError as refusal:
            return refusal


def _reply(result: Any) -> dict[str, Any]:
    """A result as the envelope it came in."""
    if isinstance(result, ExcoreRpcError):
        return {"error": {"code": result.code, "message": result.message}, "result": None}
    return {"error": None, "result": result}
