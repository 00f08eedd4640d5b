"""Audit: whether machines agree with themselves and with each other.

Separate because nothing here takes part in any command: it recomputes from the orders, holds and
accounts what the machines keep as running sums, chains and counts.  It must not repair anything,
and must not know how machines or answers were got hold of.

`check_*` look at machines, between two commands, and raise AssertionError with what is wrong:
tests, simulation and replay end there.  `audit_*` look at answers that shards and markets gave
while they went on working, compare only what can be compared then, and return findings as
sentences: an operator wants all of them.
Source: ARCHITECTURE.md, invariants.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from excore_ray.core.book import BookSide
from excore_ray.core.catalog import Catalog, Scope
from excore_ray.core.ledger import Ledger, resting_key
from excore_ray.core.market import Market
from excore_ray.core.messages import AssetTotals, MarketHolds, ShardHolds
from excore_ray.core.names import bad_asset_name, bad_market_name
from excore_ray.core.orders import Level, Order, OrderType, Side, market_no_of, order_id_of
from excore_ray.core.outbox import Outbox
from excore_ray.core.results import Results
from excore_ray.core.settlement import need_of
from excore_ray.core.sharding import shard_of
from excore_ray.core.specs import PREC_MAX, rules_of

# One market.


def check_market(market: Market) -> None:
    """Assert that book, chains, counts, outboxes and results of `market` fit together.

    Cost: O(open orders + waiting entries + results).
    """
    assert len(market.outboxes) == market.shards, "a market without an outbox for each shard"
    highest = order_id_of(market.ids_high, market.rules.market_no)
    assert market.last_order_id <= highest, "an order id that was not reserved"
    for side in Side:
        _check_side(market, market.sides[side])
    resting = sum(side.count for side in market.sides.values())
    assert resting == len(market.orders), f"{resting} orders rest of {len(market.orders)} open"
    ask, bid = market.sides[Side.SELL].best, market.sides[Side.BUY].best
    if ask is not None and bid is not None:
        assert bid.price < ask.price, f"crossed: bid {bid.price}, ask {ask.price}"
    before = 0
    for order_id, order in market.orders.items():
        assert before < order_id == order.order_id, f"order {order_id} is out of order"
        before = order_id
        _check_order(market, order)
    assert before <= market.last_order_id, "an open order newer than the newest"
    _check_users(market)
    for shard, box in enumerate(market.outboxes):
        _check_outbox(shard, box)
    _check_emitted(market)
    _check_results(market.results, market.time_us, market.outboxes)


def _check_side(market: Market, side: BookSide) -> None:
    sign = 1 if side.side == Side.SELL else -1
    count = 0
    best: Level | None = None
    before: Level | None = None
    for level in side.levels():
        if before is None:
            best = level
        else:
            assert before.price * sign < level.price * sign, f"level {level.price} is misplaced"
        _check_level(market, side, level)
        count += level.count
        before = level
    assert side.best is best, "best is not the first level"
    assert side.count == count, f"side counts {side.count} orders of {count}"


def _check_level(market: Market, side: BookSide, level: Level) -> None:
    where = f"level {level.price}"
    count = amount = 0
    older: Order | None = None
    order = level.oldest
    while order is not None:
        assert market.orders.get(order.order_id) is order, f"{where}: a stranger rests in it"
        assert (order.side, order.price) == (side.side, level.price), f"{where}: misplaced order"
        assert order.older is older, f"{where}: broken chain before {order.order_id}"
        assert older is None or older.order_id < order.order_id, f"{where}: order of arrival"
        count += 1
        amount += order.left
        older, order = order, order.newer
    assert level.newest is older, f"{where}: newest is not the end of the chain"
    assert level.count == count > 0, f"{where}: counts {level.count} orders of {count}"
    assert level.amount == amount, f"{where}: sums {level.amount} of {amount}"


def _check_order(market: Market, order: Order) -> None:
    what = f"order {order.order_id}"
    assert market_no_of(order.order_id) == market.rules.market_no, f"{what}: of another market"
    assert order.type == OrderType.LIMIT, f"{what}: a market order rests"
    assert 0 < order.left <= order.amount, f"{what}: {order.left} left of {order.amount}"
    assert order.deal_stock == order.amount - order.left, f"{what}: dealt {order.deal_stock}"
    at_limit = order.deal_stock * order.price
    sign = 1 if order.side == Side.SELL else -1
    assert (order.deal_money - at_limit) * sign >= 0, f"{what}: dealt beyond its limit"
    assert order.deal_fee >= 0, f"{what}: fee below 0"
    assert order.ctime_us <= order.mtime_us <= market.time_us, f"{what}: times out of order"


def _check_users(market: Market) -> None:
    chained = 0
    for user, newest in market.newest_of_user.items():
        count = 0
        newer: Order | None = None
        order: Order | None = newest
        while order is not None:
            assert order.user == user, f"user {user}: chained to order of {order.user}"
            assert market.orders.get(order.order_id) is order, f"user {user}: a closed order"
            assert order.user_newer is newer, f"user {user}: broken chain at {order.order_id}"
            assert newer is None or newer.order_id > order.order_id, f"user {user}: unsorted"
            count += 1
            newer, order = order, order.user_older
        assert newest.user_count == count, f"user {user}: {count} orders miscounted"
        chained += count
    assert chained == len(market.orders), f"{chained} orders chained to users"


def _check_outbox(shard: int, box: Outbox) -> None:
    count = box.out_seq - box.acked
    assert count == len(box.dump()), f"the outbox of shard {shard} has a gap"


def _check_emitted(market: Market) -> None:
    stock = sum(box.stock for box in market.outboxes)
    money = sum(box.money for box in market.outboxes)
    what = f"market {market.rules.market_no} made {stock} of stock and {money} of money"
    assert stock == money == 0, what


def _check_results(results: Results, time_us: int, outboxes: Sequence[Outbox] = ()) -> None:
    count = 0
    for groups in results.dump():
        before_us = time_us
        for until_us, pairs in groups:
            assert until_us > before_us, "results out of order, or kept too long"
            before_us = until_us
            count += len(pairs)
            for request_id, _ in pairs:
                result = results.get(request_id)
                assert result is not None
                if outboxes:
                    newest = outboxes[result.shard].out_seq
                    what = f"a result waits for {result.out_seq} of {newest}"
                    assert result.out_seq <= newest, what
    assert count == len(results), "results and their queues differ"


# One shard.


def check_ledger(ledger: Ledger, forced: bool = False) -> None:
    """Assert that accounts, holds, counts and sums of `ledger` fit together.

    forced: whether there were updates with force, so that `available` may be below 0; the
    machine does not know whom they were for.  Cost: O(accounts + holds + results).
    """
    held = _held(ledger)
    sums = dict(ledger.fees)
    for user, accounts in ledger.accounts.items():
        assert shard_of(user, ledger.shards) == ledger.shard, f"user {user}: of another shard"
        for asset, account in accounts.items():
            frozen = held.pop((user, asset), 0)
            what = f"user {user}, asset {asset}"
            assert account.frozen == frozen, f"{what}: frozen {account.frozen}, holds {frozen}"
            assert forced or account.available >= 0, f"{what}: available {account.available}"
            sums[asset] = sums.get(asset, 0) + account.available + account.frozen
    assert not held, f"holds without an account: {held}"
    assert all(fee >= 0 for fee in ledger.fees.values()), f"fees below 0: {ledger.fees}"
    for asset in dict.fromkeys((*sums, *ledger.updates, *ledger.received)):
        owned = sums.get(asset, 0)
        given = ledger.updates.get(asset, 0) + ledger.received.get(asset, 0)
        assert owned == given, f"asset {asset}: shard {ledger.shard} has {owned}, was given {given}"
    # Links speak of stock and money, the shard of assets: only their grand totals compare here.
    by_link = sum(link.received_stock + link.received_money for link in ledger.links.values())
    by_asset = sum(ledger.received.values())
    assert by_link == by_asset, f"received {by_link} from markets, {by_asset} by asset"
    _check_results(ledger.results, ledger.time_us)


def _held(ledger: Ledger) -> dict[tuple[int, int], int]:
    """What is held per user and asset, recomputed, after checking the holds themselves."""
    assert ledger.holds.keys() == ledger.links.keys(), "holds of an unknown market"
    held: dict[tuple[int, int], int] = {}
    resting: dict[int, int] = {}
    for market_no, holds in ledger.holds.items():
        void = ledger.links[market_no].void
        for order_id, hold in holds.items():
            what = f"hold of {order_id}"
            assert market_no_of(order_id) == market_no, f"{what}: of another market"
            assert order_id not in void, f"{what}: it is void"
            assert hold.remaining > 0, f"{what}: {hold.remaining} remains"
            key = (hold.user, hold.asset)
            held[key] = held.get(key, 0) + hold.remaining
            if hold.resting:
                place = resting_key(hold.user, market_no)
                resting[place] = resting.get(place, 0) + 1
    assert ledger.resting == resting, "resting orders are miscounted"
    return held


# The catalog.


def check_catalog(catalog: Catalog) -> None:
    """Assert that ids, names, precisions and keys of `catalog` are as its commands leave them."""
    for number, asset in enumerate(catalog.assets, 1):
        assert asset.asset_id == number, f"asset {asset.name!r} has id {asset.asset_id}"
        assert bad_asset_name(asset.name) is None, f"asset {number} is called {asset.name!r}"
        assert 0 <= asset.prec_show <= asset.prec_save <= PREC_MAX, f"asset {number}: precisions"
    asset_names = dict.fromkeys(asset.name for asset in catalog.assets)
    assert len(asset_names) == len(catalog.assets), "two assets share a name"
    for number, market in enumerate(catalog.markets, 1):
        rules = market.rules
        assert rules.market_no == number, f"market {market.name!r} has number {rules.market_no}"
        assert bad_market_name(market.name) is None, f"market {number} is called {market.name!r}"
        assert rules.stock_id != rules.money_id, f"market {number} trades one asset for itself"
        assert rules.min_amount > 0, f"market {number}: min_amount {rules.min_amount}"
        stock, money = catalog.assets[rules.stock_id - 1], catalog.assets[rules.money_id - 1]
        scales = (rules.stock_prec, rules.money_prec, rules.min_amount)
        assert rules == rules_of(number, stock, money, scales), f"market {number}: rules"
    market_names = dict.fromkeys(market.name for market in catalog.markets)
    assert len(market_names) == len(catalog.markets), "two markets share a name"
    for name, (market_no, until_us) in catalog.freed.items():
        assert name not in market_names, f"market name {name!r} is freed and in use"
        assert 0 < market_no <= len(catalog.markets), f"freed name {name!r}: market {market_no}"
        assert until_us > catalog.time_us, f"freed name {name!r} is kept too long"
    for name, key in catalog.keys.items():
        assert name == key.key, f"key {name!r} is filed as {key.key!r}"
        assert key.secret, f"key {name!r} has no secret"
        assert 0 < key.scopes <= Scope.READ | Scope.TRADE | Scope.ADMIN, f"key {name!r}: scopes"
    _check_results(catalog.results, catalog.time_us)


# Markets against shards.


def check_conservation(markets: Iterable[Market], ledgers: Iterable[Ledger]) -> None:
    """Assert that no market makes or loses anything, on the way to the shards included.

    The shards may lag behind; what they have received is compared with what the market had
    emitted at that entry, as far as the market still knows.  Cost: O(markets x shards) and
    O(entries between acknowledged and applied).
    """
    ledgers = list(ledgers)
    for market in markets:
        _check_emitted(market)
        market_no = market.rules.market_no
        for ledger in ledgers:
            link = ledger.links.get(market_no)
            if link is None:
                continue
            box = market.outboxes[ledger.shard]
            where = f"market {market_no}, shard {ledger.shard}"
            assert link.applied <= box.out_seq, f"{where}: {link.applied} of {box.out_seq} applied"
            emitted = (box.stock, box.money)
            if box.acked < link.applied < box.out_seq:
                _, emitted = box.after(box.acked, link.applied - box.acked)
            elif link.applied != box.out_seq:
                continue
            received = (link.received_stock, link.received_money)
            assert received == emitted, f"{where}: received {received}, emitted {emitted}"


def check_holds(market: Market, ledgers: Iterable[Ledger]) -> None:
    """Assert that the shards hold what the open orders need, order by order.

    Holds only when all is settled: nothing undecided, every entry applied.  Cost: O(open
    orders + holds).
    """
    rules = market.rules
    needed: dict[int, tuple[int, int, int, bool]] = {}
    for order in market.orders.values():
        asset = rules.stock_id if order.side == Side.SELL else rules.money_id
        needed[order.order_id] = (order.user, asset, need_of(rules, order), True)
    for ledger in ledgers:
        for order_id, hold in ledger.holds.get(rules.market_no, {}).items():
            need = needed.pop(order_id, None)
            held = (hold.user, hold.asset, hold.remaining, hold.resting)
            assert held == need, f"order {order_id}: {held} is held, {need} is needed"
    assert not needed, f"nothing is held for {needed}"


# Online, from answers.


def audit_assets(shards: Sequence[AssetTotals]) -> list[str]:
    """What is wrong with the totals of the shards, given in order of shard; empty when nothing.

    Each shard's answer is of one moment, and is judged alone: shards are asked at different
    moments.
    """
    findings: list[str] = []
    for shard, totals in enumerate(shards):
        for t in totals.totals:
            where = f"shard {shard}, asset {t.asset}"
            owned = t.available + t.frozen + t.fees
            given = t.updates + t.received
            if owned != given:
                findings.append(
                    f"{where}: available {t.available} + frozen {t.frozen} + fees {t.fees}"
                    f" = {owned}, but updates {t.updates} + received {t.received} = {given}"
                )
            if t.frozen < 0 or t.fees < 0:
                findings.append(f"{where}: frozen is {t.frozen} and fees are {t.fees}")
            if bool(t.frozen) != bool(t.frozen_count):
                findings.append(f"{where}: {t.frozen} is frozen of {t.frozen_count} users")
    return findings


def audit_holds(
    shard_no: int, before: MarketHolds, shard: ShardHolds, after: MarketHolds
) -> list[str]:
    """What is wrong between a market and shard `shard_no`, both at work; empty when nothing.

    The market was asked for `before`, then the shard for `shard`, then the market for `after`,
    each when the answer before it had arrived.  Compared are: an order that needs as much
    after as before, and an order that was decided before and is open at neither moment, both
    only when the shard had applied all of `before`; and what was received, when the shard
    stood exactly where the market did.

    A reservation that arrives late and twice can be held until the market has aborted it: that
    one finding, "is not open", means something only when it is still there asked again.
    """
    findings: list[str] = []
    if shard.applied > after.out_seq:
        findings.append(f"applied {shard.applied}, but only {after.out_seq} entries were emitted")
    for moment in (before, after):
        stock, money = (sum(column) for column in zip(*moment.emitted, strict=True))
        if stock or money:
            findings.append(f"the market made {stock} of stock and {money} of money")
        if moment.out_seq == shard.applied and moment.emitted[shard_no] != shard.received:
            emitted = moment.emitted[shard_no]
            findings.append(f"at {shard.applied}: received {shard.received}, emitted {emitted}")
    if shard.applied < before.out_seq:
        return findings
    held, needed, later = _pairs(shard.holds), _pairs(before.holds), _pairs(after.holds)
    for order_id, need in needed.items():
        if later.get(order_id) == need and held.get(order_id, 0) != need:
            findings.append(f"order {order_id} needs {need}, {held.get(order_id, 0)} is held")
    undecided = {*before.undecided, *after.undecided}
    for order_id, amount in held.items():
        is_open = order_id in needed or order_id in later
        if order_id < before.low and not is_open and order_id not in undecided:
            findings.append(f"order {order_id} is not open, {amount} is held for it")
    return findings


def _pairs(flat: list[int]) -> dict[int, int]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
