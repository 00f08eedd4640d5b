"""Every code of the reference's error table, reached through the application."""

from __future__ import annotations

from typing import Any

import pytest

from api.app import create_app
from api.replies import ERROR_KINDS
from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core import questions as q
from excore_ray.core.names import Names
from excore_ray.core.reasons import Reason, Refused
from tests.api.fake_exchange import FakeExchange
from tests.api.gateway_world import MARKET, Auth, Gateway, opened, run

BIG = 2**32
UNAVAILABLE = Refused(Reason.SERVICE_UNAVAILABLE, "market 1 is silent")
TIMEOUT = Refused(Reason.SERVICE_TIMEOUT, "no answer after 10 s")
BUSY = Refused(Reason.TOO_MANY_REQUESTS, "100 a second")

LIMIT_ORDER = [1, MARKET, 1, "10", "8000", "0.002", "0.001", "api.v1"]
MARKET_ORDER = [1, MARKET, 1, "10", "0.002", "api.v1"]
UPDATE = [1, "BTC", "deposit", 77, "1", {}]
CHANGES = [1, "BTC", "", 0, 0, 0, 100]
FINISHED = [1, MARKET, 0, 0, 0, 1, 0]


def but(params: list[Any], **changes: Any) -> list[Any]:
    """`params` with other values at some positions: p0=..., p3=..."""
    changed = list(params)
    for position, value in changes.items():
        changed[int(position[1:])] = value
    return changed


