"""The audit finds what is wrong, and finds nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from excore_ray.core import commands as c
from excore_ray.core.audit import (
    audit_assets,
    audit_holds,
    check_catalog,
    check_conservation,
    check_holds,
    check_ledger,
    check_market,
)
from excore_ray.core.catalog import Catalog
from excore_ray.core.ledger import HeldFunds, Ledger, MarketLink
from excore_ray.core.market import Market
from excore_ray.core.messages import AssetTotal, AssetTotals, MarketHolds, ShardHolds
from excore_ray.core.orders import Level, Order, Side, order_id_of
from excore_ray.core.specs import Market as MarketSpec
from tests.core.courier import Courier
from tests.core.machines import MONEY, PLAIN, STOCK, new_catalog, put_limit, update
from tests.core.test_catalog import with_market

SELL, BUY = Side.SELL, Side.BUY


def traded() -> Courier:
    """Two shards, a deal, orders on three levels, and entries that nobody has applied yet."""
    courier = Courier(PLAIN, 2)
    for user in (1, 2, 3):
        courier.update(update(user, STOCK, 100))
        courier.update(update(user, MONEY, 10_000))
    rows = ((1, SELL, 5, 101), (1, SELL, 3, 101), (3, SELL, 4, 102), (2, BUY, 6, 99))
    for row in rows:
        courier.put(put_limit(*row))
    for shard in (0, 1):
        courier.settle(shard)
    courier.put(put_limit(2, BUY, 2, 101))
    return courier


def settled() -> Courier:
    courier = traded()
    for shard in (0, 1):
        courier.settle(shard)
    return courier


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    for courier in (traded(), settled()):
        courier.check()
    check_holds(courier.market, courier.ledgers)
    check_catalog(with_market(new_catalog()))
    check_market(Market())
    check_ledger(Ledger())


def order_of(market: Market) -> Order:
    """The oldest open order; another rests behind it in its level, and one is its user's too."""
    return next(iter(market.orders.values()))


def best_asks(market: Market) -> Level:
    level = market.sides[SELL].best
    assert level is not None
    return level


def move(order: Order, market: Market, price: int) -> None:
    market.sides[order.side].remove(order)
    order.price = price
    market.sides[order.side].add(order)


def put(owner: object, name: str, change: int) -> None:
    """Add `change` to a number."""
    setattr(owner, name, getattr(owner, name) + change)


MARKET_DAMAGE: list[tuple[str, Callable[[Market], object]]] = [
    ("side counts", lambda k: put(k.sides[SELL], "count", 1)),
    ("counts .* orders of", lambda k: put(best_asks(k), "count", 1)),
    ("sums", lambda k: put(best_asks(k), "amount", 1)),
    ("best is not the first", lambda k: setattr(k.sides[SELL], "best", None)),
    ("newest is not the end", lambda k: setattr(best_asks(k), "newest", order_of(k))),
    ("broken chain before", lambda k: setattr(best_asks(k).newest, "older", None)),
    ("misplaced order", lambda k: put(order_of(k), "price", 1)),
    ("crossed", lambda k: move(list(k.orders.values())[-1], k, 200)),
    ("a stranger", lambda k: k.orders.pop(order_of(k).order_id)),
    ("out of order", lambda k: k.orders.update([k.orders.popitem(), k.orders.popitem()])),
    ("left of", lambda k: put(order_of(k), "amount", -4)),
    ("dealt", lambda k: put(order_of(k), "deal_stock", 1)),
    ("dealt beyond", lambda k: put(order_of(k), "deal_money", -1)),
    ("fee", lambda k: put(order_of(k), "deal_fee", -1)),
    ("times", lambda k: put(order_of(k), "mtime_us", -1)),
    ("a market order rests", lambda k: setattr(order_of(k), "type", 2)),
    ("not reserved", lambda k: setattr(k, "ids_high", 1)),
    ("newer than the newest", lambda k: setattr(k, "last_order_id", 4097)),
    ("broken chain at", lambda k: setattr(order_of(k), "user_newer", None)),
    ("miscounted", lambda k: put(k.newest_of_user[1], "user_count", 9)),
    ("chained to order of", lambda k: put(order_of(k), "user", 1)),
    ("chained to users", lambda k: k.newest_of_user.pop(1)),
    ("of stock and", lambda k: put(k.outboxes[0], "stock", 1)),
    ("made 7 of stock", lambda k: k.outboxes[0].add(c.Referral(1, 1, 7, 1, 1, True))),
    ("outbox for each shard", lambda k: k.outboxes.pop()),
    ("has a gap", lambda k: put(k.outboxes[0], "out_seq", 1)),
    ("kept too long", lambda k: put(k, "time_us", c.RESULT_KEPT_US)),
]


