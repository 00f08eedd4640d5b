"""Defects to plant into the rows of a naive exchange, and what checks must say of each.

Separate because the tests of checks are about lakes, and these about single rows.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from itertools import pairwise
from typing import Any

from tests.analytics.naive_exchange import Row, Told, spans

FLUSHES = 2
MINUTE_US = 60_000_000
EXACT = Context(prec=80)


# The kinds of findings, as (check, what).
ID_TWICE = ("deal_ids", "a deal is there more than once")
ID_GAP = ("deal_ids", "deals are missing")
TIME_BACK = ("deal_times", "a deal is older than the one before")
MONEY_OFF = ("deal_money", "deal is not price * amount")
ORDER_TWICE = ("orders", "an order is there more than once")
ORDER_LEFT = ("orders", "left is not amount less what was dealt")
ORDER_SIDE = ("orders", "a deal has another user or side than its order")
ORDER_SUMS = ("orders", "the sums are not those of its deals")
ROW_TWICE = ("postings", "a row is there more than once")
ROW_MISSING = ("postings", "a row is missing")
ROW_STRAY = ("postings", "a row is there without such a deal")
ROW_OFF = ("postings", "a row says otherwise than its deal")
CHAIN_START = ("chain", "an account does not start from 0")
CHAIN_BREAK = ("chain", "a balance is not the one before and the change")
CHAIN_SHARD = ("chain", "a user is in more than one shard")
SUM_HELD = ("sums", "held + fees is not updates + before + open")
SUM_SETTLED = ("sums", "what was paid is not what was received")
BAR_MISSING = ("bars", "a minute with deals has no bar")
BAR_STRAY = ("bars", "a minute without deals has a bar")
BAR_OFF = ("bars", "a bar is not that of its deals")
DEFINITION = ("definitions", "the manifest does not define it")


def middle(rows: list[Row], **wanted: object) -> Row:
    """One of the rows in the first half that has all these values; ... for any but None."""
    fitting = [
        row
        for row in rows
        if all(
            row.get(name) is not None if value is ... else row.get(name) == value
            for name, value in wanted.items()
        )
    ]
    return fitting[len(fitting) // 4]


def another_flush(told: Told, table: str, part: int, row: Row) -> None:
    """The row once more, in a file of other entries: no file takes a row twice."""
    kind = "balances" if table == "balances" else "deals"
    first, last = spans(told.last_seq(kind, part), FLUSHES)
    seq = last[1] if first[0] <= row["seq"] <= first[1] else first[1]
    told.tables[table][part].append({**row, "seq": seq})


def trade(told: Told, part: int = 0, **wanted: object) -> Row:
    """A row of a deal in a shard, whose account goes on after it."""
    rows = told.tables["balances"][part]
    found = middle(rows, market=1, business="trade", **wanted)
    assert newest(told, found) is not found
    return found


def newest(told: Told, row: Row) -> Row:
    """The newest row of the row's account."""
    account = [
        each
        for each in told.all("balances")
        if (each["user"], each["asset"]) == (row["user"], row["asset"])
    ]
    return account[-1]


Plant = Callable[[Told], None]


def drop_a_deal(told: Told) -> None:
    rows = told.tables["deals"][1]
    rows.remove(middle(rows))


def drop_the_first_deal(told: Told) -> None:
    """As if older deals were gone; but their minute says that they were there."""
    del told.tables["deals"][1][0]


def double_a_deal(told: Told) -> None:
    another_flush(told, "deals", 1, middle(told.tables["deals"][1]))


def skip_an_id(told: Told) -> None:
    """The ids after a deal are one higher, wherever they are written."""
    after = middle(told.tables["deals"][1])["deal_id"]
    for row in [*told.tables["deals"][1], *told.tables["balances"][0], *told.tables["balances"][1]]:
        if row.get("market", 1) == 1 and (row.get("deal_id") or 0) > after:
            row["deal_id"] += 1
    for row in told.tables["bars"][1]:
        for name in ("first_deal_id", "last_deal_id"):
            row[name] += row[name] > after


def turn_time_back(told: Told) -> None:
    """A deal is earlier than the one before it in the same minute."""
    rows = told.tables["deals"][1]
    one, two = next(
        (a, b)
        for a, b in pairwise(rows)
        if a["time"] < b["time"] and a["time"] // MINUTE_US == b["time"] // MINUTE_US
    )
    one["time"], two["time"] = two["time"], one["time"]


