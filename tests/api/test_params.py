"""Parameters: every rule of numbers and types, at the wire, and the order of the checks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.gateway_world import MARKET, Gateway, opened, run

LIMIT_ORDER = [1, MARKET, 1, "10", "8000", "0.002", "0.001", "api.v1"]
REFERRED = [1, MARKET, 1, "10", "8000", "0.002", "0.001", 100, "0.003", "api.v1"]
MARKET_ORDER = [1, MARKET, 1, "10", "0.002", "api.v1"]
UPDATE = [1, "BTC", "deposit", 77, "1", {}, "force"]
CHANGES = [1, "BTC", "", 0, 0, 0, 100]
FINISHED = [1, MARKET, 0, 0, 0, 1, 0]
YEAR_10000_S = 253_402_300_800
NO_MOMENTS = [-1, YEAR_10000_S, 2**63, 10**40, True, 0.0, "0", None]

# Raw JSON of a value that is no decimal string.
NO_DECIMALS = [
    *('""', '" 1"', '"1 "', '"1_0"', '"1,0"', '"."', '"+"', '"1.2.3"', '"--1"', '"0x1"'),
    *('"NaN"', '"nan"', '"Infinity"', '"-inf"', '"1e"', '"1e1000"', '"1e1000000"', '"1.e+"'),
    *('"１"', '"1\\u0663"', '"\\u00a01"', '"1\\u0000"', '"1\\n"'),
    *('"1000000000000000000"', '"1e18"', '"1e999"', f'"{"9" * 65}"', f'"{"1" * 100_000}"'),
    *("1", "1.5", "true", "false", "null", "[]", "{}", '["1"]', str(2**63), "1" * 4000),
]

# method, parameters, positions of decimal strings
DECIMALS = [
    ("order.put_limit", LIMIT_ORDER, (3, 4, 5, 6)),
    ("order.put_limit", REFERRED, (8,)),
    ("order.put_market", MARKET_ORDER, (3, 4)),
    ("order.depth", [MARKET, 10, "0"], (2,)),
    ("balance.update", UPDATE, (4,)),
    ("market.add", ["M", "BTC", 8, "BCH", 8, "1", ""], (5,)),
]


def but(params: list[Any], at: int, value: Any) -> list[Any]:
    """`params` with another value at a position."""
    return [*params[:at], value, *params[at + 1 :]]


async def raw(gateway: Gateway, method: str, params: list[Any], at: int, value: str) -> Any:
    """The reply when the parameter at a position is this JSON."""
    texts = [json.dumps(param) for param in params]
    texts[at] = value
    text = f'{{"id": 5, "method": "{method}", "params": [{", ".join(texts)}]}}'
    return (await gateway.post(text.encode())).json()


@pytest.mark.parametrize(
    ("method", "params", "at"),
    [(method, params, at) for method, params, positions in DECIMALS for at in positions],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_decimal_string_is_refused(method: str, params: list[Any], at: int) -> None:
    async def body() -> None:
        gateway = await opened()
        for value in NO_DECIMALS:
            if (method, at, value) == ("order.put_limit", 8, "null"):
                continue  # an absent rate, but then the referrer must be absent too
            reply = await raw(gateway, method, params, at, value)
            assert reply["result"] is None, value
            assert reply["error"]["code"] == 1, value
            assert reply["id"] == 5

    run(body())


@pytest.mark.parametrize(
    ("amount", "used"),
    [
        ("10", "10"),
        ("+10", "10"),
        ("10.", "10"),
        ("+.5", "0.5"),
        ("1e1", "10"),
        ("1E+001", "10"),
        ("1.5e-1", "0.15"),
        ("0.010000000", "0.01"),
        ("1.000000009", "1"),
        ("1.123456789999", "1.12345678"),
        ("00012", "12"),
    ],
)
def test_a_decimal_is_cut_to_its_scale_and_echoed(amount: str, used: str) -> None:
    async def body() -> None:
        gateway = await opened()
        order = await gateway.ask("order.put_limit", 1, MARKET, 1, amount, *LIMIT_ORDER[4:])
        assert (order["amount"], order["left"]) == (used, used)
        assert (await gateway.ask("balance.query", 1, "BTC"))["BTC"]["freeze"] == used

    run(body())


@pytest.mark.parametrize(
    ("at", "value", "field", "used"),
    [
        (4, "8000.123456789", "price", "8000.12345678"),
        (5, "0.99999", "taker_fee", "0.9999"),
        (5, "-0.00009", "taker_fee", "0"),
        (6, "0.00019", "maker_fee", "0.0001"),
        (7, 4294967295, "ref_user", 4294967295),
        (8, "1", "ref_rate", "1"),
        (8, "1.00009", "ref_rate", "1"),
        (9, "ä" * 15, "source", "ä" * 15),
        (9, "", "source", ""),
    ],
)
def test_a_limit_order_echoes_the_values_used(at: int, value: Any, field: str, used: Any) -> None:
    async def body() -> None:
        gateway = await opened()
        order = await gateway.ask("order.put_limit", *but(REFERRED, at, value))
        assert order[field] == used

    run(body())


@pytest.mark.parametrize(
    ("method", "params", "at", "values"),
    [
        ("order.put_limit", LIMIT_ORDER, 3, ["0", "-1", "0.000000009", "-0", "1e-400"]),
        ("order.put_limit", LIMIT_ORDER, 4, ["0", "-8000", "0.000000009"]),
        ("order.put_limit", LIMIT_ORDER, 3, ["125000000000000"]),  # times 8000 is 10^18
        ("order.put_limit", LIMIT_ORDER, 5, ["1", "-0.0001", "1.5"]),
        ("order.put_limit", LIMIT_ORDER, 6, ["1", "-0.0001"]),
        ("order.put_limit", REFERRED, 8, ["1.0001", "-0.0001"]),
        ("order.put_limit", REFERRED, 7, [None]),
        ("order.put_limit", REFERRED, 8, [None]),
        ("order.put_limit", LIMIT_ORDER, 2, [1.0, True, "1", None]),
        ("order.put_limit", LIMIT_ORDER, 1, [1, None, ["BTCBCH"]]),
        ("order.put_limit", LIMIT_ORDER, 7, [1, None, {}]),
        ("order.put_market", MARKET_ORDER, 3, ["0", "-1", "0.000000009"]),
        ("order.put_market", MARKET_ORDER, 4, ["1", "-0.1"]),
        ("order.cancel", [1, MARKET, 1], 2, [0, -1, 2**53, 1.0, True, "1", 10**40]),
        ("order.pending_detail", [MARKET, 1], 1, [0, -1, 2**53, 2**63, 1.0, True, "1", None]),
        ("order.book", [MARKET, 1, 0, 10], 2, [-1, 2**63, 10**40, True, 0.0, "0", None]),
        ("order.book", [MARKET, 1, 0, 10], 3, [0, -1, True, 1.0, "1", None]),
        ("order.depth", [MARKET, 10, "0"], 1, [0, -1, None]),
        ("order.depth", [MARKET, 10, "0"], 2, ["-0.1", "-1e17"]),
        ("order.pending", [1, MARKET, 0, 10], 2, [-1, 2**63, None]),
        ("order.pending_list", [1, 0, 10], 1, [-1, 2**63, None]),
        ("balance.history", CHANGES, 1, [1, True, ["BTC"], {}]),
        ("balance.history", CHANGES, 2, [1, True, [], {}]),
        ("balance.history", CHANGES, 3, NO_MOMENTS),
        ("balance.history", CHANGES, 4, NO_MOMENTS),
        ("balance.history", CHANGES, 5, [-1, 2**63, 10**40, True, 0.0, "0", None]),
        ("balance.history", CHANGES, 6, [0, -1, True, 1.0, "1", None]),
        ("order.deals", [4097, 0, 2], 0, [0, -1, 2**53, 2**63, True, 1.0, "1", None]),
        ("order.deals", [4097, 0, 2], 1, [-1, 2**63, None]),
        ("order.deals", [4097, 0, 2], 2, [0, -1, None]),
        ("order.finished", FINISHED, 1, [1, None, [MARKET]]),
        ("order.finished", FINISHED, 2, NO_MOMENTS),
        ("order.finished", FINISHED, 3, NO_MOMENTS),
        ("order.finished", FINISHED, 4, [-1, 2**63, None]),
        ("order.finished", FINISHED, 5, [0, -1, None]),
        ("order.finished", FINISHED, 6, ["1", True, 1.0, "", []]),
        ("order.finished_detail", [4097], 0, [0, -1, 2**53, 2**63, True, 1.0, "1", None]),
        ("market.last", [MARKET], 0, [1, None, [MARKET]]),
        ("market.deals", [MARKET, 2, 0], 0, [1, None]),
        ("market.deals", [MARKET, 2, 0], 1, [0, -1, True, 1.0, "1", None]),
        ("market.deals", [MARKET, 2, 0], 2, [-1, 2**63, 10**40, True, 0.0, "0", None]),
        ("market.deal_history", [MARKET, 2, 0], 1, [0, -1, True, 1.0, "1", None]),
        ("market.deal_history", [MARKET, 2, 0], 2, [-1, 2**63, 10**40, True, 0.0, "0"]),
        ("market.user_deals", [1, MARKET, 0, 2], 1, [1, True, [MARKET]]),
        ("market.user_deals", [1, MARKET, 0, 2], 2, [-1, 2**63, None]),
        ("market.user_deals", [1, MARKET, 0, 2], 3, [0, -1, None]),
        ("market.kline", [MARKET, 0, 0, 60], 0, [1, True, [MARKET], {}]),
        ("market.kline", [MARKET, 0, 0, 60], 1, NO_MOMENTS),
        ("market.kline", [MARKET, 0, 0, 60], 2, NO_MOMENTS),
        ("market.kline", [MARKET, 0, 0, 60], 3, [True, 60.0, "60", None]),
        ("market.status", [MARKET, 60], 0, [1, None]),
        ("market.status", [MARKET, 60], 1, [0, -1, 604_801, 2**63, 10**40, True, 1.0, None]),
        ("market.status_today", [MARKET], 0, [1, None, [MARKET]]),
        ("asset.list", [0, 10], 0, [-1, 2**63, True, 0.0, "0"]),
        ("asset.list", [0, 10], 1, [0, -1, True, "1"]),
        ("balance.query", [1, "BTC"], 1, [1, True, ["BTC"]]),
        ("balance.update", UPDATE, 1, [1, None]),
        ("balance.update", UPDATE, 2, ["", "x" * 32, "ä" * 16, 1, None]),
        ("balance.update", UPDATE, 3, [0, -1, 2**63, 10**40, 1.0, True, "1", None]),
        ("balance.update", UPDATE, 5, [[], "{}", None, 1]),
        ("balance.update", UPDATE, 5, [{"a": "x" * 4089}, {"a": "ä" * 2045}]),
        ("balance.update", UPDATE, 6, ["Force", "", True, 1]),
        ("asset.summary", ["BTC"], 0, [1, True, {"BTC": 1}, ["BTC", 1], [["BTC"]]]),
        ("market.summary", [MARKET, MARKET], 1, [None, 1, [MARKET]]),
        ("asset.add", ["NEW", 8, 8, ""], 0, [1, None]),
        ("asset.add", ["NEW", 8, 8, ""], 1, [8.0, "8", True, None]),
        ("asset.add", ["NEW", 8, 8, ""], 3, [None, 1, "x" * 1025]),
        ("market.add", ["M", "BTC", 8, "BCH", 8, "1", ""], 0, ["", "x" * 32, "a\tb", None]),
        ("market.add", ["M", "BTC", 8, "BCH", 8, "1", ""], 5, ["0", "-1", "0.000000009"]),
        ("market.add", ["M", "BTC", 8, "BCH", 8, "1", ""], 6, [None, "ä" * 513]),
        ("market.rename", [MARKET, "M"], 1, ["", "x" * 32, None, 1]),
        ("keys.add", [["read"], ""], 0, [[], ["all"], "read", [1], [["read"]], None]),
        ("keys.add", [["read"], ""], 1, [1, "x" * 1025]),
        ("keys.revoke", ["none"], 0, ["none", None, 1]),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(
    method: str, params: list[Any], at: int, values: list[Any]
) -> None:
    async def body() -> None:
        gateway = await opened()
        for value in values:
            status, code, message = await gateway.refusal(method, *but(params, at, value))
            assert (status, code) == (400, 1), value
            assert message.startswith("invalid argument: ")

    run(body())


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("order.put_limit", [1], "market: missing"),
        ("order.pending", ["x" * 50, MARKET, 0, 1], f'user_id: "{"x" * 40}..." is not in 1..4294'),
        ("order.put_limit", LIMIT_ORDER[:7], "source: missing"),
        ("order.put_limit", [*LIMIT_ORDER, 1], "ref_rate"),
        ("order.put_limit", [*REFERRED, None], "params: at most 10 expected, 11 given"),
        ("order.put_market", [*MARKET_ORDER, None], "params: at most 6 expected, 7 given"),
        ("order.cancel", [1, MARKET, 1, 1], "params: at most 3 expected, 4 given"),
        ("asset.list", [0, 1, 2], "params: at most 2 expected, 3 given"),
        ("keys.list", [1], "params: at most 0 expected, 1 given"),
        ("order.put_limit", [1, MARKET, 1, 10, *LIMIT_ORDER[4:]], "amount: 10 is not a string"),
        ("order.put_limit", [1, MARKET, 1, None, *LIMIT_ORDER[4:]], "amount: null is not a string"),
        ("order.put_limit", [1, MARKET, 1, {}, *LIMIT_ORDER[4:]], "amount: an object is not a str"),
        ("order.put_limit", [1, MARKET, 1, "1z", *LIMIT_ORDER[4:]], 'amount: "1z" is not a decim'),
        ("asset.list", [-1], "offset: -1 is not in 0..2^63-1"),
        ("asset.list", [10**50], f"offset: 1{'0' * 39}... is not in 0..2^63-1"),
        ("balance.history", CHANGES[:6], "limit: missing"),
        ("balance.history", but(CHANGES, 3, -1), "start_time: -1 is no second of the years 1970"),
        ("balance.history", but(CHANGES, 4, -1), "end_time: -1 is no second of the years 1970"),
        ("balance.history", but(CHANGES, 6, 0), "limit: 0 is below 1"),
        ("balance.history", but(CHANGES, 6, 101), "limit: 101 is above 100"),
        ("order.deals", [2**53, 0, 1], "order_id: 9007199254740992 is not in 1..2^53-1"),
        ("order.finished", [*FINISHED, 1], "params: at most 7 expected, 8 given"),
        ("order.finished", but(FINISHED, 6, 3), "side: 3 is neither 1 nor 2"),
        ("market.deals", [MARKET, 1], "last_id: missing"),
        ("market.deals", [MARKET, 1001, 0], "limit: 1001 is above 1000"),
        ("market.deals", [MARKET, 1, 2**63], "last_id: 9223372036854775808 is not in 0..2^63-1"),
        ("market.kline", [MARKET, 0, 0, 7], "interval: 7 divides no minute, hour or day, and is"),
        ("market.kline", [MARKET, -1, 0, 60], "start: -1 is no second of the years 1970 to 9999"),
        ("market.kline", [MARKET, 0, -1, 60], "end: -1 is no second of the years 1970 to 9999"),
        ("market.kline", [], "start: missing"),
        ("market.status", [MARKET, 0], "period: 0 is not in 1..604800"),
        ("market.status", ["x" * 50, 1], f'market: "{"x" * 40}..."'),
        ("keys.add", [["read", "write"]], 'scopes: "write" is none of read, trade, admin'),
    ],
)
def test_a_refusal_names_the_parameter_and_the_value(
    method: str, params: list[Any], message: str
) -> None:
    async def body() -> None:
        gateway = await opened()
        assert message in (await gateway.refusal(method, *params))[2]

    run(body())


# Each row is one fault more than the row above it, and the newest decides: the order of checks.
LIMIT_LADDER: list[tuple[int, int, Any]] = [
    # code, position, value
    (11, 3, "100000"),
    (21, 3, "0.0001"),
    (27, 9, "x" * 31),
    (1, 8, "2"),
    (1, 6, "2"),
    (1, 5, "2"),
    (1, 4, "-1"),
    (1, 3, "-1"),
    (26, 2, 3),
    (25, 1, "XYZ"),
    (6, 7, 0),
    (6, 0, 0),
    (1, 9, None),
]
LADDERS = [
    ("order.put_limit", REFERRED, LIMIT_LADDER),
    (
        "order.put_market",
        MARKET_ORDER,
        [
            (22, 3, "0.0001"),
            (11, 3, "100000"),
            (27, 5, "x" * 31),
            (1, 4, "2"),
            (1, 3, "-1"),
            (26, 2, 3),
            (25, 1, "XYZ"),
            (6, 0, 0),
            (1, 5, 1),
        ],
    ),
    ("order.cancel", [1, MARKET, 4097], [(23, 2, 4097), (25, 1, "XYZ"), (6, 0, 0), (1, 2, 0)]),
    (
        "balance.update",
        [1, "BTC", "deposit", 2, "1", {}],
        [(11, 4, "-9999"), (10, 3, 1), (12, 1, "XYZ"), (6, 0, 0), (1, 4, "x")],
    ),
    ("order.book", [MARKET, 1, 0, 10], [(27, 3, 101), (1, 2, -1), (26, 1, 3), (25, 0, "XYZ")]),
    (
        "market.add",
        ["M", "BTC", 8, "BCH", 8, "1", ""],
        [(7, 0, MARKET), (42, 2, 17), (41, 1, "XYZ"), (1, 0, "")],
    ),
    ("asset.add", ["NEW", 8, 8, ""], [(7, 0, "BTC"), (42, 1, 7), (13, 0, ""), (1, 3, 1)]),
    (
        "balance.history",
        CHANGES,
        [(27, 6, 101), (1, 5, -1), (1, 3, -1), (12, 1, "XYZ"), (6, 0, 0), (1, 2, 1)],
    ),
    ("order.deals", [4097, 0, 1], [(27, 2, 101), (1, 1, -1), (1, 0, "1")]),
    (
        "order.finished",
        FINISHED,
        [(27, 5, 101), (1, 3, -1), (26, 6, 3), (25, 1, "XYZ"), (6, 0, 0), (1, 4, "0")],
    ),
    (
        "market.user_deals",
        [1, MARKET, 0, 1],
        [(27, 3, 101), (1, 2, -1), (43, 1, "XYZ"), (6, 0, 0), (1, 2, None)],
    ),
    ("market.deals", [MARKET, 1, 0], [(1, 2, -1), (27, 1, 1001), (43, 0, "XYZ"), (1, 2, "0")]),
    ("market.kline", [MARKET, 0, 0, 60], [(1, 3, 7), (43, 0, "XYZ"), (1, 1, None)]),
    ("market.status", [MARKET, 60], [(1, 1, 0), (43, 0, "XYZ"), (1, 1, None)]),
]


@pytest.mark.parametrize(("method", "params", "ladder"), LADDERS)
def test_checks_stand_in_their_order(
    method: str, params: list[Any], ladder: list[tuple[int, int, Any]]
) -> None:
    async def body() -> None:
        gateway = await opened()
        faulty = list(params)
        for code, at, value in ladder:
            faulty[at] = value
            refusal = await gateway.refusal(method, *faulty)
            assert refusal[1] == code, (faulty, refusal)

    run(body())
    assert ladder


def test_an_absent_optional_parameter_is_as_null() -> None:
    async def body() -> None:
        gateway = await opened()
        assert await gateway.ask("balance.query", 1) == await gateway.ask("balance.query", 1, None)
        assert await gateway.ask("asset.list") == await gateway.ask("asset.list", None, None)
        assert await gateway.ask("asset.list", 1) == await gateway.ask("asset.list", 1, 100)
        assert await gateway.ask("asset.summary") == await gateway.ask("asset.summary", None)
        assert await gateway.ask("asset.summary") == await gateway.ask("asset.summary", [])
        unreferred = [*LIMIT_ORDER[:7], None, None, "api.v1"]
        orders = [
            await gateway.ask("order.put_limit", *params) for params in (LIMIT_ORDER, unreferred)
        ]
        for order in orders:
            assert (order.pop("ref_user"), order.pop("ref_rate")) == (0, "0")
            del order["id"], order["ctime"], order["mtime"]
        assert orders[0] == orders[1]
        await gateway.ask("order.cancel", 1, MARKET, None)
        assert await gateway.ask("order.pending_detail", MARKET, 4097) is None
        await gateway.ask("balance.update", *UPDATE[:6], None)

    run(body())


@pytest.mark.parametrize(
    ("levels", "accepted"), [(1, True), (32, True), (33, False), (500, False), (900, False)]
)
def test_a_detail_nests_only_so_deep(levels: int, accepted: bool) -> None:
    detail: Any = {}
    for _ in range(levels - 1):
        detail = {"a": detail}

    async def body() -> None:
        gateway = await opened()
        reply = await gateway.reply("balance.update", 1, "BTC", "deposit", 2, "1", detail)
        assert (reply["error"] is None) == accepted

    run(body())
