"""The envelope and the batch: what is a request, and in which order a batch is executed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.rpc import Broken, Envelope, parse
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.reasons import Reason, Refused
from tests.api.gateway_world import MARKET, Gateway, opened, run

GOOD = '{"id": 5, "method": "market.list", "params": []}'

# body, id echoed, a part of the message
NO_REQUESTS = [
    ("", None, "not JSON"),
    ("nonsense", None, "not JSON"),
    (GOOD[:-1], None, "not JSON"),
    (GOOD + "x", None, "not JSON"),
    (GOOD + GOOD, None, "not JSON"),
    ("\ufeff" + GOOD, None, "not JSON"),
    ("{'id': 5}", None, "not JSON"),
    ('{"id": 5, "method": "market.list", "params": [NaN]}', None, "not JSON"),
    ('{"id": 5, "method": "market.list", "params": [Infinity]}', None, "not JSON"),
    ('{"id": 5, "method": "market.list", "params": [1e400]}', None, "not JSON"),
    ('{"id": 5, "method": "market.list", "params": ["\\ud800"]}', None, "not JSON"),
    ('{"id": 5, "method": "market.list", "params": [' + "1" * 5000 + "]}", None, "not JSON"),
    ('{"id": 5, "method": "market.list", "params": [], "x": ' + "1" * 5000 + "}", None, "not JSON"),
    ("null", None, "null is not an object"),
    ("5", None, "5 is not an object"),
    ('"id"', None, "is not an object"),
    ("{}", None, "id: missing"),
    ('{"method": "market.list", "params": []}', None, "id: missing"),
    ('{"id": null, "method": "market.list", "params": []}', None, "id: null is not an integer"),
    ('{"id": true, "method": "market.list", "params": []}', None, "id: true is not an integer"),
    ('{"id": 1.0, "method": "market.list", "params": []}', None, "id: 1.0 is not an integer"),
    ('{"id": "1", "method": "market.list", "params": []}', None, "id: "),
    ('{"id": [], "method": "market.list", "params": []}', None, "id: an array is not"),
    (f'{{"id": {2**63}, "method": "market.list", "params": []}}', None, "integer of 64 bits"),
    (f'{{"id": {-(2**63) - 1}, "method": "market.list", "params": []}}', None, "of 64 bits"),
    ('{"id": 5, "params": []}', 5, "method: missing"),
    ('{"id": 5, "method": null, "params": []}', 5, "method: null is not a string"),
    ('{"id": 5, "method": 7, "params": []}', 5, "method: 7 is not a string"),
    ('{"id": 5, "method": "market.list"}', 5, "params: missing"),
    ('{"id": 5, "method": "market.list", "params": null}', 5, "params: null is not an array"),
    ('{"id": 5, "method": "market.list", "params": {}}', 5, "params: an object is not an array"),
    ('{"id": 5, "method": "market.list", "params": "[]"}', 5, "params: "),
    ('{"id": 5, "id": 5, "method": "market.list", "params": []}', None, "twice"),
    ('{"id": 5, "id" : 6, "method": "market.list", "params": []}', None, "twice"),
    ('{"id": 5, "method": "x", "\\u006dethod": "market.list", "params": []}', None, "twice"),
    ('{"id": 5, "method": "market.list", "params": [{"a": 1, "a": 1}]}', None, "twice"),
    ('{"id": 5, "method": "market.list", "params": [], "x": 1, "x": 1}', None, "twice"),
    ('{"id": "5", "id": 5, "method": "market.list", "params": []}', None, "twice"),
    ("[" * 40_000, None, "not JSON|nests too deep"),
    ("[" * 100_000, None, "over 50000 objects, arrays and keys"),
    ('{"id": 5, "method": "m", "params": ' + "[" * 3000 + "]" * 3000 + "}", None, "too deep"),
    ('{"id": 5, "method": "m", "params": [' + '{"a":' * 3000 + "1" + "}" * 3000, None, "too deep"),
    ("[]", None, "1..1000 requests expected, 0 given"),
    ("[" + ",".join([GOOD] * 1001) + "]", None, "1..1000 requests expected, 1001 given"),
    ("[1" + ",1" * 1000 + "]", None, "1..1000 requests expected, 1001 given"),
    ('[{"a":1,"a":1}' + ",1" * 1000 + "]", None, "1..1000 requests expected, 1001 given"),
    ('{"more": [' + "{}," * 50_000 + "{}]}", None, "over 50000 objects, arrays and keys"),
    ('{"more": [' + "[]," * 50_000 + "[]]}", None, "over 50000 objects, arrays and keys"),
    ("{" + ",".join(f'"{n}":1' for n in range(50_001)) + "}", None, "arrays and keys"),
]


@pytest.mark.parametrize(("text", "echoed", "message"), NO_REQUESTS, ids=lambda v: repr(v)[:40])
def test_what_is_no_request_is_refused(text: str, echoed: int | None, message: str) -> None:
    async def body() -> None:
        response = await Gateway().post(text.encode())
        reply = response.json()
        assert response.status_code == 400
        assert (reply["result"], reply["id"]) == (None, echoed)
        assert reply["error"]["code"] == 1
        assert reply["error"]["message"].startswith("invalid argument: ")
        assert any(part in reply["error"]["message"] for part in message.split("|"))

    run(body())


@pytest.mark.parametrize(
    "raw", [b"\xff", b'{"id": 5, "method": "\xff", "params": []}', GOOD.encode("utf-16")]
)
def test_what_is_no_utf8_is_refused(raw: bytes) -> None:
    async def body() -> None:
        response = await Gateway().post(raw)
        assert response.status_code == 400
        assert response.json()["error"] == {
            "code": 1,
            "message": "invalid argument: body: not JSON",
        }

    run(body())


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc": "2.0", "id": 5, "method": "market.list", "params": []}',
        '{"params":[],"method":"market.list","id":5}',
        '{"id": 5, "method": "market.l\\u0069st", "params": [], "note": {"a:b": [":", {}]}}',
        f"\n {GOOD} \n",
    ],
)
def test_what_is_more_than_asked_does_no_harm(text: str) -> None:
    async def body() -> None:
        response = await (await opened()).post(text.encode())
        assert (response.status_code, response.json()["id"]) == (200, 5)

    run(body())


@pytest.mark.parametrize("request_id", [0, -1, 2**53, 2**63 - 1, -(2**63)])
def test_any_integer_of_64_bits_is_an_id(request_id: int) -> None:
    async def body() -> None:
        reply = await Gateway().post({"id": request_id, "method": "market.list", "params": []})
        assert reply.json()["id"] == request_id

    run(body())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
PARTS = st.fixed_dictionaries(
    {}, optional={"id": JSON, "method": JSON | st.just("market.list"), "params": JSON}
)


@settings(deadline=None)
@given(JSON | PARTS | st.lists(PARTS | JSON, max_size=3) | st.binary(max_size=40))
def test_every_body_is_parsed_or_refused(value: Any) -> None:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "replace")
    parsed = parse(raw)
    items = parsed if isinstance(parsed, list) else [parsed]
    for item in items:
        if isinstance(item, Broken):
            assert item.refused.reason == Reason.INVALID_ARGUMENT
        else:
            assert isinstance(item, Envelope)
            assert type(item.id) is int


def item(index: int, method: str, *params: Any) -> dict[str, Any]:
    return {"id": index, "method": method, "params": list(params)}


def put(index: int, side: int, price: str, user: int = 1, market: str = MARKET) -> dict[str, Any]:
    return item(index, "order.put_limit", user, market, side, "1", price, "0", "0", "batch")


def test_a_batch_is_answered_in_its_order_whatever_is_in_it() -> None:
    async def body() -> None:
        gateway = await opened()
        batch = [
            put(10, 1, "5"),
            7,
            item(30, "nothing"),
            put(10, 1, "zero"),
            item(50, "market.summary", MARKET),
            {"id": 60},
            item(70, "order.cancel", 1, MARKET),
            item(80, "market.summary", MARKET),
        ]
        response = await gateway.post(batch)
        replies = response.json()
        assert response.status_code == 200
        assert [reply["id"] for reply in replies] == [10, None, 30, 10, 50, 60, 70, 80]
        codes = [reply["error"] and reply["error"]["code"] for reply in replies]
        assert codes == [None, 1, 4, 1, None, 1, None, None]
        assert replies[4]["result"] == [{"name": MARKET, "ask_count": 1, "bid_count": 0}]
        assert replies[6]["result"] == {"status": "success"}
        assert replies[7]["result"] == [{"name": MARKET, "ask_count": 0, "bid_count": 0}]

    run(body())


def test_puts_and_cancels_are_issued_together_and_others_are_barriers() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.post(
            [
                put(1, 1, "5"),
                put(2, 1, "4", market="BTC EOS"),
                item(3, "unknown"),
                item(4, "order.cancel", 1, MARKET),
                item(5, "order.put_market", 1, MARKET, 1, "1", "0", ""),
                item(6, "order.depth", MARKET, 10, "0"),
                item(7, "balance.query", 1, "BTC"),
                put(8, 1, "6"),
                put(9, 2, "6", user=2),
            ]
        )
        asked = gateway.exchange.asked
        kinds = [type(ask) for _, ask in asked]
        together = [kinds[:4], [kinds[4]], [kinds[5]], kinds[6:]]
        assert together == [
            [c.PutLimit, c.PutLimit, c.Cancel, c.PutMarket],
            [m.AskDepth],
            [m.AskAccounts],
            [c.PutLimit, c.PutLimit],
        ]
        turns = [turn for turn, _ in asked]
        assert len({*turns[:4]}) == 1
        assert turns[3] < turns[4] < turns[5] < turns[6] == turns[7]
        prices = [ask.price for _, ask in asked if isinstance(ask, c.PutLimit)]
        assert prices == [5 * 10**8, 4, 6 * 10**8, 6 * 10**8]

    run(body())


def test_a_batch_of_the_largest_size_is_executed() -> None:
    async def body() -> None:
        gateway = await opened()
        replies = (await gateway.post([put(i, 1, str(i + 1)) for i in range(1000)])).json()
        assert [reply["result"]["price"] for reply in replies] == [str(i + 1) for i in range(1000)]
        assert len({turn for turn, _ in gateway.exchange.asked}) == 1

    run(body())


def test_one_mistake_of_ours_spares_the_rest_of_a_batch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[c.PutLimit] = m.Keys([])
        batch = [put(1, 1, "5"), item(2, "order.cancel", 1, MARKET), item(3, "market.list")]
        response = await gateway.post(batch)
        replies = response.json()
        assert response.status_code == 200
        assert [reply["error"] and reply["error"]["code"] for reply in replies] == [2, None, None]
        assert len(caplog.records) == 1

    run(body())


def test_a_lapsed_lease_is_waited_for() -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.lease = False
        assert (await gateway.reply("market.list"))["status"] == 200
        replies = (await gateway.post([put(1, 1, "5"), item(2, "market.list")])).json()
        assert [reply["error"] for reply in replies] == [None, None]

    run(body())


def test_without_a_catalog_nothing_is_executed() -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.lease = gateway.exchange.catalog_reachable = False
        assert (await gateway.refusal("market.list"))[:2] == (503, 3)
        response = await gateway.post([put(1, 1, "5"), item(2, "market.list"), put(3, 1, "6")])
        assert response.status_code == 200
        assert [reply["error"]["code"] for reply in response.json()] == [3, 3, 3]
        assert gateway.exchange.asked == []

    run(body())


def test_a_refusal_in_a_batch_carries_no_status() -> None:
    async def body() -> None:
        gateway = await opened()
        refused = Refused(Reason.SERVICE_TIMEOUT)
        gateway.exchange.answer_with[m.AskDepth] = refused
        response = await gateway.post([item(1, "order.depth", MARKET, 1, "0")])
        assert response.status_code == 200
        assert response.json() == [
            {"error": {"code": 5, "message": "service timeout"}, "result": None, "id": 1}
        ]

    run(body())