@pytest.mark.parametrize(("finding", "damage"), MARKET_DAMAGE, ids=[d[0] for d in MARKET_DAMAGE])
def test_a_damaged_market_is_found(finding: str, damage: Callable[[Market], object]) -> None:
    market = traded().market
    damage(market)
    with pytest.raises(AssertionError, match=finding):
        check_market(market)


def hold_of(ledger: Ledger) -> HeldFunds:
    return next(iter(ledger.holds[1].values()))


def file_hold_under(ledger: Ledger, order_id: int) -> None:
    ledger.holds[1][order_id] = ledger.holds[1].pop(next(iter(ledger.holds[1])))


LEDGER_DAMAGE: list[tuple[str, Callable[[Ledger], object]]] = [
    ("frozen .* holds", lambda s: put(s.accounts[1][STOCK], "frozen", 1)),
    ("frozen .* holds ", lambda s: put(hold_of(s), "remaining", -1)),
    ("available -", lambda s: put(s.accounts[1][STOCK], "available", -1_000)),
    ("was given", lambda s: put(s.accounts[1][STOCK], "available", 1)),
    ("was given ", lambda s: s.updates.update({MONEY: 5})),
    ("was given  ", lambda s: s.received.update({9: 5})),
    ("was given   ", lambda s: s.fees.update({MONEY: 5})),
    ("fees below 0", lambda s: s.fees.update({MONEY: -5})),
    ("received .* from markets", lambda s: put(s.links[1], "received_stock", 1)),
    ("remains", lambda s: put(hold_of(s), "remaining", -5)),
    ("of another market", lambda s: file_hold_under(s, order_id_of(9, 2))),
    ("without an account", lambda s: s.accounts[1].pop(STOCK)),
    ("it is void", lambda s: s.links[1].void.update({next(iter(s.holds[1])): True})),
    ("of an unknown market", lambda s: s.links.update({9: MarketLink()})),
    ("resting orders", lambda s: s.resting.popitem()),
    ("resting orders ", lambda s: s.resting.update({9: 1})),
    ("of another shard", lambda s: s.account(2, STOCK)),
]


@pytest.mark.parametrize(("finding", "damage"), LEDGER_DAMAGE, ids=[d[0] for d in LEDGER_DAMAGE])
def test_a_damaged_ledger_is_found(finding: str, damage: Callable[[Ledger], object]) -> None:
    ledger = settled().ledgers[1]
    damage(ledger)
    with pytest.raises(AssertionError, match=finding.strip()):
        check_ledger(ledger)


def test_debt_is_allowed_to_whom_it_was_forced_on(ledger: Ledger) -> None:
    ledger.execute(update(1, STOCK, -5, force=True))
    check_ledger(ledger, forced=True)
    with pytest.raises(AssertionError, match="available -5"):
        check_ledger(ledger)


def rename(catalog: Catalog, field: str, **changes: object) -> None:
    items = getattr(catalog, field)
    items[0] = msgspec.structs.replace(items[0], **changes)


def rerule(catalog: Catalog, **changes: int) -> None:
    rename(catalog, "markets", rules=msgspec.structs.replace(catalog.markets[0].rules, **changes))


