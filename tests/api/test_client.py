"""The client, against the application on a line that loses things."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from api.auth import SKEW_MAX_MS
from api.client import DEADLINE_MAX_S, Client, ExcoreRpcError, NoAnswer
from excore_ray.core import commands as c
from excore_ray.core.messages import Done
from excore_ray.core.reasons import Reason, Refused
from tests.api.fake_exchange import KEYS
from tests.api.gateway_world import MARKET, Gateway, opened

PUT = ("order.put_limit", 1, MARKET, 1, "1", "8000", "0", "0", "")


class Line(httpx.BaseTransport):
    """A synchronous line to a gateway.  faults: what happens to each request, in their order."""

    def __init__(self, gateway: Gateway, faults: list[str]) -> None:
        self.gateway = gateway
        self.faults = list(faults)
        self.sent: list[tuple[bytes, str | None, str | None]] = []
        self.timeouts_s: list[float] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = request.headers
        self.sent.append((request.content, headers.get("SIGN"), headers.get("TIMESTAMP")))
        self.timeouts_s.append(request.extensions["timeout"]["read"])
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "unreachable":
            raise httpx.ConnectError("refused")
        if fault == "busy":
            self.gateway.exchange.answer_with[c.PutLimit] = Refused(Reason.SERVICE_UNAVAILABLE)
        if fault == "renamed":
            rename = c.RenameMarket(bytes(16), 0, MARKET, "new")
            assert self.gateway.exchange.catalog.execute(rename) == Done()
        body = request.content
        reply = asyncio.run(self.gateway.http("POST", "/", body, list(headers.items())))
        self.gateway.exchange.answer_with.clear()
        if fault == "lost":
            raise httpx.ReadTimeout("nothing came back")
        if fault == "timeout":
            return httpx.Response(504, content=_replied(reply, 5))
        if fault == "turned away":
            return httpx.Response(429, content=_replied(reply, 9))
        if fault == "proxy":
            return httpx.Response(502, content=b"<h1>bad gateway</h1>")
        if fault == "mixed up":
            return httpx.Response(200, content=reply.content.replace(b'"id":', b'"id":9'))
        return httpx.Response(reply.status_code, content=reply.content)


def _replied(reply: httpx.Response, code: int) -> bytes:
    error = b'{"code":%d,"message":"service timeout"}' % code
    return b'{"error":%b,"result":null,"id":%d}' % (error, reply.json()["id"])


def orders(line: Line) -> int:
    return line.gateway.exchange.orders


def connected(faults: list[str], auth: bool = True, **settings: Any) -> tuple[Line, Client]:
    gateway = asyncio.run(opened(auth=auth))
    line = Line(gateway, faults)
    credential = ("all", KEYS["all"][0]) if auth else ("", "")
    http = httpx.Client(transport=line)
    return line, Client("http://exchange/", *credential, http=http, **settings)


def test_results_are_what_json_says() -> None:
    _, client = connected([])
    assert client.call("balance.query", 1, "BTC") == {"BTC": {"available": "1000", "freeze": "0"}}
    assert client.call("order.pending_detail", MARKET, 1) is None


def test_a_refusal_is_raised_with_its_code() -> None:
    _, client = connected([])
    with pytest.raises(ExcoreRpcError, match=r'^25: market not found: market: "XYZ"$') as caught:
        client.call("order.depth", "XYZ", 1, "0")
    assert (caught.value.code, caught.value.message[:16]) == (25, "market not found")


def test_a_wrong_secret_is_raised_for_a_batch_too() -> None:
    line, _ = connected([])
    with httpx.Client(transport=line) as http:
        client = Client("http://exchange/", "all", "wrong", http=http)
        for requests in ([("market.list",)], [("market.list",)] * 2):
            with pytest.raises(ExcoreRpcError, match=r"^8: authentication failed$"):
                client.batch(requests)
    assert len(line.sent) == 2


@pytest.mark.parametrize("fault", ["lost", "timeout", "proxy", "mixed up", "unreachable", "busy"])
def test_a_signed_request_is_sent_again_byte_for_byte_and_executed_once(fault: str) -> None:
    line, client = connected([fault, fault])
    order = client.call(*PUT)
    assert order["amount"] == "1"
    assert len(line.sent) == 3
    assert len(set(line.sent)) == 1
    assert line.sent[0][2] is not None
    assert orders(line) == 1


def test_after_a_pause_beyond_the_deadline_the_last_attempt_has_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line, client = connected(["lost"] * 9, deadline_s=0.2)
    sleep = time.sleep
    # A busy machine wakes up whom it wants to, when it wants to.
    monkeypatch.setattr("api.client.time.sleep", lambda pause_s: sleep(pause_s + 0.25))
    with pytest.raises(NoAnswer, match="nothing came back"):
        client.call(*PUT)
    assert len(line.timeouts_s) == 2
    assert min(line.timeouts_s) > 0


@pytest.mark.parametrize("fault", ["lost", "timeout", "proxy", "mixed up"])
def test_without_a_key_an_order_of_unknown_fate_is_not_sent_again(fault: str) -> None:
    line, client = connected([fault], auth=False)
    with pytest.raises((NoAnswer, ExcoreRpcError)) as caught:
        client.call(*PUT)
    assert isinstance(caught.value, ExcoreRpcError) == (fault == "timeout")
    assert len(line.sent) == 1
    assert line.sent[0][1:] == (None, None)
    assert orders(line) == 1


@pytest.mark.parametrize("fault", ["unreachable", "busy"])
def test_without_a_key_what_was_certainly_not_done_is_sent_again(fault: str) -> None:
    line, client = connected([fault], auth=False)
    assert client.call(*PUT)["amount"] == "1"
    assert (len(line.sent), orders(line)) == (2, 1)


@pytest.mark.parametrize("fault", ["lost", "timeout", "proxy", "unreachable"])
def test_without_a_key_a_read_is_sent_again(fault: str) -> None:
    line, client = connected([fault], auth=False)
    assert client.call("market.summary", MARKET)[0]["ask_count"] == 0
    assert len(line.sent) == 2


@pytest.mark.parametrize(
    ("fault", "raised", "message"),
    [
        ("lost", NoAnswer, "ReadTimeout: nothing came back"),
        ("proxy", NoAnswer, "JSON is malformed"),
        ("unreachable", NoAnswer, "ConnectError"),
        ("timeout", ExcoreRpcError, "5: service timeout"),
        ("busy", ExcoreRpcError, "3: service unavailable"),
    ],
)
def test_the_deadline_ends_it(fault: str, raised: type[Exception], message: str) -> None:
    line, client = connected([fault] * 100, deadline_s=0.3)
    with pytest.raises(raised, match=message):
        client.call(*PUT)
    assert 2 <= len(line.sent) < 10


def test_who_is_turned_away_is_told_so() -> None:
    line, client = connected(["turned away"])
    with pytest.raises(ExcoreRpcError, match=r"^9: "):
        client.call(*PUT)
    assert len(line.sent) == 1


@pytest.mark.parametrize("fault", ["lost", "timeout"])
def test_who_is_turned_away_after_a_lost_answer_still_does_not_know(fault: str) -> None:
    line, client = connected([fault, "turned away", "turned away"])
    assert client.call(*PUT)["amount"] == "1"
    assert (len(line.sent), orders(line)) == (4, 1)
    line, client = connected([fault, *["turned away"] * 100], deadline_s=0.3)
    with pytest.raises(NoAnswer, match="9: too many requests"):
        client.call(*PUT)
    assert orders(line) == 1


def test_a_name_that_changed_meanwhile_says_nothing_of_a_lost_attempt() -> None:
    line, client = connected(["lost", "renamed"])
    with pytest.raises(NoAnswer, match=r"^25: .*after no answer$"):
        client.call(*PUT)
    assert (len(line.sent), orders(line)) == (2, 1)
    with pytest.raises(ExcoreRpcError, match=r"^25: "):
        client.call(*PUT)
    # What only reads has no fate that could be unknown; of several, each has its own.
    line.faults = ["lost"]
    with pytest.raises(ExcoreRpcError, match=r"^25: "):
        client.call("order.depth", MARKET, 1, "0")
    line.faults = ["lost"]
    unknown, known = client.batch([PUT, (*PUT[:2], "new", *PUT[3:])])
    assert isinstance(unknown, NoAnswer)
    assert known["market"] == "new"


def test_a_batch_has_results_and_errors_in_its_order() -> None:
    line, client = connected(["lost"])
    placed, refused, counts = client.batch(
        [PUT, ("order.put_limit", 0, *PUT[2:]), ("market.summary", MARKET)]
    )
    assert placed["left"] == "1"
    assert isinstance(refused, ExcoreRpcError)
    assert refused.code == 6
    assert counts == [{"name": MARKET, "ask_count": 1, "bid_count": 0}]
    assert (len(line.sent), orders(line)) == (2, 1)


def test_a_signed_batch_is_sent_again_when_a_part_was_not_done() -> None:
    line, client = connected(["busy"])
    summary, placed = client.batch([("market.summary", MARKET), PUT])
    assert placed["left"] == "1"
    assert summary[0]["ask_count"] == 0
    assert (len(line.sent), orders(line)) == (2, 1)


def test_an_unsigned_batch_is_never_sent_again_in_part() -> None:
    line, client = connected(["busy"], auth=False)
    cancelled, refused = client.batch([("order.cancel", 1, MARKET), PUT])
    assert cancelled == {"status": "success"}
    assert refused.code == 3
    assert len(line.sent) == 1


def test_a_batch_waits_for_the_catalog_as_a_whole() -> None:
    line, client = connected([], deadline_s=0.3)
    exchange = line.gateway.exchange
    exchange.lease = exchange.catalog_reachable = False
    with pytest.raises(ExcoreRpcError, match=r"^3: "):
        client.batch([PUT, PUT])
    assert len(line.sent) >= 2


@pytest.mark.parametrize("deadline_s", [0, -1, 25.1, 60])
def test_a_deadline_beyond_the_life_of_a_signature_is_refused(deadline_s: float) -> None:
    with pytest.raises(ValueError, match="deadline_s"):
        Client("http://exchange/", deadline_s=deadline_s)


def test_an_empty_batch_is_refused_here() -> None:
    _, client = connected([])
    with pytest.raises(ValueError, match="none given"):
        client.batch([])


def test_a_client_closes_the_connection_it_made() -> None:
    with Client("http://127.0.0.1:1/", deadline_s=0.01) as client, pytest.raises(NoAnswer):
        client.call("market.list")


def test_a_signature_outlives_every_deadline() -> None:
    assert 1000 * DEADLINE_MAX_S < SKEW_MAX_MS