def change_money(told: Told) -> None:
    middle(told.tables["deals"][1])["deal"] += Decimal("0.00000000000000000001")


def change_fee(told: Told) -> None:
    row = middle(told.tables["deals"][1], taker_fee=Decimal(0))
    row["taker_fee"] += Decimal("0.0001")


def change_deal_user(told: Told) -> None:
    finished = {row["order_id"] for row in told.tables["orders"][1] if row["deal_stock"]}
    rows = [row for row in told.tables["deals"][1] if row["maker_order_id"] in finished]
    middle(rows)["maker_user"] += 100


def change_order_sum(name: str) -> Plant:
    def plant(told: Told) -> None:
        middle(told.tables["orders"][1])[name] += Decimal("0.00000000000000000001")

    return plant


def change_left(told: Told) -> None:
    middle(told.tables["orders"][1])["left"] += 1


def change_order_side(told: Told) -> None:
    row = middle(told.tables["orders"][1], type=1)
    row["side"] = 3 - row["side"]


def double_an_order(told: Told) -> None:
    another_flush(told, "orders", 1, middle(told.tables["orders"][1]))


def drop_a_row(**wanted: Any) -> Plant:
    def plant(told: Told) -> None:
        told.tables["balances"][0].remove(trade(told, **wanted))

    return plant


def drop_a_share(told: Told) -> None:
    finished = {row["order_id"] for row in told.tables["orders"][1]}
    rows = told.tables["balances"][0]
    shares = [row for row in rows if row["business"] == "ref" and row.get("order_id") in finished]
    rows.remove(middle(shares, market=1))


def double_a_row(told: Told) -> None:
    row = trade(told, fee_rate=None)
    told.tables["balances"][0].append({**row, "step": row["step"] + 1_000_000})


def change_a_row(name: str, by: Any, **wanted: Any) -> Plant:
    def plant(told: Told) -> None:
        trade(told, **wanted)[name] += by

    return plant


def change_a_share(told: Told) -> None:
    """Of an order that is finished, so that its rate is known; consistently from there on."""
    finished = {row["order_id"] for row in told.tables["orders"][1]}
    rows = [row for row in told.tables["balances"][0] if row.get("order_id") in finished]
    change_onwards(told, middle(rows, business="ref", market=1))


def change_an_open_share(told: Told) -> None:
    """Of an order nobody knows, to more than the fee was."""
    known = told.tables["orders"][1]
    share = middle(told.tables["balances"][0], business="ref", market=1)
    known[:] = [row for row in known if row["order_id"] != share["order_id"]]
    change_onwards(told, share, Decimal(10**12))


def change_onwards(told: Told, row: Row, by: Decimal = Decimal("0.0001")) -> None:
    """The change of a row, and all balances from it on."""
    row["change"] = EXACT.add(row["change"], by)
    for each in told.tables["balances"][0]:
        same = (each["user"], each["asset"]) == (row["user"], row["asset"])
        if same and (each["seq"], each["step"]) >= (row["seq"], row["step"]):
            each["balance"] = EXACT.add(each["balance"], by)


def change_a_received_row_onwards(told: Told) -> None:
    rows = [row for row in told.tables["balances"][0] if row["change"] > 0]
    change_onwards(told, middle(rows, market=1, business="trade"))


def drop_an_update(told: Told) -> None:
    rows = told.tables["balances"][0]
    updates = [row for row in rows if "market" not in row and newest(told, row) is not row]
    before = {(row["user"], row["asset"]) for row in rows if row["seq"] < updates[-1]["seq"]}
    assert (updates[-1]["user"], updates[-1]["asset"]) in before
    rows.remove(updates[-1])


def drop_the_first_row(told: Told) -> None:
    rows = told.tables["balances"][0]
    assert newest(told, rows[0]) is not rows[0]
    del rows[0]


def change_the_newest_balance(told: Told) -> None:
    newest(told, trade(told))["balance"] += 1


def make_a_balance_impossible(told: Told) -> None:
    """Further from its change than the type can hold."""
    row = trade(told)
    row["change"], row["balance"] = Decimal(-(10**18) + 1), Decimal(10**18) - 1


def move_a_user(told: Told) -> None:
    """An update of one user comes in another shard."""
    last = told.last_seq("balances", 1)
    zero = {"user": 2, "asset": 2, "change": Decimal(0), "balance": Decimal(0), "time": 0}
    at = told.tables["balances"][1][-1]["time"]
    told.tables["balances"][1].append({**zero, "time": at, "seq": last, "step": 10**6})


