"""Public order flow through the gateway: thousands of requests with known answers.

The exchange behind it is the naive one, so this proves the gateway's part: what goes in, and how
it is told; and that the naive exchange may be trusted by the other tests.
"""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.api.gateway_world import Gateway, run

FLOWS = Path(__file__).parents[1] / "vectors" / "rpc"
NAMES = ["bme_ana_first3000", "mebw_normal_s23_n2000", "mebw_swing-25_s23_n2000"]


async def world_of(final: dict[str, Any]) -> Gateway:
    """A gateway with the flow's market and every user's first money."""
    gateway = Gateway()
    stock, money = final["stock"], final["money"]
    for asset in (stock, money):
        await gateway.ask("asset.add", asset, 20, 20, "")
    await gateway.ask("market.add", final["market"], stock, 8, money, 8, "0.00000001", "")
    batch = [
        {
            "id": user,
            "method": "balance.update",
            "params": [user, asset, "deposit", 1, amount, {}],
        }
        for user in final["users"]
        for asset, amount in (
            (stock, final["initial"]["stock"]),
            (money, final["initial"]["money"]),
        )
    ]
    replies = (await gateway.post(batch)).json()
    assert all(reply["error"] is None for reply in replies)
    return gateway


def check(line: dict[str, Any], reply: dict[str, Any]) -> None:
    """That a reply is what the flow expects."""
    expected = line["x"]
    if expected == "ok":
        assert reply["error"] is None, (line, reply)
    elif "error" in expected:
        assert reply["error"]["code"] == expected["error"], (line, reply)
    else:
        assert reply["error"] is None, (line, reply)
        for field, value in expected.items():
            assert Decimal(reply["result"][field]) == Decimal(value), (line, reply)


async def play(gateway: Gateway, name: str) -> None:
    """Send the flow's requests one after the other, many to a batch."""
    ids: dict[int, int] = {}
    with gzip.open(FLOWS / f"{name}.jsonl.gz") as flow:
        lines = [json.loads(text) for text in flow]
    while lines:
        batch: list[dict[str, Any]] = []
        fresh: set[int] = set()
        for line in lines[:1000]:
            params = list(line["p"])
            refers = [at for at, p in enumerate(params) if str(p).startswith("$id:")]
            wanted = [int(params[at].removeprefix("$id:")) for at in refers]
            if fresh.intersection(wanted):
                break  # the id it needs is in the reply to this batch
            for at, ref in zip(refers, wanted, strict=True):
                params[at] = ids[ref]
            if line["m"] == "order.put_limit":
                fresh.add(line["ref"])
            batch.append({"id": line["ref"], "method": line["m"], "params": params})
        replies = (await gateway.post(batch)).json()
        for line, reply in zip(lines, replies, strict=False):
            check(line, reply)
            if line["m"] == "order.put_limit":
                ids[line["ref"]] = reply["result"]["id"]
        lines = lines[len(batch) :]


@pytest.mark.parametrize("name", NAMES)
def test_a_flow_is_answered_as_known(name: str) -> None:
    async def body() -> None:
        final = json.loads((FLOWS / f"{name}.final.json").read_text())
        gateway = await world_of(final)
        await play(gateway, name)
        for user, balances in final["balances"].items():
            got = await gateway.ask("balance.query", int(user))
            for asset, parts in balances.items():
                for part, value in parts.items():
                    assert Decimal(got[asset][part]) == Decimal(value), (user, asset)
        fees = {row["name"]: Decimal(row["fees"]) for row in await gateway.ask("asset.fees")}
        assert fees == {asset: Decimal(fee) for asset, fee in final["fees"].items()}
        [counts] = await gateway.ask("market.summary")
        assert (counts["ask_count"], counts["bid_count"]) == (
            final["ask_count"],
            final["bid_count"],
        )
        depth = await gateway.ask("order.depth", final["market"], 100, "0")
        for side, levels in final["depth"].items():
            got = [[Decimal(n) for n in level] for level in depth[side]]
            assert got[: len(levels)] == [[Decimal(n) for n in level] for level in levels][:100]

    run(body())
