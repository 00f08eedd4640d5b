"""Authentication: who may ask, what for, and what a request sent again does."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest

from api.auth import signature
from api.methods import METHODS
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.catalog import Scope
from excore_ray.core.reasons import Reason, Refused
from tests.api.fake_exchange import KEYS
from tests.api.gateway_world import MARKET, Gateway, now_ms, opened, run, signed

BODY = json.dumps({"id": 5, "method": "market.list", "params": []}).encode()
SIGN = signature(KEYS["all"][0], BODY).decode()
FAILED = {"code": 8, "message": "authentication failed"}
PUT = {
    "id": 1,
    "method": "order.put_limit",
    "params": [1, MARKET, 1, "1", "8000", "0.002", "0.001", ""],
}


@pytest.mark.parametrize(
    ("stamp", "first_half", "second_half"),
    [
        (
            b"",
            "2cc32db8c54e02de764f18466751698edfd5eac4cb18ffa24dedae9d0f2b382a",
            "ebae250414eef5a0b6db53066e0f4b3b19d31089c5c28602a289adbfe281d11d",
        ),
        (
            b"1515752473250.",
            "44145070ad7ad55aa56f0acee902f155334fb83c769566b144a17e582c51d850",
            "32defdbc6dfdb1a3de23121ff190d35165f7fdd01b58a18a55315ecd2597ad31",
        ),
    ],
)
def test_sign_is_what_other_programs_compute(
    stamp: bytes, first_half: str, second_half: str
) -> None:
    """The expected values are those of `openssl dgst -sha512 -hmac` for the reference's example."""
    body = b'{"id": 1, "method": "market.last", "params": ["BTC_USDT"]}'
    sign = signature("prearranged secret key", stamp + body)
    assert sign.decode() == first_half + second_half


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("KEY", "all")],
        [("SIGN", SIGN)],
        [("KEY", ""), ("SIGN", "")],
        [("KEY", "all"), ("SIGN", "")],
        [("KEY", "all"), ("SIGN", SIGN.upper())],
        [("KEY", "all"), ("SIGN", SIGN[:-1])],
        [("KEY", "all"), ("SIGN", SIGN[:-1] + ("0" if SIGN[-1] != "0" else "1"))],
        [("KEY", "all"), ("SIGN", SIGN + "0")],
        [("KEY", "all"), ("SIGN", "\xff")],
        [("KEY", "ALL"), ("SIGN", SIGN)],
        [("KEY", "\xff"), ("SIGN", SIGN)],
        [("KEY", "nobody"), ("SIGN", SIGN)],
        [("KEY", "nobody"), ("SIGN", signature("", BODY).decode())],
        [("KEY", ""), ("SIGN", signature("", BODY).decode())],
        [("KEY", "read"), ("SIGN", SIGN)],
        signed(BODY + b" "),
        signed(BODY, secret="secret"),
        [*signed(BODY), ("TIMESTAMP", str(now_ms()))],
        [*signed(BODY), ("TIMESTAMP", "")],
        signed(BODY, stamp=str(now_ms()))[:2],
        [*signed(BODY, stamp=str(now_ms()))[:2], ("TIMESTAMP", str(now_ms() - 1000))],
    ],
)
def test_nothing_is_told_about_a_failure(headers: list[tuple[str, str]]) -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        for raw in (BODY, b"no JSON"):
            response = await gateway.http("POST", "/", raw, headers)
            reply = response.json()
            assert response.status_code == 401
            assert reply == {"error": FAILED, "result": None, "id": None}

    run(body())


@pytest.mark.parametrize("path", ["/", "/v3sign/"])
@pytest.mark.parametrize("offset_ms", [None, 0, -29_000, 29_000])
def test_a_signed_request_is_answered(path: str, offset_ms: int | None) -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        stamp = None if offset_ms is None else str(now_ms() + offset_ms)
        response = await gateway.http("POST", path, BODY, signed(BODY, stamp=stamp))
        assert response.status_code == 200
        assert response.json()["id"] == 5

    run(body())


@pytest.mark.parametrize(
    "stamp",
    [
        *("", "x", "-1", "1.5", "1e12", "0x1", "9" * 16, "9" * 1000),
        *("0", -31_000, 600_000, "1515752473"),
    ],
    ids=lambda stamp: str(stamp)[:20],
)
def test_who_has_the_secret_learns_what_is_wrong_with_the_timestamp(stamp: str | int) -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        text = stamp if isinstance(stamp, str) else str(now_ms() + stamp)
        response = await gateway.http("POST", "/", BODY, signed(BODY, stamp=text))
        error = response.json()["error"]
        assert response.status_code == 401
        assert error["code"] == 8
        assert error["message"].startswith("authentication failed: TIMESTAMP is ")

    run(body())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("key", ["read", "trade", "admin"])
def test_a_key_opens_what_its_scopes_say(method: str, key: str) -> None:
    allowed = METHODS[method].scope == KEYS[key][1]
    raw = json.dumps({"id": 5, "method": method, "params": ["nothing", {}]}).encode()

    async def body() -> None:
        gateway = await opened(auth=True)
        for text, status in ((raw, 403), (b"[%b]" % raw, 200)):
            response = await gateway.http("POST", "/", text, signed(text, key))
            reply = response.json()
            error = (reply if status == 403 else reply[0])["error"]
            if allowed:
                assert error["code"] in {1, 4, 6, 12, 43}
            else:
                scope = Scope(METHODS[method].scope).name
                assert scope is not None
                message = f"authentication failed: the key lacks the scope {scope.lower()}"
                assert error == {"code": 8, "message": message}
                assert response.status_code == status

    run(body())