# HTTP status, code, words, method, params
TABLE = [
    (400, 1, "invalid argument", "order.put_limit", but(LIMIT_ORDER, p3=10)),
    (404, 4, "method not found", "order.put", LIMIT_ORDER),
    (404, 4, "method not found", "", []),
    (404, 4, "method not found", "__init__", []),
    (400, 6, "invalid user_id", "order.put_limit", but(LIMIT_ORDER, p0=0)),
    (400, 6, "invalid user_id", "order.put_limit", but(LIMIT_ORDER, p0=BIG)),
    (400, 6, "invalid user_id", "order.put_limit", but(LIMIT_ORDER, p0="1")),
    (400, 6, "invalid user_id", "order.put_limit", but(LIMIT_ORDER, p0=True)),
    (400, 6, "invalid user_id", "order.put_limit", but(LIMIT_ORDER, p0=1.0)),
    (400, 6, "invalid user_id", "order.put_limit", but(LIMIT_ORDER, p0=None)),
    (400, 6, "invalid user_id", "order.put_limit", [*LIMIT_ORDER[:7], 0, "0.1", ""]),
    (400, 6, "invalid user_id", "order.put_market", but(MARKET_ORDER, p0=-1)),
    (400, 6, "invalid user_id", "order.cancel", [0, MARKET]),
    (400, 6, "invalid user_id", "order.pending", [[], MARKET, 0, 1]),
    (400, 6, "invalid user_id", "order.pending_list", [0, 0, 1]),
    (400, 6, "invalid user_id", "balance.query", [0]),
    (400, 6, "invalid user_id", "balance.update", but(UPDATE, p0={})),
    (400, 6, "invalid user_id", "balance.history", but(CHANGES, p0=0)),
    (400, 6, "invalid user_id", "order.finished", but(FINISHED, p0="1")),
    (400, 6, "invalid user_id", "market.user_deals", [BIG, MARKET, 0, 1]),
    (409, 7, "exist yet", "asset.add", ["BTC", 20, 10, ""]),
    (409, 7, "exist yet", "asset.rename", ["BTC", "BCH"]),
    (409, 7, "exist yet", "market.add", [MARKET, "BTC", 8, "BCH", 8, "1", ""]),
    (409, 7, "exist yet", "market.rename", [MARKET, "BTC EOS"]),
    (409, 10, "repeat update", "balance.update", [1, "BTC", "deposit", 1, "1", {}]),
    (400, 11, "balance not enough", "balance.update", but(UPDATE, p4="-1000.1")),
    (400, 11, "balance not enough", "order.put_limit", but(LIMIT_ORDER, p3="1000.1")),
    (400, 11, "balance not enough", "order.put_limit", but(LIMIT_ORDER, p2=2, p4="100001")),
    (400, 11, "balance not enough", "order.put_market", but(MARKET_ORDER, p3="1000.1")),
    (400, 11, "balance not enough", "order.put_market", but(MARKET_ORDER, p2=2, p3="1e7")),
    (404, 12, "asset not found", "balance.query", [1, "XYZ"]),
    (404, 12, "asset not found", "balance.update", but(UPDATE, p1="btc")),
    (404, 12, "asset not found", "balance.history", but(CHANGES, p1="XYZ")),
    (404, 12, "asset not found", "asset.summary", ["BTC", "XYZ"]),
    (404, 12, "asset not found", "asset.fees", [["XYZ"]]),
    (404, 12, "asset not found", "asset.rename", ["XYZ", "ABC"]),
    (400, 13, "invalid asset", "asset.add", ["", 20, 10, ""]),
    (400, 13, "invalid asset", "asset.add", ["x" * 16, 20, 10, ""]),
    (400, 13, "invalid asset", "asset.add", ["ä" * 8, 20, 10, ""]),
    (400, 13, "invalid asset", "asset.rename", ["BTC", ""]),
    (400, 13, "invalid asset", "asset.summary", [""]),
    (400, 13, "invalid asset", "balance.query", [1, "x" * 16]),
    (400, 13, "invalid asset", "balance.history", but(CHANGES, p1="x" * 16)),
    (400, 13, "invalid asset", "balance.history", but(CHANGES, p1="a\tb")),
    (400, 21, "amount too small", "order.put_limit", but(LIMIT_ORDER, p3="0.00099")),
    (400, 22, "no enough trader", "order.put_market", MARKET_ORDER),
    (404, 23, "order not found", "order.cancel", [1, MARKET, 4097]),
    (404, 25, "market not found", "order.put_limit", but(LIMIT_ORDER, p1="XYZ")),
    (404, 25, "market not found", "order.put_market", but(MARKET_ORDER, p1="btcbch")),
    (404, 25, "market not found", "order.cancel", [1, "", 1]),
    (404, 25, "market not found", "order.book", ["XYZ", 1, 0, 10]),
    (404, 25, "market not found", "order.depth", ["XYZ", 10, "0"]),
    (404, 25, "market not found", "order.pending", [1, "XYZ", 0, 10]),
    (404, 25, "market not found", "order.pending_detail", ["XYZ", 1]),
    (404, 25, "market not found", "order.finished", but(FINISHED, p1="XYZ")),
    (404, 25, "market not found", "order.finished", but(FINISHED, p1="")),
    (400, 26, "invalid side", "order.put_limit", but(LIMIT_ORDER, p2=0)),
    (400, 26, "invalid side", "order.put_limit", but(LIMIT_ORDER, p2=3)),
    (400, 26, "invalid side", "order.put_market", but(MARKET_ORDER, p2=-1)),
    (400, 26, "invalid side", "order.book", [MARKET, 3, 0, 10]),
    (400, 26, "invalid side", "order.finished", but(FINISHED, p6=3)),
    (400, 26, "invalid side", "order.finished", but(FINISHED, p6=-1)),
    (400, 26, "invalid side", "order.finished", but(FINISHED, p6=10**30)),
    (400, 27, "source too long", "order.put_limit", but(LIMIT_ORDER, p7="x" * 31)),
    (400, 27, "source too long", "order.put_limit", but(LIMIT_ORDER, p7="ä" * 16)),
    (400, 27, "source too long", "order.put_market", but(MARKET_ORDER, p5="x" * 31)),
    (400, 27, "limit too big", "order.book", [MARKET, 1, 0, 101]),
    (400, 27, "limit too big", "order.depth", [MARKET, 101, "0"]),
    (400, 27, "limit too big", "order.pending", [1, MARKET, 0, 101]),
    (400, 27, "limit too big", "order.pending_list", [1, 0, 101]),
    (400, 27, "limit too big", "balance.history", but(CHANGES, p6=101)),
    (400, 27, "limit too big", "order.deals", [1, 0, 101]),
    (400, 27, "limit too big", "order.finished", but(FINISHED, p5=101)),
    (400, 27, "limit too big", "market.user_deals", [1, MARKET, 0, 101]),
    (400, 27, "limit too big", "market.deals", [MARKET, 1001, 0]),
    (400, 27, "limit too big", "market.deal_history", [MARKET, 10**30]),
    (400, 27, "limit too big", "asset.list", [0, 1001]),
    (400, 27, "limit too big", "market.list", [0, 10**30]),
    (404, 41, "asset not found", "market.add", ["M", "XYZ", 8, "BCH", 8, "1", ""]),
    (404, 41, "asset not found", "market.add", ["M", "BTC", 8, "XYZ", 8, "1", ""]),
    (404, 41, "asset not found", "market.add", ["M", "BTC", 8, "BTC", 8, "1", ""]),
    (400, 42, "invalid precision", "market.add", ["M", "BTC", 17, "BCH", 3, "1", ""]),
    (400, 42, "invalid precision", "market.add", ["M", "BTC", 11, "BCH", 10, "1", ""]),
    (400, 42, "invalid precision", "market.add", ["M", "BTC", -1, "BCH", 8, "1", ""]),
    (400, 42, "invalid precision", "market.add", ["M", "BTC", 10**30, "BCH", 8, "1", ""]),
    (400, 42, "invalid precision", "asset.add", ["NEW", 21, 10, ""]),
    (400, 42, "invalid precision", "asset.add", ["NEW", 8, 9, ""]),
    (400, 42, "invalid precision", "asset.add", ["NEW", 8, -1, ""]),
    (404, 43, "market not found", "market.summary", ["XYZ"]),
    (404, 43, "market not found", "market.rename", ["XYZ", "ABC"]),
    (404, 43, "market not found", "market.last", ["XYZ"]),
    (404, 43, "market not found", "market.deals", ["XYZ", 1, 0]),
    (404, 43, "market not found", "market.deal_history", ["", 1]),
    (404, 43, "market not found", "market.user_deals", [1, "btcbch", 0, 1]),
    (404, 43, "market not found", "market.kline", ["XYZ", 0, 0, 60]),
    (404, 43, "market not found", "market.kline", ["", 0, 0, 60]),
    (404, 43, "market not found", "market.status", ["XYZ", 60]),
    (404, 43, "market not found", "market.status_today", ["XYZ"]),
]