CATALOG_DAMAGE: list[tuple[str, Callable[[Catalog], object]]] = [
    ("has id 7", lambda k: rename(k, "assets", asset_id=7)),
    ("is called", lambda k: rename(k, "assets", name="")),
    ("precisions", lambda k: rename(k, "assets", prec_show=99)),
    ("two assets", lambda k: rename(k, "assets", name="USD")),
    ("has number 2", lambda k: rerule(k, market_no=2)),
    ("is called ", lambda k: rename(k, "markets", name="\n")),
    ("for itself", lambda k: rerule(k, money_id=1)),
    ("min_amount", lambda k: rerule(k, min_amount=0)),
    ("rules", lambda k: rerule(k, stock_unit=3)),
    ("two markets", lambda k: k.markets.append(_second(k))),
    ("is filed as", lambda k: setattr(k.keys["live"], "key", "b")),
    ("no secret", lambda k: setattr(k.keys["live"], "secret", "")),
    ("scopes", lambda k: setattr(k.keys["live"], "scopes", 8)),
]


def _second(catalog: Catalog) -> MarketSpec:
    market = catalog.markets[0]
    rules = msgspec.structs.replace(market.rules, market_no=2)
    return msgspec.structs.replace(market, rules=rules)


@pytest.mark.parametrize(("finding", "damage"), CATALOG_DAMAGE, ids=[d[0] for d in CATALOG_DAMAGE])
def test_a_damaged_catalog_is_found(finding: str, damage: Callable[[Catalog], object]) -> None:
    catalog = with_market(new_catalog())
    damage(catalog)
    with pytest.raises(AssertionError, match=finding.strip()):
        check_catalog(catalog)


def test_conservation_is_checked_wherever_a_shard_stands() -> None:
    courier = traded()
    for shard in (0, 1):
        while not courier.settled(shard):
            check_conservation([courier.market], courier.ledgers)
            courier.deliver(shard, 1)
    check_conservation([courier.market], courier.ledgers)
    for shard in (0, 1):
        courier.forget(shard)
    check_conservation([courier.market], courier.ledgers)


@pytest.mark.parametrize("applied", [1, 2])
def test_a_shard_that_received_something_else_is_found(applied: int) -> None:
    courier = traded()
    courier.deliver(1, applied)
    put(courier.ledgers[1].links[1], "received_money", 1)
    with pytest.raises(AssertionError, match=r"received .* emitted"):
        check_conservation([courier.market], courier.ledgers)


def test_a_shard_ahead_of_its_market_is_found() -> None:
    courier = settled()
    put(courier.ledgers[1].links[1], "applied", 1)
    with pytest.raises(AssertionError, match="applied"):
        check_conservation([courier.market], courier.ledgers)


HOLDS_DAMAGE: list[tuple[str, Callable[[Courier], object]]] = [
    ("is needed", lambda k: put(hold_of(k.ledgers[1]), "remaining", 1)),
    ("is needed ", lambda k: put(hold_of(k.ledgers[1]), "user", 2)),
    ("is needed  ", lambda k: put(hold_of(k.ledgers[1]), "asset", 1)),
    ("None is needed", lambda k: k.reserve(put_limit(1, SELL, 1, 100))),
    ("nothing is held", lambda k: k.ledgers[1].holds[1].popitem()),
]


@pytest.mark.parametrize(("finding", "damage"), HOLDS_DAMAGE, ids=[d[0] for d in HOLDS_DAMAGE])
def test_holds_that_back_no_order_are_found(
    finding: str, damage: Callable[[Courier], object]
) -> None:
    courier = settled()
    damage(courier)
    with pytest.raises(AssertionError, match=finding.strip()):
        check_holds(courier.market, courier.ledgers)


# Answers.

WHERE = "shard 1, asset 7"
SOUND = AssetTotal(7, 90, 2, 10, 1, 5, 100, 5)
ASSETS: list[tuple[dict[str, int], list[str]]] = [
    ({}, []),
    ({"available": -5, "updates": 5}, []),  # a forced debt is no finding
    (
        {"fees": 6},
        [f"{WHERE}: available 90 + frozen 10 + fees 6 = 106, but updates 100 + received 5 = 105"],
    ),
    ({"frozen": -10, "available": 110}, [f"{WHERE}: frozen is -10 and fees are 5"]),
    ({"fees": -1, "available": 96}, [f"{WHERE}: frozen is 10 and fees are -1"]),
    ({"frozen_count": 0}, [f"{WHERE}: 10 is frozen of 0 users"]),
]


