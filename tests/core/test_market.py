"""The machine of a market: what becomes of orders, as tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from excore_ray.core import commands as c
from excore_ray.core.events import events_of
from excore_ray.core.market import Market
from excore_ray.core.messages import Placed
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.specs import MarketRules
from tests.core.machines import PLAIN, cancel, new_market, put_limit
from tests.core.play import deals, finished_orders, play

SCRIPTS = {
    "a partly filled maker keeps its place": """
        put a1 ask 5 @ 100
        put a2 ask 5 @ 100
        put b1 bid 7 @ 101   -> a1 5@100, a2 2@100    # the maker's price, oldest first
        put b2 bid 1 @ 100   -> a2 1@100
        depth ask 100:2
        finished a1 b1 b2
    """,
    "a partly filled taker rests at its own price": """
        put a1 ask 5 @ 100
        put b1 bid 8 @ 102   -> a1 5@100
        depth ask
        depth bid 102:3
        order b1: left=3 deal_stock=5 deal_money=500 amount=8
        finished a1
        put c1 ask 4 @ 101   -> b1 3@102              # and is the maker now
        depth ask 101:1
        finished b1
    """,
    "orders that do not cross rest side by side": """
        put a1 ask 1 @ 101
        put b1 bid 1 @ 100
        put a2 ask 1 @ 102
        put b2 bid 1 @ 99
        depth ask 101:1 102:1
        depth bid 100:1 99:1
        finished
    """,
    "a sweep takes level after level and stops at its own price": """
        put a3 ask 3 @ 103
        put a1 ask 1 @ 101
        put a2 ask 2 @ 102
        put b1 bid 9 @ 102   -> a1 1@101, a2 2@102
        depth ask 103:3
        depth bid 102:6
        finished a1 a2
    """,
    "and the other way round": """
        put a1 bid 1 @ 99
        put a2 bid 2 @ 98
        put a3 bid 3 @ 97
        put b1 ask 9 @ 98    -> a1 1@99, a2 2@98
        depth bid 97:3
        depth ask 98:6
    """,
    "one user may trade with himself": """
        put a1 ask 5 @ 100 fee=20/10
        put a2 bid 3 @ 100 fee=20/10  -> a1 3@100
        orders a: a1
        order a1: left=2
        finished a2
    """,
    "a market sell takes any price and never rests": """
        put a1 bid 1 @ 100
        put a2 bid 1 @ 1
        market b1 ask 5      -> a1 1@100, a2 1@1
        depth ask
        depth bid
        finished a1 a2 b1
    """,
    "a market buy spends money, floored level by level": """
        put a1 ask 2 @ 100
        put a2 ask 9 @ 101
        market b1 bid 520    -> a1 2@100, a2 3@101    # 17 are left and buy nothing
        depth ask 101:6
        finished a1 b1
    """,
    "a market buy ends when its money is all spent": """
        put a1 ask 5 @ 100
        market b1 bid 300    -> a1 3@100
        finished b1
        order a1: left=2
    """,
    "a market order needs somebody on the other side": """
        market a1 ask 5      -> refused no_enough_trader
        market a2 bid 500    -> refused no_enough_trader
        put b1 bid 1 @ 100
        market a3 bid 500    -> refused no_enough_trader   # its own side does not count
        put b2 ask 1 @ 101
        market a4 ask 1      -> b1 1@100
        market a5 ask 1      -> refused no_enough_trader
    """,
    "cancelling takes an order out of the middle": """
        put a1 bid 1 @ 100
        put a2 bid 2 @ 100
        put a3 bid 4 @ 100
        cancel a2
        depth bid 100:5
        orders a: a3 a1
        put b1 ask 5 @ 100   -> a1 1@100, a3 4@100
        finished a1 a3 b1                             # a2 traded nothing: no history
    """,
    "a cancelled order with a deal is history": """
        put a1 ask 5 @ 100
        put b1 bid 2 @ 100   -> a1 2@100
        cancel a1
        finished b1 a1
        depth ask
    """,
    "what is not open cannot be cancelled": """
        put a1 ask 5 @ 100
        cancel a1
        cancel a1            -> refused order_not_found
        put a2 ask 5 @ 100
        put b1 bid 5 @ 100   -> a2 5@100
        cancel a2            -> refused order_not_found
        cancel b1            -> refused order_not_found
    """,
    "an order is cancelled by its own user": """
        put a1 ask 5 @ 100
        cancel a1 as b       -> refused user_not_match
        orders a: a1
        cancel a1 as a
        orders a:
    """,
    "all orders of one user": """
        put a1 ask 5 @ 100
        put b1 ask 5 @ 100
        put a2 bid 5 @ 90
        put a3 ask 5 @ 101
        orders a: a3 a2 a1
        cancel a
        orders a:
        orders b: b1
        depth ask 100:5
        depth bid
        cancel a                                      # none is a success too
    """,
    "times follow the record": """
        put a1 ask 5 @ 100
        wait 1
        put b1 bid 2 @ 100   -> a1 2@100
        order a1: ctime_us=1500000000000000 mtime_us=1500000001000000
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script(market: Market, name: str) -> None:
    play(market, SCRIPTS[name])


