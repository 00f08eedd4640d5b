"""HTTP in front of the RPC: paths, methods, content types, sizes, health."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api.app import BODY_BYTES_MAX, KNOWN
from tests.api.gateway_world import Gateway, opened, run, signed

REQUEST = b'{"id": 5, "method": "market.list", "params": []}'


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("POST", "/", 200, None, None),
        ("POST", "/v3sign/", 200, None, None),
        ("GET", "/", 405, 1, "POST"),
        ("PUT", "/v3sign/", 405, 1, "POST"),
        ("OPTIONS", "/", 405, 1, "POST"),
        ("POST", "/v3sign", 404, 4, None),
        ("POST", "/nowhere", 404, 4, None),
        ("GET", "/nowhere", 404, 4, None),
        ("GET", "/health", 200, None, None),
        ("POST", "/health", 405, 1, "GET HEAD"),
        ("GET", "/health/", 404, 4, None),
    ],
)
def test_every_path_has_its_reply(
    method: str, path: str, status: int, code: int | None, allow: str | None
) -> None:
    async def body() -> None:
        response = await (await opened()).http(method, path, REQUEST)
        reply = response.json()
        assert response.status_code == status
        assert response.headers["content-type"] == "application/json"
        allowed = response.headers.get("allow", "").replace(",", "").split()
        assert sorted(allowed) == (allow or "").split()
        assert list(reply) == ["error", "result", "id"]
        assert (reply["error"] and reply["error"]["code"]) == code

    run(body())


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/xml", "nonsense"])
def test_the_content_type_does_not_matter(kind: str) -> None:
    async def body() -> None:
        gateway = await opened()
        assert (await gateway.post(REQUEST, [("content-type", kind)])).status_code == 200

    run(body())


def test_health_follows_the_lease() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        assert (await gateway.http("GET", "/health")).status_code == 200
        gateway.exchange.lease = False
        response = await gateway.http("GET", "/health")
        assert (response.status_code, response.json()["error"]["code"]) == (503, 3)

    run(body())


async def deliver(gateway: Gateway, messages: list[dict[str, Any]], **scope: Any) -> list[Any]:
    """What the application sends when a server hands it these messages, and no more."""
    sent: list[Any] = []
    left = list(messages)

    async def receive() -> Any:
        if left:
            return left.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    whole = {"type": "http", "method": "POST", "path": "/", "headers": []} | scope
    await asyncio.wait_for(gateway.app(whole, receive, send), 5)
    return sent


def part(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize("size", [1, 7, 48])
def test_a_body_may_come_in_parts(size: int) -> None:
    async def body() -> None:
        parts = [REQUEST[i : i + size] for i in range(0, len(REQUEST), size)]
        messages = [part(text, True) for text in parts] + [part(b"", False)]
        start, end = await deliver(await opened(), messages)
        assert start["status"] == 200
        assert dict(start["headers"])[b"content-length"] == b"%d" % len(end["body"])

    run(body())


def test_the_largest_body_is_read() -> None:
    async def body() -> None:
        start, _ = await deliver(await opened(), [part(REQUEST.ljust(BODY_BYTES_MAX), False)])
        assert start["status"] == 200

    run(body())


@pytest.mark.parametrize(
    "messages",
    [
        [part(REQUEST.ljust(BODY_BYTES_MAX + 1), False)],
        [part(REQUEST.ljust(BODY_BYTES_MAX), True), part(b" ", False)],
        [part(REQUEST, True), *[part(b" " * 65_536, True)] * 63, part(b" ", False)],
        # It is not waited for what comes after: there may be no end of it.
        [part(b" " * 65_536, True)] * 65,
    ],
)
def test_a_larger_body_is_refused_as_it_comes(messages: list[dict[str, Any]]) -> None:
    async def body() -> None:
        start, end = await deliver(await opened(), messages)
        assert start["status"] == 413
        assert (b"connection", b"close") in start["headers"]
        assert b'"code":1,"message":"invalid argument: body: over 1048576 bytes"' in end["body"]

    run(body())


def test_a_client_that_leaves_is_not_answered() -> None:
    async def body() -> None:
        gateway = await opened()
        messages = [part(REQUEST[:9], True), {"type": "http.disconnect"}]
        assert await deliver(gateway, messages) == []
        assert gateway.exchange.asked == []

    run(body())


@pytest.mark.parametrize("secret", [None, "not the secret"])
def test_the_server_is_told_who_has_shown_who_he_is(secret: str | None) -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        state: dict[str, Any] = {}
        pairs = signed(REQUEST, secret=secret)
        headers = [(name.lower().encode(), value.encode()) for name, value in pairs]
        await deliver(gateway, [part(REQUEST, False)], headers=headers, state=state)
        assert state == ({KNOWN: True} if secret is None else {})

    run(body())
