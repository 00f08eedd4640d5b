"""The examples of the reference document: field names, their order, and their types.

Each example is the document's, with its slips mended (comments and a missing comma in JSON,
coins renamed to those of the tests).  Values are compared only where this world gives the same.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from api.methods import METHODS
from tests.api.gateway_world import MARKET, Gateway, opened, run

PLACED = """{"id": 2287706, "market": "BTCBCH", "source": "api.v1", "type": 1, "side": 1, "user": 1,
  "ctime": 1515760692.8521471, "mtime": 1515760692.8521471, "price": "8000", "amount": "10",
  "taker_fee": "0.002", "maker_fee": "0.001", "left": "10", "deal_stock": "0", "deal_money": "0",
  "deal_fee": "0", "ref_user": 100, "ref_rate": "0.003"}"""
OPEN = """{"id": 997201, "market": "BTCBCH", "type": 1, "side": 1, "user": 1,
  "ctime": 1515684147.9555719, "mtime": 1515684147.9555719, "price": "1.749", "amount": "1.49",
  "taker_fee": "0.002", "maker_fee": "0.001", "left": "1.49", "deal_stock": "0",
  "deal_money": "0", "deal_fee": "0", "ref_user": 100, "ref_rate": "0.003"}"""
DONE = """{"id": 2287711, "ctime": 1515761485.7350211, "ftime": 1515761485.7361529, "user": 1,
  "market": "BTCBCH", "source": "api.v1", "type": 2, "side": 1, "price": "0", "amount": "10",
  "taker_fee": "0.002", "maker_fee": "0", "deal_stock": "10", "deal_money": "11.743",
  "deal_fee": "0.023486", "ref_user": 100, "ref_rate": "0.003"}"""
CHANGE = """{"offset": 0, "limit": 2, "records": [{"time": 1518074034.9090531, "asset": "BTC",
  "business": "trade", "change": "-0.00611473", "balance": "10106854.1032393852063269",
  "detail": {"a": "243.32395341", "id": 3065562, "m": "INK_BTC", "p": "0.00002513"}}]}"""
FEE = """{"offset": 0, "limit": 2, "records": [{"time": 1518074034.9090531, "asset": "BTC",
  "business": "trade", "change": "-0.00001223", "balance": "10106854.1093541161555202",
  "detail": {"a": "243.32395341", "f": "0.002", "id": 4841326, "m": "INK_BTC",
             "p": "0.00002513"}}]}"""
SUCCESS = '{"status": "success"}'

# method, params of the request, the document's result
EXAMPLES: list[tuple[str, list[Any], str]] = [
    (
        "balance.query",
        [1, "BTC"],
        '{"BTC": {"available": "213833174.077851", "freeze": "30715.848"}}',
    ),
    ("balance.update", [1, "BCH", "deposit", 100, "1.2344", {}, "force"], SUCCESS),
    ("balance.history", [1, "BTC", "", 0, 0, 0, 100], CHANGE),
    ("balance.history", [1, "BCH", "trade", 0, 0, 0, 2], FEE),
    (
        "asset.list",
        [0, 10],
        """{"limit": 2, "offset": 0,
            "records": [{"name": "EOS", "prec": 12}, {"name": "BOT", "prec": 12}]}""",
    ),
    (
        "asset.summary",
        ["BCH"],
        """[{"name": "BCH", "total_balance": "200000017554.982918264899", "available_count": 1000,
             "available_balance": "199999643377.321244264899", "freeze_count": 32,
             "freeze_balance": "374177.661674"}]""",
    ),
    ("asset.add", ["BOS", 20, 10, "coin2"], SUCCESS),
    ("asset.rename", ["EOS", "EOS2"], SUCCESS),
    (
        "order.put_limit",
        [1, MARKET, 1, "10", "8000", "0.002", "0.001", 100, "0.003", "api.v1"],
        PLACED,
    ),
    ("order.put_market", [1, MARKET, 1, "10", "0.002", "api.v1"], PLACED),
    ("order.cancel", [1, MARKET, 4097], SUCCESS),
    (
        "order.book",
        [MARKET, 1, 0, 2],
        f'{{"offset": 0, "limit": 2, "total": 138577, "orders": [{OPEN}]}}',
    ),
    (
        "order.depth",
        [MARKET, 2, "0.01"],
        """{"asks": [["1.52", "1.151"], ["1.53", "1.218"]],
            "bids": [["1.17", "201.863"], ["1.16", "725.464"]]}""",
    ),
    (
        "order.pending_list",
        [1, 0, 10],
        '{"limit": 10, "offset": 2, "markets": [{"name": "TNT_ETH", "total": 15245}]}',
    ),
    (
        "order.pending",
        [1, MARKET, 0, 1],
        f'{{"limit": 1, "offset": 0, "total": 20286, "records": [{OPEN}]}}',
    ),
    ("order.pending_detail", [MARKET, 4097], OPEN),
    (
        "order.deals",
        [8193, 0, 2],
        """{"offset": 0, "limit": 2, "records": [{"id": 6012385, "time": 1523465898.0, "user": 10,
            "role": 1, "amount": "1.9887", "price": "2.445", "deal": "0", "fee": "0.002",
            "deal_order_id": 342915}]}""",
    ),
    (
        "order.finished",
        [1, MARKET, 0, 0, 0, 1, 0],
        f'{{"offset": 0, "limit": 1, "records": [{DONE}]}}',
    ),
    ("order.finished_detail", [12289], DONE),
    ("market.last", [MARKET], '{"price": "1.51580000", "change": "-12.34"}'),
    (
        "market.deals",
        [MARKET, 2, 0],
        """[{"id": 702002, "time": 1515683644.721833, "price": "1.5158", "amount": "0.007",
             "type": "buy"}]""",
    ),
    (
        "market.deal_history",
        [MARKET, 2, 0],
        """{"records": [{"time": 1521710930.0876901, "id": 1191087, "side": 2, "price": "1.349",
                         "amount": "0.924", "market": "coin1_coin2"}]}""",
    ),
    (
        "market.user_deals",
        [2, MARKET, 0, 2],
        """{"offset": 0, "limit": 2, "records": [{"time": 1518098569.2785561, "user": 1,
            "id": 2386562, "market": "DPY_USDT", "side": 2, "role": 1, "price": "1.411",
            "amount": "107.48675095", "deal": "151.66380559045", "fee": "0.2149735019",
            "deal_order_id": 5470216}]}""",
    ),
    (
        "market.kline",
        [MARKET, 1515719030, 1515760800, 600],
        """[[1515718800, "1.5158", "1.5158", "1.5158", "1.5158", "0", "0", "BTCBCH"]]""",
    ),
    (
        "market.status",
        [MARKET, 86400],
        """{"period": 3600, "last": "1.5158", "open": "0", "close": "0", "high": "0", "low": "0",
            "volume": "0", "deal": "0"}""",
    ),
    (
        "market.status_today",
        [MARKET],
        """{"open": "1.5158", "last": "1.5158", "high": "1.5158", "low": "1.5158",
            "volume": "137644.352", "deal": "192825.661284256"}""",
    ),
    (
        "market.list",
        [0, 20],
        """{"limit": 2, "offset": 0, "records": [{"name": "COIN1_COIN2", "stock": "COIN1",
            "money_prec": 8, "stock_prec": 8, "min_amount": "0.001", "money": "COIN2"}]}""",
    ),
    (
        "market.summary",
        [MARKET],
        '[{"name": "BTCBCH", "ask_count": 138575, "bid_count": 31146}]',
    ),
    ("market.add", ["BTC_coin1", "BTC", 8, "BCH", 8, "0.001", "BTC_coin1"], SUCCESS),
    ("market.rename", [MARKET, "BTC_coin1 new"], SUCCESS),
]
OURS = {"asset.fees", "keys.add", "keys.list", "keys.revoke", "exchange.audit", "exchange.status"}


def shape(value: Any) -> Any:
    """Field names in order, and types, of a JSON value.

    Of an array of records or of rows those of the first; a row is told item by item.
    """
    if isinstance(value, dict):
        return [(name, shape(inner)) for name, inner in value.items()]
    if isinstance(value, list):
        is_row = bool(value) and not isinstance(value[0], dict | list)
        return [shape(inner) for inner in (value if is_row else value[:1])]
    return type(value).__name__


async def filled() -> Gateway:
    """A world in which every example has something to show."""
    gateway = await opened()
    sell = [1, MARKET, 1, "2", "9000", "0.002", "0.001", "api.v1"]
    await gateway.ask("order.put_limit", *sell)
    await gateway.ask("order.put_limit", 2, MARKET, 2, "20", "1.5", "0.002", "0.001", "api.v1")
    await gateway.ask("order.put_market", 1, MARKET, 1, "10", "0.002", "api.v1")
    return gateway


@pytest.mark.parametrize(("method", "params", "example"), EXAMPLES)
def test_a_reply_has_the_shape_of_the_document(
    method: str, params: list[Any], example: str
) -> None:
    async def body() -> None:
        gateway = await filled()
        assert shape(await gateway.ask(method, *params)) == shape(json.loads(example))

    run(body())


def test_every_method_of_the_document_has_its_example() -> None:
    assert {method for method, *_ in EXAMPLES} == METHODS.keys() - OURS


def test_the_documents_limit_order_is_answered_as_there() -> None:
    async def body() -> None:
        gateway = await filled()
        params = [1, MARKET, 1, "10", "8000", "0.002", "0.001", 100, "0.003", "api.v1"]
        order = await gateway.ask("order.put_limit", *params)
        example = json.loads(PLACED)
        for varying in ("id", "ctime", "mtime"):
            del order[varying], example[varying]
        assert order == example

    run(body())


def test_the_documents_market_order_pays_the_documents_fee() -> None:
    # deal_money 11.7433988 * 0.002 = deal_fee 0.0234867976
    async def body() -> None:
        gateway = await opened()
        buy = [2, MARKET, 2, "10", "1.17433988", "0.002", "0.001", "api.v1"]
        await gateway.ask("order.put_limit", *buy)
        order = await gateway.ask("order.put_market", 1, MARKET, 1, "10", "0.002", "api.v1")
        shown = {name: order[name] for name in ("type", "price", "amount", "maker_fee", "left")}
        assert shown == {"type": 2, "price": "0", "amount": "10", "maker_fee": "0", "left": "0"}
        dealt = [order[name] for name in ("deal_stock", "deal_money", "deal_fee")]
        assert dealt == ["10", "11.7433988", "0.0234867976"]

    run(body())


def test_the_documents_partly_filled_maker_is_shown_as_there() -> None:
    # 0.007 * 1.5158 = 0.0106106, of which 0.001 is the fee
    async def body() -> None:
        gateway = await opened()
        sell = [1, MARKET, 1, "1.158", "1.5158", "0.002", "0.001", 100, "0.0003", "api.v1"]
        await gateway.ask("order.put_limit", *sell)
        await gateway.ask("order.put_market", 2, MARKET, 2, "0.0106106", "0.002", "")
        [order] = (await gateway.ask("order.book", MARKET, 1, 0, 1))["orders"]
        names = ("price", "amount", "left", "deal_stock", "deal_money", "deal_fee", "ref_rate")
        expected = ["1.5158", "1.158", "1.151", "0.007", "0.0106106", "0.0000106106", "0.0003"]
        assert [order[name] for name in names] == expected

    run(body())


def test_the_documents_deals_are_told_as_there() -> None:
    # A market that was last dealt in at 1.5158, long before the first bucket that is asked for.
    async def body() -> None:
        gateway = await opened()
        gateway.exchange.time_us = 1_515_683_644_721_623
        for amount, price in (("1.014", "1.5014"), ("0.007", "1.5158")):
            await gateway.ask("order.put_limit", 1, MARKET, 1, amount, price, "0", "0", "")
            await gateway.ask("order.put_limit", 2, MARKET, 2, amount, price, "0", "0", "")
        newer, older = await gateway.ask("market.deals", MARKET, 2, 0)
        assert newer | {"time": 0} == {
            "id": 2,
            "time": 0,
            "price": "1.5158",
            "amount": "0.007",
            "type": "buy",
        }
        assert older["time"] == 1515683644.721625
        gateway.exchange.time_us = 1_515_760_000_000_000
        assert (await gateway.ask("market.last", MARKET))["price"] == "1.51580000"
        rows = await gateway.ask("market.kline", MARKET, 1515719030, 1515759030, 600)
        still = ["1.5158"] * 4 + ["0", "0", MARKET]
        assert rows == [[at_s, *still] for at_s in range(1515718800, 1515759031, 600)]
        assert await gateway.ask("market.status", MARKET, 3600) == {
            "period": 3600,
            "last": "1.5158",
            **dict.fromkeys(("open", "close", "high", "low", "volume", "deal"), "0"),
        }

    run(body())


def test_a_change_goes_by_the_documents_arithmetic() -> None:
    # 243.32395341 * 0.00002513 = 0.0061147309491933 is received, and 0.002 of it is the fee.
    async def body() -> None:
        gateway = await opened()
        amount, price = "243.32395341", "0.00002513"
        await gateway.ask("order.put_limit", 2, MARKET, 2, amount, price, "0", "0", "")
        await gateway.ask("order.put_limit", 1, MARKET, 1, amount, price, "0.002", "0", "")
        page = await gateway.ask("balance.history", 1, "BCH", "trade", 0, 0, 0, 100)
        fee, received = page["records"]
        assert received["change"] == "0.0061147309491933"
        assert fee["change"] == "-0.0000122294618983866"
        assert fee["balance"] == "1000000.0061025014872949134"
        detail = {"a": amount, "f": "0.002", "id": 8193, "m": MARKET, "p": price}
        assert fee["detail"] == detail
        del detail["f"]
        assert received["detail"] == detail

    run(body())


def test_times_have_microseconds_and_no_more() -> None:
    async def body() -> None:
        gateway = await filled()
        gateway.exchange.time_us = 1_515_760_692_847_214
        response = await gateway.post(
            {
                "id": 1,
                "method": "order.put_limit",
                "params": [1, MARKET, 1, "1", "9000", "0", "0", ""],
            }
        )
        assert '"ctime":1515760692.847215,"mtime":1515760692.847215,' in response.text

    run(body())