def test_scopes_are_as_promised() -> None:
    writes = {"balance.update", "asset.add", "asset.rename", "market.add", "market.rename"}
    for name, method in METHODS.items():
        if name in {"order.put_limit", "order.put_market", "order.cancel"}:
            assert method.scope == Scope.TRADE
        elif name in writes or name.startswith(("keys.", "exchange.")):
            assert method.scope == Scope.ADMIN
        else:
            assert method.scope == Scope.READ


def test_without_auth_headers_mean_nothing() -> None:
    async def body() -> None:
        gateway = await opened()
        raw = json.dumps(PUT).encode()
        headers = [("KEY", "x"), ("SIGN", "y"), ("TIMESTAMP", "z")]
        for _ in range(2):
            assert (await gateway.http("POST", "/", raw, headers)).status_code == 200
        assert len({ask.request_id for ask in puts(gateway)}) == 2
        assert {ask.stamp_ms for ask in puts(gateway)} == {0}

    run(body())


def puts(gateway: Gateway) -> list[c.PutLimit]:
    return [ask for _, ask in gateway.exchange.asked if isinstance(ask, c.PutLimit)]


async def post(gateway: Gateway, body: Any, stamp: str | None) -> Any:
    raw = json.dumps(body).encode()
    return (await gateway.http("POST", "/", raw, signed(raw, stamp=stamp))).json()


def test_a_stamped_request_is_executed_once_however_often_it_comes() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        stamp = str(now_ms())
        batch = [PUT, PUT, {"id": 2, "method": "order.cancel", "params": [1, MARKET]}, PUT]
        first = await post(gateway, batch, stamp)
        assert await post(gateway, batch, stamp) == first
        assert len({reply["result"].get("id") for reply in first}) == 4
        summary = {"id": 3, "method": "market.summary", "params": []}
        assert (await post(gateway, summary, None))["result"][0]["ask_count"] == 1
        assert {ask.stamp_ms for ask in puts(gateway)} == {int(stamp)}

    run(body())


def test_a_plain_request_is_executed_each_time() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        first, second = [await post(gateway, PUT, None) for _ in range(2)]
        assert first["result"]["id"] != second["result"]["id"]
        assert {ask.stamp_ms for ask in puts(gateway)} == {0}

    run(body())


def test_a_request_id_is_of_key_signature_and_place_in_the_batch() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        stamp = str(now_ms())
        batch = [PUT, {"id": 1, "method": "market.list", "params": []}, PUT]
        raw = json.dumps(batch).encode()
        sign = signature(KEYS["all"][0], stamp.encode() + b"." + raw)
        await post(gateway, batch, stamp)
        expected = [sha256(b"all\n" + sign + b"\n" + place).digest()[:16] for place in (b"0", b"2")]
        assert [ask.request_id for ask in puts(gateway)] == expected

    run(body())


def test_a_revoked_key_is_unknown() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        revoke = {"id": 1, "method": "keys.revoke", "params": ["all"]}
        assert (await post(gateway, revoke, None))["error"] is None
        assert (await post(gateway, revoke, None))["error"] == FAILED

    run(body())


def test_a_batch_does_not_outlive_its_key() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        batch = [
            {"id": 1, "method": "keys.revoke", "params": ["all"]},
            {
                "id": 2,
                "method": "order.put_limit",
                "params": [1, MARKET, 1, "1", "1", "0", "0", ""],
            },
            {"id": 3, "method": "keys.add", "params": [["admin"], "a back door"]},
        ]
        revoked, *others = await post(gateway, batch, None)
        assert revoked["error"] is None
        assert [reply["error"] for reply in others] == [FAILED, FAILED]
        assert puts(gateway) == []
        assert "a back door" not in [view.notes for view in gateway.exchange.catalog.key_views()]

    run(body())


def test_a_recorded_request_without_its_timestamp_is_nobodys() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        stamp = str(now_ms() - 86_400_000)
        headers = [pair for pair in signed(BODY, stamp=stamp) if pair[0].lower() != "timestamp"]
        response = await gateway.http("POST", "/", stamp.encode() + b"." + BODY, headers)
        assert (response.status_code, response.json()["error"]) == (401, FAILED)

    run(body())


def test_a_key_that_may_have_been_made_is_not_said_not_to_be() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        gateway.exchange.answer_with[m.AskKeys] = Refused(Reason.SERVICE_UNAVAILABLE, "crowded")
        add = {"id": 1, "method": "keys.add", "params": [["read"], "mine"]}
        assert (await post(gateway, add, str(now_ms())))["error"]["code"] == 5

    run(body())


def test_without_a_catalog_nobody_is_known() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        gateway.exchange.lease = gateway.exchange.catalog_reachable = False
        response = await gateway.http("POST", "/", BODY, signed(BODY))
        assert response.status_code == 503
        assert (response.json()["error"]["code"], response.json()["id"]) == (3, None)
        gateway.exchange.catalog_reachable = True
        assert (await gateway.http("POST", "/", BODY, signed(BODY))).status_code == 200

    run(body())