def add_a_row_without_a_deal(told: Told) -> None:
    row = trade(told)
    extra = {**row, "order_id": 4097 * 4096 + 1, "change": Decimal(0), "step": row["step"] + 10**6}
    rows = told.tables["balances"][0]
    account = [each for each in rows if each["user"] == row["user"]]
    same = [each for each in account if each["asset"] == row["asset"]]
    extra["balance"] = [each for each in same if each["seq"] == row["seq"]][-1]["balance"]
    rows.append(extra)


def drop_a_bar(told: Told) -> None:
    rows = told.tables["bars"][1]
    [alone] = [middle(rows)]
    told.tables["bars"][1] = [row for row in rows if row["minute"] != alone["minute"]]


def add_a_bar(told: Told) -> None:
    row = middle(told.tables["bars"][1])
    free = {"minute": told.tables["deals"][1][-1]["time"] + 3_600_000_000}
    told.tables["bars"][1].append({**row, **free, "seq": told.last_seq("deals", 1)})


def change_a_bar(name: str) -> Plant:
    def plant(told: Told) -> None:
        middle(told.tables["bars"][1])[name] += 1

    return plant


PLANTED: list[tuple[str, Plant, set[tuple[str, str]]]] = [
    ("a deal dropped", drop_a_deal, {ID_GAP, ORDER_SUMS, ROW_STRAY, BAR_OFF}),
    ("the first deal dropped", drop_the_first_deal, {BAR_OFF}),
    ("a deal doubled", double_a_deal, {ID_TWICE, ORDER_SUMS, BAR_OFF}),
    ("an id skipped", skip_an_id, {ID_GAP}),
    ("time turned back", turn_time_back, {TIME_BACK}),
    ("money changed", change_money, {MONEY_OFF, ORDER_SUMS, ROW_OFF, BAR_OFF}),
    ("a fee changed", change_fee, {ORDER_SUMS, ROW_MISSING}),
    ("a deal's user changed", change_deal_user, {ORDER_SIDE, ROW_OFF}),
    ("deal_stock changed", change_order_sum("deal_stock"), {ORDER_LEFT}),
    ("deal_fee changed", change_order_sum("deal_fee"), {ORDER_SUMS}),
    ("left changed", change_left, {ORDER_LEFT}),
    ("an order's side changed", change_order_side, {ORDER_SIDE}),
    ("an order doubled", double_an_order, {ORDER_TWICE}),
    ("a row dropped", drop_a_row(fee_rate=None), {ROW_MISSING, CHAIN_BREAK, SUM_SETTLED}),
    ("a fee row dropped", drop_a_row(fee_rate=...), {ROW_MISSING, CHAIN_BREAK, SUM_HELD}),
    ("a share dropped", drop_a_share, {ROW_MISSING, CHAIN_BREAK, SUM_HELD}),
    ("a row doubled", double_a_row, {ROW_TWICE, CHAIN_BREAK, SUM_SETTLED}),
    (
        "a change changed",
        change_a_row("change", 1, fee_rate=None),
        {ROW_OFF, CHAIN_BREAK, SUM_SETTLED},
    ),
    ("a row's price changed", change_a_row("price", 1), {ROW_OFF}),
    ("a row's amount changed", change_a_row("amount", 1), {ROW_OFF}),
    ("a fee's rate changed", change_a_row("fee_rate", Decimal("0.5"), fee_rate=...), {ROW_OFF}),
    ("a share changed", change_a_share, {ROW_OFF}),
    ("the share of an open order changed", change_an_open_share, {ROW_OFF}),
    ("too much received", change_a_received_row_onwards, {ROW_OFF, SUM_SETTLED, SUM_HELD}),
    ("a row without a deal", add_a_row_without_a_deal, {ROW_STRAY}),
    ("an update dropped", drop_an_update, {CHAIN_BREAK, SUM_HELD}),
    ("the first row dropped", drop_the_first_row, {CHAIN_START}),
    ("the newest balance changed", change_the_newest_balance, {CHAIN_BREAK, SUM_HELD}),
    ("a user in two shards", move_a_user, {CHAIN_SHARD}),
    ("a bar dropped", drop_a_bar, {BAR_MISSING}),
    ("a bar too many", add_a_bar, {BAR_STRAY}),
    *(
        (f"a bar's {name} changed", change_a_bar(name), {BAR_OFF})
        for name in "open close high low volume amount deals first_deal_id last_deal_id".split()
    ),
]