def test_the_minimum_of_a_market_order() -> None:
    rules = MarketRules(1, 1, 2, 0, 0, 1, 1, 3)
    market = new_market(rules)
    play(
        market,
        """
        put a1 ask 9 @ 100
        put a2 bid 9 @ 10
        market b1 bid 299    -> refused amount_too_small   # 3 at the best ask
        market b2 bid 300    -> a1 3@100
        market b3 ask 2      -> refused amount_too_small
        market b4 ask 3      -> a2 3@10
        put c1 ask 6 @ 10    -> a2 6@10
        market b5 ask 2      -> refused no_enough_trader   # checked before the minimum
        """,
    )


def test_deals_are_told_with_both_sides(market: Market) -> None:
    player = play(
        market,
        """
        put a1 ask 1000 @ 10 fee=20/10
        put b1 bid 400 @ 11 fee=20/10  -> a1 400@10
        market c1 bid 3000 fee=50      -> a1 300@10
        """,
    )
    first, second = deals(market)
    assert (first.deal_id, second.deal_id) == (1, 2)
    assert (first.side, first.price, first.amount) == (Side.BUY, 10, 400)
    assert (first.taker_user, first.taker_fee) == (2, 400 * 20 // 10_000)  # a buyer's in stock
    assert (first.maker_user, first.maker_fee) == (1, 4_000 * 10 // 10_000)  # a seller's in money
    assert (second.taker_fee, second.maker_fee) == (300 * 50 // 10_000, 3)
    assert player.order("a1").deal_fee == 4 + 3
    ended = finished_orders(market)[-1]
    assert (ended.amount, ended.left, ended.deal_stock, ended.deal_money) == (3000, 0, 300, 3000)


@pytest.mark.parametrize("told", [[3], ["1"], [1, 7], [2, *range(15)]])
def test_what_no_market_tells_is_refused(told: list[int | str]) -> None:
    with pytest.raises(ValueError, match=r"kind of event|cut off"):
        events_of(c.MarketRecord(1, [], told))


def test_answers_are_orders_as_they_were_committed(market: Market) -> None:
    player = play(
        market,
        """
        put a1 ask 5 @ 100 fee=0/2500
        put b1 bid 8 @ 100 fee=2500/0  -> a1 5@100
        put c1 ask 3 @ 100             -> b1 3@100
        """,
    )
    now = market.time_us
    ids = [player.labels[label] for label in ("a1", "b1", "c1")]
    assert ids == [4097, 8193, 12289]
    assert player.answers == {
        "a1": Placed(4097, now, now, 5),
        "b1": Placed(8193, now, now, 3, 5, 500, 1),  # 5 * 0.25, truncated
        "c1": Placed(12289, now, now, 0, 3, 300, 0),
    }


def entries(market: Market, shard: int) -> list[Any]:
    return market.outboxes[shard].dump()[1:]  # after OpenOrders


def test_entries_go_to_the_shards_of_those_they_are_for(market: Market) -> None:
    play(
        market,
        """
        put a1 ask 5 @ 100 fee=0/1000 ref=4/5000
        put b1 bid 9 @ 110 fee=2000/0 ref=3/10000  -> a1 5@100
        cancel b1
        """,
    )
    leg_b, referral_a, gain_b, rest_b = entries(market, 0)  # users 2 and 4
    referral_b, leg_a = entries(market, 1)  # users 3 and 1
    assert (leg_b.debit, leg_b.credit, leg_b.fee, leg_b.referral) == (500, 5, 1, 1)
    assert (leg_a.debit, leg_a.credit, leg_a.fee, leg_a.referral) == (5, 500, 50, 25)
    assert (referral_a.user, referral_a.asset, referral_a.amount) == (4, 2, 25)
    assert (referral_b.user, referral_b.asset, referral_b.amount) == (3, 1, 1)
    assert (gain_b, rest_b) == (c.Release(8193, 5 * 10), c.Release(8193, 4 * 110))
    assert (leg_b.role, leg_a.role) == (2, 1)
    emitted = [(box.stock, box.money) for box in market.outboxes]
    assert emitted == [(5 - 1, -500 + 25), (-5 + 1, 500 - 25)]


def test_a_market_order_gives_back_what_it_did_not_use(market: Market) -> None:
    play(
        market,
        """
        put a1 ask 5 @ 100
        market b1 bid 333    -> a1 3@100
        put a2 bid 2 @ 10
        market b2 ask 7      -> a2 2@10
        """,
    )
    releases = [e for e in entries(market, 0) if isinstance(e, c.Release)]
    assert releases == [c.Release(8193, 33), c.Release(4 * 4096 + 1, 5)]


def test_refused_commands_change_nothing(market: Market) -> None:
    play(market, "put a1 ask 5 @ 100")
    before = (market.last_order_id, market.told[:], len(market.results), entries(market, 0))
    play(
        market,
        """
        market b1 ask 1          -> refused no_enough_trader
        """,
    )
    market.execute(cancel(2, 4097))
    market.execute(cancel(1, 99 * 4096 + 1))
    after = (market.last_order_id, market.told[:], len(market.results), entries(market, 0))
    assert before == after


def place(market: Market, number: int, put: c.PutLimit | None = None, market_no: int = 1) -> None:
    market.execute(c.Place(order_id_of(number, market_no), put or put_limit(1, Side.SELL, 1, 9)))


def reserved(high: int) -> Market:
    """A market with order numbers up to `high` only."""
    market = Market()
    for command in (c.CreateMarket(PLAIN, 1), c.OpenEpoch(1), c.ReserveIds(high)):
        market.execute(command)
    return market


def in_second_epoch() -> Market:
    market = reserved(10)
    market.execute(c.OpenEpoch(2))
    market.execute(c.ReserveIds(20))
    return market


BUGS: list[tuple[str, Callable[[], object]]] = [
    ("an id that was not reserved", lambda: place(reserved(10), 11)),
    ("an id of another market", lambda: place(reserved(10), 1, market_no=2)),
    ("an id of an older epoch", lambda: place(in_second_epoch(), 10)),
    ("a market twice", lambda: reserved(1).execute(c.CreateMarket(PLAIN, 1))),
    ("an epoch twice", lambda: reserved(1).execute(c.OpenEpoch(1))),
    ("ids that were reserved", lambda: reserved(7).execute(c.ReserveIds(7))),
    ("ids beyond 2**53", lambda: reserved(7).execute(c.ReserveIds(2**41))),
    ("more forgotten than written", lambda: reserved(7).execute(c.Forget(0, 2))),
    ("a time before the last", lambda: new_market().begin(1)),
    ("a market of no number", lambda: Market().execute(c.CreateMarket(Market().rules, 1))),
]


@pytest.mark.parametrize(("name", "command"), BUGS, ids=[name for name, _ in BUGS])
def test_what_only_a_bug_would_do_ends_the_machine(name: str, command: Callable[[], Any]) -> None:
    with pytest.raises(AssertionError):
        command()


def test_order_ids_only_grow(market: Market) -> None:
    place(market, 7)
    with pytest.raises(AssertionError, match="only grow"):
        place(market, 7)
    with pytest.raises(AssertionError, match="only grow"):
        place(market, 6)


def test_a_request_is_executed_once(market: Market) -> None:
    put = put_limit(1, Side.SELL, 1, 9)
    place(market, 1, put)
    again = reserved(10)
    place(again, 1, put)
    with pytest.raises(AssertionError, match="twice"):
        place(again, 2, put)


def test_a_new_epoch_lists_what_is_open_to_each_shard() -> None:
    market = reserved(10)
    market.execute(c.Forget(0, 1))
    play(
        market,
        """
        put a1 ask 5 @ 100
        put b1 bid 7 @ 90
        put c1 ask 5 @ 101
        put d1 bid 2 @ 100   -> a1 2@100
        """,
    )
    market.execute(c.OpenEpoch(2))
    opened = market.outboxes[0].dump()[-1]
    assert opened == c.OpenOrders(2, order_id_of(11, 1), [4097, 3, 8193, 630, 12289, 5])
    two_shards = new_market()
    play(two_shards, "put a1 ask 5 @ 100\nput b1 bid 7 @ 90")
    two_shards.execute(c.OpenEpoch(2))
    listed = [box.dump()[-1] for box in two_shards.outboxes]
    low = two_shards.id_base
    assert listed == [c.OpenOrders(2, low, [8193, 630]), c.OpenOrders(2, low, [4097, 5])]


def test_a_result_names_the_entry_it_caused_at_its_own_shard(market: Market) -> None:
    puts = [put_limit(1, Side.SELL, 5, 100), put_limit(2, Side.BUY, 5, 100)]
    for number, put in enumerate(puts, 1):
        place(market, number, put)
    rested, taken = (market.results.get(put.request_id) for put in puts)
    assert rested is not None
    assert taken is not None
    assert (rested.shard, rested.out_seq) == (1, 0)  # resting moves nothing
    assert (taken.shard, taken.out_seq) == (0, 2)
