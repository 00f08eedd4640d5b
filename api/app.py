"""App: HTTP in front of the RPC: paths, methods, the size of a body, authentication, health.

Separate so that no handler knows HTTP.  POST to / or /v3sign/ is the RPC; it bypasses routing,
which would cost more than a put's own handling.  It must not know envelopes or methods.

Whatever the content type says, a body is read as JSON.  Every reply but 200 carries an error
object.
Source: the overview of the RPC reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.allowance import Allowance, Purse
from api.auth import ANYBODY, authenticate
from api.calls import Caller
from api.params import shown
from api.ports import Exchange, Settings
from api.replies import SUCCESS
from api.rpc import encode_single, internal_error, respond
from api.turnstile import Turnstile
from excore_ray.core.reasons import Reason, Refused

RPC_PATHS = ("/", "/v3sign/")
BODY_BYTES_MAX = 1 << 20
DROPPED_BYTES_MAX = 4 * BODY_BYTES_MAX
_TOO_LARGE = Refused(Reason.INVALID_ARGUMENT, f"body: over {BODY_BYTES_MAX} bytes")
_OVERLOADED = Refused(Reason.SERVICE_UNAVAILABLE, "too many requests at this gateway")
_NO_CATALOG = Refused(Reason.SERVICE_UNAVAILABLE, "no valid copy of the catalog")
_TOO_LARGE_STATUS, _TOO_MANY_STATUS, _NOT_FOUND_STATUS = 413, 429, 404
KNOWN = "known"  # in a request's state: its caller has shown who he is
_JSON = (b"content-type", b"application/json")
_CLOSE = (b"connection", b"close")
Header = tuple[bytes, bytes]


def create_app(
    exchange: Exchange, settings: Settings, clock_ns: Callable[[], int] = time.monotonic_ns
) -> ASGIApp:
    """The gateway's application, for any ASGI server.

    clock_ns: what allowances are measured by.
    """
    endpoint = _Rpc(exchange, settings.auth, Allowance(settings.limits, clock_ns))
    routes: list[BaseRoute] = [
        *(Route(path, endpoint, methods=["POST"]) for path in RPC_PATHS),
        Route("/health", _Health(exchange), methods=["GET"]),
    ]
    starlette = Starlette(routes=routes, exception_handlers={HTTPException: _http_error})
    # A redirect would lose the body with some clients, and has no error object.
    starlette.router.redirect_slashes = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in RPC_PATHS:
            await endpoint(scope, receive, send)
        else:
            await starlette(scope, receive, send)

    return app


class _Rpc:
    """POST of one request or batch."""

    def __init__(self, exchange: Exchange, auth: bool, allowance: Allowance) -> None:
        self._exchange = exchange
        self._auth = auth
        self._allowance = allowance
        self._turnstile = Turnstile(allowance.clock_ns)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if body is None:
            return
        if isinstance(body, Refused):
            # Its end may not have been read, so nothing can follow it on this connection.
            _, reply = encode_single(body, None)
            await _send(send, _TOO_LARGE_STATUS, reply, _CLOSE)
            return
        if not self._turnstile.free() and not await self._turnstile.wait(len(body)):
            status, reply = encode_single(_OVERLOADED, None)
            await _send(send, status, reply)
            return
        extra: tuple[Header, ...] = ()
        try:
            caller = await self._authenticate(scope, body) if self._auth else ANYBODY
            if isinstance(caller, Refused):
                status, reply = encode_single(caller, None)
            else:
                # The server may then tell this connection from those of strangers.
                scope.get("state", {})[KNOWN] = True
                purse = Purse(self._allowance, caller.key)
                status, reply = await respond(self._exchange, caller, purse, body)
                if status == _TOO_MANY_STATUS and purse.wait_ns:
                    extra = (_retry_after(purse.wait_ns),)
        except Exception:
            status, reply = encode_single(internal_error("the gateway"), None)
        await _send(send, status, reply, *extra)

    async def _authenticate(self, scope: Scope, body: bytes) -> Caller | Refused:
        names = self._exchange.names or await self._exchange.fresh_names()
        if isinstance(names, Refused):
            return names
        now_ms = time.time_ns() // 1_000_000
        return authenticate(names.credential_by_key, scope["headers"], body, now_ms)


class _Health:
    """GET of whether this gateway can serve: 200, or 503 without a valid copy of the catalog.

    Open to all, for load balancers; it tells nothing else.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        result = SUCCESS if self._exchange.names is not None else _NO_CATALOG
        status, reply = encode_single(result, None)
        await _send(send, status, reply)


async def _read_body(receive: Receive) -> bytes | Refused | None:
    """The body; a refusal when it is too large, None when the client has gone."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        whole: bytes = message.get("body", b"")
        return whole if len(whole) <= BODY_BYTES_MAX else _TOO_LARGE
    body = bytearray()
    size = 0
    while message["type"] == "http.request":
        part: bytes = message.get("body", b"")
        size += len(part)
        if size <= BODY_BYTES_MAX:
            body += part
        else:
            body.clear()
        # A little more is read and dropped: cut off while it sends, a client may miss the reply.
        if size > DROPPED_BYTES_MAX:
            return _TOO_LARGE
        if not message.get("more_body", False):
            return bytes(body) if size <= BODY_BYTES_MAX else _TOO_LARGE
        # Or a slow body would be in memory twice while the rest is awaited.
        del message, part
        message = await receive()
    return None


def _retry_after(wait_ns: int) -> Header:
    return b"retry-after", b"%d" % -(-wait_ns // 1_000_000_000)  # whole seconds, rounded up


async def _send(send: Send, status: int, body: bytes, *extra: Header) -> None:
    headers = [_JSON, (b"content-length", b"%d" % len(body)), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _http_error(request: Request, error: Exception) -> Response:
    """What routing refuses, as an error object under its own status."""
    assert isinstance(error, HTTPException)
    if error.status_code == _NOT_FOUND_STATUS:
        refused = Refused(Reason.METHOD_NOT_FOUND, f"path {shown(request.url.path)}")
    else:
        detail = f"{request.method} {shown(request.url.path)}: {error.detail}"
        refused = Refused(Reason.INVALID_ARGUMENT, detail)
    _, body = encode_single(refused, None)
    return Response(body, error.status_code, error.headers, "application/json")