# what the exchange is made to answer, then as above
MADE = [
    (c.PutLimit, UNAVAILABLE, 503, 3, "service unavailable: market 1 is silent"),
    (c.PutLimit, TIMEOUT, 504, 5, "service timeout: no answer after 10 s"),
    (c.PutLimit, BUSY, 429, 9, "too many requests: 100 a second"),
    (c.PutLimit, Refused(Reason.SERVICE_UNAVAILABLE), 503, 3, "service unavailable"),
]

BY_OTHERS = {8: "test_auth.py", 2: "below", 24: "below"}


@pytest.mark.parametrize(("status", "code", "words", "method", "params"), TABLE)
def test_a_request_is_refused(
    status: int, code: int, words: str, method: str, params: list[Any]
) -> None:
    async def body() -> None:
        gateway = await opened()
        refusal = await gateway.refusal(method, *params)
        assert refusal[:2] == (status, code)
        assert refusal[2].startswith(f"{words}: ")
        assert len(refusal[2]) < 250

    run(body())


@pytest.mark.parametrize(("kind", "answer", "status", "code", "message"), MADE)
def test_a_refusal_of_the_exchange_arrives(
    kind: type, answer: m.Answer, status: int, code: int, message: str
) -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[kind] = answer
        assert await gateway.refusal("order.put_limit", *LIMIT_ORDER) == (status, code, message)

    run(body())


def test_another_users_order_is_not_cancelled() -> None:
    async def body() -> None:
        gateway = await opened()
        order = await gateway.ask("order.put_limit", *LIMIT_ORDER)
        status, code, message = await gateway.refusal("order.cancel", 2, MARKET, order["id"])
        assert (status, code) == (403, 24)
        assert message == f"user not match: order_id {order['id']}"

    run(body())


def test_a_market_order_below_the_minimum_is_refused_in_its_turn() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.ask("order.put_limit", *LIMIT_ORDER)
        small_buy = but(MARKET_ORDER, p0=2, p2=2, p3="7.99999999")
        assert (await gateway.refusal("order.put_market", *small_buy))[:2] == (400, 21)
        assert await gateway.ask("order.put_market", *but(small_buy, p3="8"))

    run(body())


@pytest.mark.parametrize(
    "method", ["order.put_limit", "order.book", "market.summary", "market.last"]
)
def test_our_own_mistake_says_nothing_but_where_it_is_logged(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    nonsense = m.Keys([])
    params = {
        "order.put_limit": LIMIT_ORDER,
        "order.book": [MARKET, 1, 0, 10],
        "market.last": [MARKET],
    }.get(method, [])

    async def body() -> None:
        gateway = await opened()
        for kind in (c.PutLimit, m.AskBook, m.AskCounts, q.AskPrice):
            gateway.exchange.answer_with[kind] = nonsense
        status, code, message = await gateway.refusal(method, *params)
        assert (status, code) == (500, 2)
        words, reference = message.split(": reference ")
        assert words == "internal error"
        [record] = caplog.records
        assert reference in record.getMessage()
        assert record.exc_info is not None
        assert "Keys" in str(record.exc_info[1])

    run(body())


class Faulty(FakeExchange):
    """An exchange whose façade itself is broken."""

    @property
    def names(self) -> Names | None:
        raise ZeroDivisionError


def test_a_fault_outside_any_method_is_an_internal_error_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        gateway = Gateway()
        gateway.app = create_app(Faulty(), Auth(True))
        response = await gateway.post({"id": 1, "method": "market.list", "params": []})
        assert response.status_code == 500
        assert response.json()["error"]["code"] == 2
        assert len(caplog.records) == 1

    run(body())


def test_every_code_of_the_table_is_reached() -> None:
    reached = {code for _, code, *_ in TABLE} | {made[3] for made in MADE} | set(BY_OTHERS)
    assert reached == {kind.code for kind in ERROR_KINDS.values()}
    assert set(ERROR_KINDS) == set(Reason)
