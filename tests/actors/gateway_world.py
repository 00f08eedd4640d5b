"""What a gateway is given in tests: a façade that only remembers, and an application that echoes.

Separate because a gateway imports both by name.
"""

from __future__ import annotations

import asyncio
from typing import Any

from excore_ray.actors.clock import Clock
from excore_ray.actors.gateway_http import KNOWN
from excore_ray.actors.wiring import Wiring


class QuietExchange:
    """A façade that asks nobody.  calls: what was asked of it."""

    def __init__(self, wiring: Wiring, clock: Clock) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    async def close(self, patience_s: float) -> None:
        self.calls.append("close")

    async def fresh_names(self) -> None:
        self.calls.append("names")


def create_app(exchange: QuietExchange, settings: dict[str, float]) -> Any:
    """Answers with the length of the body, after settings["wait_s"] seconds.

    A caller of /known is known from then on; one of /large gets settings["reply_bytes"] bytes; one
    of /early is answered at once.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/known":
            scope["state"][KNOWN] = True
        size = 0
        while scope["path"] != "/early":
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                break
        await asyncio.sleep(settings.get("wait_s", 0.0))
        body = b"%d" % size
        if scope["path"] == "/large":
            body = b"x" * int(settings["reply_bytes"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app
