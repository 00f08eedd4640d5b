"""balance.* and asset.* on a naive exchange."""

from __future__ import annotations

import json
from typing import Any

import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from tests.api.fake_exchange import SHARDS
from tests.api.gateway_world import MARKET, opened, run


def test_an_update_is_asked_in_scaled_integers() -> None:
    async def body() -> None:
        gateway = await opened()
        detail = {"b": [1, 2.5, None], "a": "ü\u0000", "id": 10**30}
        params = [7, "EOS", "withdraw", 2**63 - 1, "-1.23459", detail, "force"]
        assert await gateway.ask("balance.update", *params) == {"status": "success"}
        [(_, ask)] = gateway.exchange.asked
        assert isinstance(ask, c.Update)
        assert (ask.user, ask.asset, ask.change, ask.force) == (7, 3, -12345, True)
        assert (ask.business, ask.business_id) == ("withdraw", 2**63 - 1)
        assert json.loads(ask.detail) == detail
        assert list(json.loads(ask.detail)) == ["b", "a", "id"]
        assert ask.net_max == 10**22 // SHARDS
        assert (ask.stamp_ms, len(ask.request_id), ask.repeat) == (0, 16, False)

    run(body())


def test_what_is_shown_is_cut_toward_zero() -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.deposit(5, "EOS", "1.2399", 1)
        balance = await gateway.ask("balance.query", 5, "EOS")
        assert balance == {"EOS": {"available": "1.23", "freeze": "0"}}
        params = [5, "EOS", "fix", 1, "-2.4798", {}, "force"]
        await gateway.ask("balance.update", *params)
        balance = await gateway.ask("balance.query", 5, "EOS")
        assert balance == {"EOS": {"available": "-1.23", "freeze": "0"}}
        [summary] = await gateway.ask("asset.summary", "EOS")
        assert (summary["total_balance"], summary["available_count"]) == ("-1.2399", 1)

    run(body())


def test_all_assets_are_shown_with_zeros_in_order_of_creation() -> None:
    async def body() -> None:
        gateway = await opened()
        nothing = {"available": "0", "freeze": "0"}
        balances = await gateway.ask("balance.query", 4294967295)
        assert list(balances.items()) == [("BTC", nothing), ("BCH", nothing), ("EOS", nothing)]
        balances = await gateway.ask("balance.query", 1)
        assert balances["BTC"]["available"] == "1000"
        assert list(balances) == ["BTC", "BCH", "EOS"]

    run(body())


def test_an_account_in_an_asset_newer_than_the_names_at_hand_is_asked_again() -> None:
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.answer_with[m.AskAccounts] = m.Accounts([m.Account(4, 1, 0)])
        gateway.exchange.answer_with[m.AskAssets] = m.AssetTotals(
            [m.AssetTotal(4, 1, 1, 0, 0, 0, 1, 0)]
        )
        assert (await gateway.refusal("balance.query", 1))[:2] == (503, 3)
        assert (await gateway.refusal("asset.summary"))[:2] == (503, 3)

    run(body())


def test_net_updates_are_bounded_on_each_shard() -> None:
    async def body() -> None:
        gateway = await opened()
        most = 10**18 // SHARDS
        await gateway.deposit(9, "EOS", str(most))
        refusal = await gateway.refusal("balance.update", 9, "EOS", "deposit", 2, "1", {})
        assert refusal[:2] == (400, 1)
        await gateway.deposit(10, "EOS", str(most))

    run(body())


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ([], ["BTC", "BCH", "EOS"]),
        ([None], ["BTC", "BCH", "EOS"]),
        ([[]], ["BTC", "BCH", "EOS"]),
        (["EOS", "BTC"], ["EOS", "BTC"]),
        ([["EOS", "BTC"]], ["EOS", "BTC"]),
        (["BTC", "BTC"], ["BTC"]),
    ],
)
def test_totals_are_over_all_shards(wanted: list[Any], names: list[str]) -> None:
    async def body() -> None:
        gateway = await opened()
        await gateway.deposit(3, "BTC", "0.00000000000000000001")
        params = [1, MARKET, 1, "12.5", "8000", "0", "0", ""]
        await gateway.ask("order.put_limit", *params)
        summaries = await gateway.ask("asset.summary", *wanted)
        assert [summary["name"] for summary in summaries] == names
        assert {
            "name": "BTC",
            "total_balance": "2000.00000000000000000001",
            "available_count": 3,
            "available_balance": "1987.50000000000000000001",
            "freeze_count": 1,
            "freeze_balance": "12.5",
        } in summaries
        fees = await gateway.ask("asset.fees", *wanted)
        assert fees == [{"name": name, "fees": "0"} for name in names]

    run(body())


@pytest.mark.parametrize(
    ("params", "limit", "names"),
    [
        ([], 100, ["BTC", "BCH", "EOS"]),
        ([1], 100, ["BCH", "EOS"]),
        ([1, 1], 1, ["BCH"]),
        ([0, 1000], 1000, ["BTC", "BCH", "EOS"]),
        ([2**63 - 1, 1], 1, []),
    ],
)
def test_assets_are_listed_in_order_of_creation(
    params: list[int], limit: int, names: list[str]
) -> None:
    async def body() -> None:
        gateway = await opened()
        listed = await gateway.ask("asset.list", *params)
        assert (listed["limit"], listed["offset"]) == (limit, params[0] if params else 0)
        assert [record["name"] for record in listed["records"]] == names

    run(body())


def test_an_asset_keeps_its_balances_under_a_new_name() -> None:
    async def body() -> None:
        gateway = await opened()
        assert await gateway.ask("asset.rename", "BTC", "New Coin") == {"status": "success"}
        balances = await gateway.ask("balance.query", 1)
        assert list(balances) == ["New Coin", "BCH", "EOS"]
        assert balances["New Coin"]["available"] == "1000"
        assert (await gateway.refusal("balance.query", 1, "BTC"))[1] == 12
        repeat = [1, "New Coin", "deposit", 1, "1000", {}]
        assert (await gateway.refusal("balance.update", *repeat))[1] == 10
        records = (await gateway.ask("asset.list"))["records"]
        assert records[0] == {"name": "New Coin", "prec": 8}

    run(body())
