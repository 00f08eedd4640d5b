"""The least application a gateway can serve: it tells what the catalog's copy says.

Separate because gateways import their application by name, in a process of their own.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec

from excore_ray.core.names import Names
from excore_ray.exchange import Exchange


def create_app(exchange: Exchange, greeting: str) -> Any:
    """An ASGI application that answers everything with one object."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        names = await exchange.fresh_names()
        markets = [listing.name for listing in names.markets] if isinstance(names, Names) else None
        body = msgspec.json.encode({"says": greeting, "markets": markets, "pid": os.getpid()})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app
