"""market.*, keys.* and exchange.* on a naive exchange."""

from __future__ import annotations

import json
from typing import Any

import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.reasons import Reason, Refused
from tests.api.fake_exchange import SHARDS
from tests.api.gateway_world import MARKET, now_ms, opened, run, signed

OTHER = "BTC EOS"


def test_a_new_market_is_asked_for_in_scaled_integers() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.ask("market.add", "New one", "BCH", 3, "BTC", 5, "0.00199", "ü")
        [(_, ask)] = gateway.exchange.asked
        assert isinstance(ask, c.AddMarket)
        assert (ask.name, ask.stock, ask.money, ask.notes) == ("New one", "BCH", "BTC", "ü")
        assert (ask.stock_prec, ask.money_prec, ask.min_amount) == (3, 5, 1)
        records = (await gateway.ask("market.list", 2, 1))["records"]
        assert records == [
            {
                "name": "New one",
                "stock": "BCH",
                "money_prec": 5,
                "stock_prec": 3,
                "min_amount": "0.001",
                "money": "BTC",
            }
        ]

    run(body())


def test_a_market_keeps_its_book_under_a_new_name() -> None:
    async def body() -> None:
        gateway = await opened()
        params = [1, MARKET, 1, "1", "5", "0", "0", ""]
        order = await gateway.ask("order.put_limit", *params)
        await gateway.ask("market.rename", MARKET, "BTC-BCH")
        assert (await gateway.refusal("order.put_limit", *params))[1] == 25
        assert (await gateway.refusal("market.summary", MARKET))[1] == 43
        [shown] = (await gateway.ask("order.book", "BTC-BCH", 1, 0, 1))["orders"]
        assert (shown["id"], shown["market"]) == (order["id"], "BTC-BCH")
        records = (await gateway.ask("market.list"))["records"]
        assert [record["name"] for record in records] == ["BTC-BCH", OTHER]

    run(body())


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ([], [MARKET, OTHER]),
        ([[]], [MARKET, OTHER]),
        ([OTHER], [OTHER]),
        ([OTHER, MARKET, OTHER], [OTHER, MARKET]),
        ([[OTHER, MARKET]], [OTHER, MARKET]),
    ],
)
def test_orders_are_counted_in_all_markets_at_once(wanted: list[Any], names: list[str]) -> None:
    async def body() -> None:
        gateway = await opened()
        for market, side, price in (
            (OTHER, 1, "6"),
            (MARKET, 1, "6"),
            (MARKET, 1, "7"),
            (MARKET, 2, "5"),
        ):
            await gateway.ask("order.put_limit", 1, market, side, "1", price, "0", "0", "")
        gateway.exchange.asked.clear()
        counts = {row["name"]: row for row in await gateway.ask("market.summary", *wanted)}
        assert list(counts) == names
        assert counts[OTHER] == {"name": OTHER, "ask_count": 1, "bid_count": 0}
        if MARKET in names:
            assert counts[MARKET] == {"name": MARKET, "ask_count": 2, "bid_count": 1}
        assert len({turn for turn, _ in gateway.exchange.asked}) == 1

    run(body())


def test_a_key_is_made_listed_used_and_revoked() -> None:
    async def body() -> None:
        gateway = await opened()
        made = await gateway.ask("keys.add", ["trade", "read"], "of a test")
        again = await gateway.ask("keys.add", ["read"])
        assert list(made) == ["key", "secret"]
        assert (len(made["key"]), len(made["secret"])) == (32, 64)
        assert len({made["key"], made["secret"], again["key"], again["secret"]}) == 4
        view = {
            "key": made["key"],
            "scopes": ["read", "trade"],
            "notes": "of a test",
            "revoked": False,
        }
        assert (await gateway.ask("keys.list"))[-2] == view
        assert made["secret"] not in json.dumps(await gateway.ask("keys.list"))
        assert await gateway.ask("keys.revoke", made["key"]) == {"status": "success"}
        assert (await gateway.ask("keys.list"))[-2] == view | {"revoked": True}
        assert (await gateway.refusal("keys.revoke", made["key"]))[:2] == (400, 1)

    run(body())


def test_a_lost_new_key_is_not_made_up_again() -> None:
    async def body() -> None:
        gateway = await opened(auth=True)
        raw = json.dumps({"id": 1, "method": "keys.add", "params": [["read"]]}).encode()
        headers = signed(raw, stamp=str(now_ms()))
        first = (await gateway.http("POST", "/", raw, headers)).json()
        assert first["result"]["key"] in {view.key for view in gateway.exchange.catalog.key_views()}
        second = await gateway.http("POST", "/", raw, headers)
        assert second.status_code == 409
        assert second.json()["error"]["code"] == 7
        assert len(gateway.exchange.catalog.keys) == 5

    run(body())


def test_the_status_of_every_actor_is_shown() -> None:
    async def body() -> None:
        gateway = await opened()
        status = await gateway.ask("exchange.status")
        assert list(status) == ["catalog", "archive", "markets", "shards"]
        assert status["catalog"] == {
            "stream": "catalog",
            "epoch": 1,
            "next_seq": 7,
            "facts": {"assets": 3},
            "texts": {},
        }
        assert status["archive"]["stream"] == "archive"
        assert status["archive"]["facts"] == {"rows": 4}
        assert [market["name"] for market in status["markets"]] == [MARKET, OTHER]
        assert [shard["stream"] for shard in status["shards"]] == [
            f"ledger-{shard}" for shard in range(SHARDS)
        ]

    run(body())


def test_an_actor_that_is_silent_shows_its_error() -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[m.AskStatus] = Refused(Reason.SERVICE_TIMEOUT, "10 s")
        error = {"code": 5, "message": "service timeout: 10 s"}
        status = await gateway.ask("exchange.status")
        assert status["catalog"] == {"stream": "catalog", "error": error}
        assert status["archive"] == {"stream": "archive", "error": error}
        assert status["markets"][0] == {"name": MARKET, "stream": "market-1", "error": error}
        assert status["shards"] == [
            {"stream": f"ledger-{shard}", "error": error} for shard in range(SHARDS)
        ]

    run(body())