@pytest.mark.parametrize(("changes", "findings"), ASSETS)
def test_audit_of_assets(changes: dict[str, int], findings: list[str]) -> None:
    total = msgspec.structs.replace(SOUND, **changes)
    assert audit_assets([AssetTotals([SOUND]), AssetTotals([SOUND, total])]) == findings


def moment(
    out_seq: int,
    holds: list[int],
    low: int = 100,
    undecided: tuple[int, ...] = (),
    emitted: tuple[int, int] = (3, -30),
) -> MarketHolds:
    """What a market says; shard 1 of two is asked."""
    other = (-emitted[0], -emitted[1])
    return MarketHolds(low, out_seq, [*undecided], holds, [other, emitted])


def held(applied: int, holds: list[int], received: tuple[int, int] = (3, -30)) -> ShardHolds:
    return ShardHolds(applied, holds, received)


HOLDS: list[tuple[str, MarketHolds, ShardHolds, MarketHolds, list[str]]] = [
    ("at rest", moment(5, [10, 7]), held(5, [10, 7]), moment(5, [10, 7]), []),
    (
        "too little",
        moment(5, [10, 7]),
        held(5, [10, 6]),
        moment(5, [10, 7]),
        ["order 10 needs 7, 6 is held"],
    ),
    (
        "nothing",
        moment(5, [10, 7]),
        held(5, []),
        moment(5, [10, 7]),
        ["order 10 needs 7, 0 is held"],
    ),
    ("it traded meanwhile", moment(5, [10, 7]), held(6, [10, 4]), moment(7, [10, 3]), []),
    ("it ended meanwhile", moment(5, [10, 7]), held(6, [10, 7]), moment(6, []), []),
    ("the shard lags", moment(5, [10, 7]), held(4, [10, 9]), moment(5, [10, 7]), []),
    ("it lags, and holds what is over", moment(5, []), held(4, [10, 9]), moment(5, []), []),
    (
        "held for nobody",
        moment(5, []),
        held(5, [10, 9]),
        moment(5, []),
        ["order 10 is not open, 9 is held for it"],
    ),
    ("undecided before", moment(5, [], 100, (10,)), held(5, [10, 9]), moment(5, []), []),
    ("undecided after", moment(5, []), held(5, [10, 9]), moment(5, [], 100, (10,)), []),
    ("newer than asked for", moment(5, [], 10), held(5, [10, 9]), moment(5, [], 11), []),
    ("rests since", moment(5, [], 10), held(5, [10, 9]), moment(5, [10, 9], 11), []),
    (
        "received less",
        moment(5, []),
        held(5, [], (3, -29)),
        moment(6, [], emitted=(4, -40)),
        ["at 5: received (3, -29), emitted (3, -30)"],
    ),
    (
        "received more by then",
        moment(4, [], emitted=(2, -20)),
        held(5, [], (3, -29)),
        moment(5, []),
        ["at 5: received (3, -29), emitted (3, -30)"],
    ),
    ("between two moments", moment(4, []), held(5, [], (9, 9)), moment(6, []), []),
    (
        "ahead of its market",
        moment(4, []),
        held(7, []),
        moment(6, []),
        ["applied 7, but only 6 entries were emitted"],
    ),
    (
        "money out of nothing",
        MarketHolds(100, 4, [], [], [(1, -1), (0, 2)]),
        held(5, []),
        moment(6, []),
        ["the market made 1 of stock and 1 of money"],
    ),
]


@pytest.mark.parametrize(
    ("before", "shard", "after", "findings"), [row[1:] for row in HOLDS], ids=[r[0] for r in HOLDS]
)
def test_audit_of_holds(
    before: MarketHolds, shard: ShardHolds, after: MarketHolds, findings: list[str]
) -> None:
    assert audit_holds(1, before, shard, after) == findings


def test_an_audit_while_orders_go_on_finds_nothing() -> None:
    courier = traded()
    for step in range(6):
        for shard in (0, 1):
            before = courier.market_holds(shard)
            courier.deliver(shard, step)
            answer = courier.shard_holds(shard)
            courier.put(put_limit(3, BUY, 1, 101 + step % 2))
            assert audit_holds(shard, before, answer, courier.market_holds(shard)) == []
