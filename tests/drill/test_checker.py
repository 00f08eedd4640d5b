"""The checker of drills: silent about a history in which nothing is wrong, and about nothing else.

Each planted violation is one thing that an exchange could do wrong under faults.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from excore_ray.drill.history import DONE, REFUSED, UNKNOWN, Operation
from excore_ray.drill.verdict import SLACK_US
from excore_ray.storage.memory import MemoryDisk
from tests.drill.world import BUYER, MARKET, SELLER, Scene, told

PUT, CANCEL, UPDATE = "order.put_limit", "order.cancel", "balance.update"
QUERY, PENDING = "balance.query", "order.pending"
Told = tuple[list[Operation], dict[str, MemoryDisk]]


@pytest.fixture(scope="module")
def story() -> Told:
    return told()


@pytest.fixture
def scene(story: Told) -> Scene:
    return Scene(*story)


def test_the_story_is_worth_checking(scene: Scene) -> None:
    assert len(scene.journals.markets[1].deals) == 3
    assert [o.code for o in scene.of(PUT, REFUSED)] == [11]
    assert [o.code for o in scene.of(CANCEL, REFUSED)] == [23]
    assert len(scene.of(PUT)) == 5
    assert [bool(o.request_id) for o in scene.of(CANCEL)] == [False, True]
    assert len(scene.of(QUERY)) == 6


def test_nothing_is_found_where_nothing_is_wrong(scene: Scene) -> None:
    assert scene.violations() == []


def test_an_unknown_outcome_may_have_been_executed_or_not(scene: Scene) -> None:
    for operation in (scene.of(PUT)[3], scene.of(CANCEL)[0], scene.of(UPDATE)[-1]):
        operation.outcome, operation.result = UNKNOWN, None
    never = copy.deepcopy(scene.of(PUT)[0])
    never.number, never.request_id, never.outcome = 9_999, "00" * 16, UNKNOWN
    scene.operations.append(never)
    assert scene.violations() == []


# What is planted, and the promise that is broken by it.
PLANTED: list[tuple[str, str, Callable[[Scene], Any]]] = []


def planted(promise: str) -> Callable[[Callable[[Scene], Any]], Callable[[Scene], Any]]:
    def note(plant: Callable[[Scene], Any]) -> Callable[[Scene], Any]:
        PLANTED.append((promise, plant.__name__, plant))
        return plant

    return note


@planted("lost")
def an_acknowledged_order_is_in_no_journal(scene: Scene) -> None:
    market = scene.journals.markets[1]
    source = scene.of(PUT)[1].source
    market.executed = [each for each in market.executed if _source(each) != source]


@planted("lost")
def an_acknowledged_update_is_in_no_journal(scene: Scene) -> None:
    scene.journals.ledgers[1].executed.pop()


@planted("lost")
def an_acknowledged_cancel_is_in_no_journal(scene: Scene) -> None:
    scene.journals.markets[1].executed.pop()


@planted("lost")
def an_acknowledged_rename_is_in_no_journal(scene: Scene) -> None:
    scene.journals.catalog.executed.pop()


@planted("doubled")
def an_order_is_executed_twice(scene: Scene) -> None:
    executed = scene.journals.markets[1].executed
    executed.append(executed[0]._replace(place=len(executed)))


@planted("doubled")
def an_order_of_unknown_fate_is_executed_twice(scene: Scene) -> None:
    scene.of(PUT)[0].outcome = UNKNOWN
    executed = scene.journals.markets[1].executed
    executed.append(executed[0]._replace(place=len(executed)))


@planted("doubled")
def an_update_is_executed_twice(scene: Scene) -> None:
    executed = scene.journals.ledgers[0].executed
    executed.append(executed[0]._replace(place=len(executed)))


@planted("doubled")
def a_cancel_without_a_stamp_is_executed_twice(scene: Scene) -> None:
    market = scene.journals.markets[1]
    [cancel] = [e for e in market.executed if getattr(e.command, "order_id", 0) and not _source(e)]
    market.executed.append(cancel._replace(place=len(market.executed)))


@planted("refused")
def a_refused_order_is_executed(scene: Scene) -> None:
    scene.of(PUT)[2].outcome = REFUSED


@planted("refused")
def a_refused_update_is_executed(scene: Scene) -> None:
    scene.of(UPDATE)[2].outcome = REFUSED


@planted("altered")
def an_order_was_answered_otherwise(scene: Scene) -> None:
    scene.of(PUT)[3].result["deal_fee"] = "0.1"


@planted("altered")
def an_order_got_another_id(scene: Scene) -> None:
    scene.of(PUT)[3].result["id"] += 4096


@planted("altered")
def another_amount_was_executed(scene: Scene) -> None:
    scene.of(PUT)[0].params[3] = "2.5"


@planted("altered")
def another_change_was_executed(scene: Scene) -> None:
    scene.of(UPDATE)[0].params[4] = "999"


@planted("altered")
def an_order_was_executed_under_another_id(scene: Scene) -> None:
    scene.of(PUT)[0].request_id = "ff" * 16


@planted("unasked")
def an_order_that_nobody_asked_for_is_executed(scene: Scene) -> None:
    scene.operations.remove(scene.of(PUT)[0])


@planted("unasked")
def an_update_that_nobody_asked_for_is_executed(scene: Scene) -> None:
    scene.operations.remove(scene.of(UPDATE)[0])


@planted("order")
def two_orders_are_executed_against_the_order_of_time(scene: Scene) -> None:
    first, second = scene.of(PUT)[:2]
    first.began_us, first.ended_us = second.ended_us + 1, second.ended_us + 2


@planted("order")
def an_order_of_unknown_fate_was_executed_before_it_was_asked(scene: Scene) -> None:
    first, second = scene.of(PUT)[:2]
    first.began_us, first.outcome = second.ended_us + 1, UNKNOWN


@planted("internal")
def a_client_is_told_of_an_internal_error(scene: Scene) -> None:
    scene.of(PUT, REFUSED)[0].code = 2


@planted("balance")
def a_balance_is_wrong(scene: Scene) -> None:
    scene.of(QUERY)[-1].result["USD"]["available"] += "1"


@planted("balance")
def a_balance_misses_a_write_of_its_reader(scene: Scene) -> None:
    queries = scene.of(QUERY)
    queries[1].result = queries[0].result


@planted("balance")
def a_balance_is_older_than_its_reading(scene: Scene) -> None:
    late = scene.of(QUERY)[-2]
    scene.add(late, QUERY, late.params, scene.of(QUERY)[2].result)


@planted("balance")
def a_balance_mixes_two_moments(scene: Scene) -> None:
    before, after = (o.result for o in scene.of(QUERY) if o.params[0] == BUYER)
    after["USD"] = before["USD"]


@planted("balance")
def a_balance_shows_what_comes_later(scene: Scene) -> None:
    early, late = scene.of(QUERY)[1], scene.of(QUERY)[-2]
    assert early.params == late.params == [SELLER]
    early.began_us -= 10 * SLACK_US
    early.ended_us -= 10 * SLACK_US
    early.result = late.result


@planted("pending")
def a_filled_order_is_open(scene: Scene) -> None:
    early, late = [o for o in scene.of(PENDING) if o.params[0] == BUYER][-2:]
    late.result = early.result


@planted("pending")
def an_open_order_shows_another_rest(scene: Scene) -> None:
    scene.of(PENDING)[0].result["records"][0]["left"] = "1.5"


@planted("pending")
def an_open_order_is_missing(scene: Scene) -> None:
    scene.of(PENDING)[0].result["records"].pop()


@planted("depth")
def a_book_is_crossed(scene: Scene) -> None:
    result = scene.of("order.depth")[0].result
    result["bids"].insert(0, ["12", "1"])


@planted("depth")
def a_book_has_a_price_twice(scene: Scene) -> None:
    result = scene.of("order.depth")[0].result
    result["asks"].append(result["asks"][-1])


@planted("names")
def a_rename_that_was_answered_is_not_seen(scene: Scene) -> None:
    result = scene.of("asset.list")[0].result
    result["records"][2]["name"] = "N0"


@planted("deals")
def a_deal_is_missing(scene: Scene) -> None:
    deals = scene.deals(0, 3)
    scene.add(scene.operations[0], "market.deal_history", [MARKET, 1000, 0], {"records": deals[:2]})


@planted("deals")
def a_deal_is_told_twice(scene: Scene) -> None:
    deals = scene.deals(0, 3)
    records = {"records": [deals[0], *deals]}
    scene.add(scene.operations[0], "market.deal_history", [MARKET, 1000, 0], records)


@planted("deals")
def a_deal_has_another_price(scene: Scene) -> None:
    deals = scene.deals(0, 3)
    deals[1]["price"] = "10.5"
    scene.add(scene.operations[0], "market.deal_history", [MARKET, 1000, 0], {"records": deals})


@planted("deals")
def a_deal_of_an_order_is_missing(scene: Scene) -> None:
    deals, order_id = scene.deals(0, 3), scene.of(PUT)[3].result["id"]
    scene.add(scene.operations[0], "order.deals", [order_id, 0, 100], {"records": deals[:1]})


@planted("sums")
def money_was_made(scene: Scene) -> None:
    scene.journals.ledgers[0].machine.account(BUYER, 1).available += 1


@planted("machines")
def an_account_is_frozen_for_nothing(scene: Scene) -> None:
    account = scene.journals.ledgers[0].machine.account(BUYER, 1)
    account.available -= 1
    account.frozen += 1


def _source(executed: Any) -> str:
    put = getattr(executed.command, "put", None)
    return put.source if put is not None else ""


@pytest.mark.parametrize(("promise", "name", "plant"), PLANTED, ids=[row[1] for row in PLANTED])
def test_it_sees(promise: str, name: str, plant: Callable[[Scene], Any], scene: Scene) -> None:
    plant(scene)
    assert promise in scene.promises()


def test_history_as_it_was_is_no_violation(scene: Scene) -> None:
    deals = scene.deals(0, 3)
    first, order_id = scene.operations[0], scene.of(PUT)[3].result["id"]
    scene.add(first, "market.deal_history", [MARKET, 1000, 0], {"records": deals})
    scene.add(first, "market.deal_history", [MARKET, 1000, 2], {"records": deals[2:]})
    newest_first = {"records": deals[1::-1]}
    scene.add(first, "order.deals", [order_id, 0, 100], newest_first)
    assert scene.violations() == []
    assert {o.outcome for o in scene.of("order.deals")} == {DONE}
