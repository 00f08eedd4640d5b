"""A gateway over the fake exchange, called through its ASGI application.

What tests share: a world with assets, markets and money, and one line to ask it something.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from api.app import create_app
from api.auth import signature
from excore_ray.actors.plan import RequestLimits
from tests.api.fake_exchange import KEYS, FakeExchange

LIMITS = RequestLimits()
MARKET = "BTCBCH"  # the reference's market: 8 and 8 digits, minimum 0.001
CREATE = (
    ("asset.add", "BTC", 20, 8, "the stock"),
    ("asset.add", "BCH", 20, 12, "the money"),
    ("asset.add", "EOS", 4, 2, "coarse"),
    ("market.add", MARKET, "BTC", 8, "BCH", 8, "0.001", ""),
    ("market.add", "BTC EOS", "BTC", 2, "EOS", 0, "1", "a name with a space"),
)


@dataclass(frozen=True)
class Auth:
    """Settings of a gateway."""

    auth: bool
    limits: RequestLimits = LIMITS


class Gateway:
    """One gateway.  ask: the reply of one request; post: any body; both as the client sees it."""

    def __init__(self, auth: bool = False) -> None:
        self.exchange = FakeExchange()
        self.app = create_app(self.exchange, Auth(auth))

    async def http(
        self, method: str, path: str, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
    ) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://exchange") as client:
            encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
            return await client.request(method, path, content=body, headers=encoded)

    async def post(self, body: Any, headers: Iterable[tuple[str, str]] = ()) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http("POST", "/", raw, headers)

    async def reply(self, method: str, *params: Any) -> Any:
        """The whole reply, with its HTTP status under "status"."""
        response = await self.post({"id": 5, "method": method, "params": list(params)})
        reply = response.json()
        assert list(reply) == ["error", "result", "id"]
        assert reply["id"] == 5
        assert (reply["error"] is None) == (response.status_code == 200)
        assert reply["error"] is None or reply["result"] is None
        return reply | {"status": response.status_code}

    async def ask(self, method: str, *params: Any) -> Any:
        """The result of a request that must succeed."""
        reply = await self.reply(method, *params)
        assert reply["error"] is None, reply["error"]
        return reply["result"]

    async def refusal(self, method: str, *params: Any) -> tuple[int, int, str]:
        """HTTP status, code and message of a request that must be refused."""
        reply = await self.reply(method, *params)
        assert reply["error"] is not None, reply["result"]
        return reply["status"], reply["error"]["code"], reply["error"]["message"]

    async def put(self, user: int, side: int, amount: str, price: str, market: str = MARKET) -> Any:
        """A limit order with the fees 0.002 and 0.001."""
        params = [user, market, side, amount, price, "0.002", "0.001", "test"]
        return await self.ask("order.put_limit", *params)

    async def records(self, method: str, *params: Any) -> list[dict[str, Any]]:
        """The records of a page."""
        found: list[dict[str, Any]] = (await self.ask(method, *params))["records"]
        return found

    async def deposit(self, user: int, asset: str, change: str, business_id: int = 1) -> None:
        await self.ask("balance.update", user, asset, "deposit", business_id, change, {})


async def opened(auth: bool = False) -> Gateway:
    """A gateway of an exchange with three assets, two markets, and money for users 1 and 2."""
    gateway = Gateway()
    for method, *params in CREATE:
        await gateway.ask(method, *params)
    for user in (1, 2):
        await gateway.deposit(user, "BTC", "1000")
        await gateway.deposit(user, "BCH", "1000000")
    if auth:
        gateway.app = create_app(gateway.exchange, Auth(True))
    gateway.exchange.asked.clear()
    return gateway


def signed(
    body: bytes, key: str = "all", stamp: str | None = None, secret: str | None = None
) -> list[tuple[str, str]]:
    """The headers of a signed request."""
    secret = KEYS[key][0] if secret is None else secret
    covered = body if stamp is None else stamp.encode() + b"." + body
    headers = [("KEY", key), ("SIGN", signature(secret, covered).decode())]
    return headers if stamp is None else [*headers, ("TIMESTAMP", stamp)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run the body of a test."""
    asyncio.run(test)
