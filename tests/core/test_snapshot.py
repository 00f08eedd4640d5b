"""Snapshots: what is loaded has the same hash, and goes on as the original would."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from excore_ray.core import commands as c
from excore_ray.core.audit import check_catalog, check_ledger, check_market
from excore_ray.core.catalog import Catalog
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.snapshot import (
    FORMAT,
    Machine,
    dump,
    load_catalog,
    load_ledger,
    load_market,
    state_hash,
)
from tests.core.machines import (
    MONEY,
    STOCK,
    cancel,
    new_catalog,
    new_ledger,
    new_market,
    put_limit,
    put_market,
    update,
    with_fees,
)
from tests.core.play import play
from tests.core.test_catalog import add_asset, add_key, rename_asset, revoke_key, with_market

HOUR_US = 3_600_000_000


def busy_market() -> Market:
    market = new_market()
    play(
        market,
        """
        put a1 ask 50 @ 102 fee=20/10 ref=4/5000
        put a2 ask 5 @ 101 fee=20/10
        put b1 bid 9 @ 101 fee=3000/1000  -> a2 5@101
        put b2 bid 9 @ 100
        put a3 bid 9 @ 100
        cancel b2
        market c1 ask 3                   -> b1 3@101
        put a4 ask 5 @ 102
        """,
    )
    market.outboxes[0].forget(2)
    market.begin(market.time_us + 10_000_000)
    market.execute(c.Place(order_id_of(100, 1), put_limit(3, Side.SELL, 10**30, 10**20)))
    market.told.clear()
    return market


def more_for_market() -> list[c.MarketCommand]:
    puts: list[c.PutLimit | c.PutMarket] = [
        with_fees(put_limit(2, Side.BUY, 60, 103), 50, 20, (1, 9999)),
        put_market(3, Side.SELL, 4, 10),
        put_limit(4, Side.SELL, 1, 100),
    ]
    placed = [c.Place(order_id_of(200 + n, 1), put) for n, put in enumerate(puts)]
    return [*placed, cancel(1), cancel(3, order_id_of(100, 1)), c.OpenEpoch(2)]


def test_a_loaded_market_goes_on() -> None:
    market = busy_market()
    again = load_market(dump(market))
    assert state_hash(again) == state_hash(market)
    assert dump(again) == dump(market)
    check_market(again)
    for command in more_for_market():
        for machine in (market, again):
            machine.begin(machine.time_us + 1_000_000)
        assert again.execute(command) == market.execute(command)
        assert state_hash(again) == state_hash(market)
    assert again.told == market.told
    assert [box.dump() for box in again.outboxes] == [box.dump() for box in market.outboxes]
    check_market(again)
    for machine in (market, again):
        machine.begin(machine.time_us + HOUR_US)
    assert len(again.results) == len(market.results) == 0


def test_what_shards_have_is_kept_beside_the_state_and_not_hashed() -> None:
    market = busy_market()
    before, snapshot = state_hash(market), dump(market)
    market.execute(c.Forget(0, 3))
    market.execute(c.Forget(0, 2))  # known already
    assert state_hash(market) == before
    assert dump(market) != snapshot
    assert load_market(dump(market)).outboxes[0].acked == 3


def busy_ledger() -> Ledger:
    ledger = new_ledger()
    for row in ((1, STOCK, 100), (2, MONEY, 10**30), (3, MONEY, 0)):
        ledger.execute(update(*row))
    ledger.execute(update(4, MONEY, -7, force=True))
    ids = [order_id_of(n, 1) for n in range(1, 5)]
    holds = [
        c.Hold(ids[0], 1, STOCK, 60, True),
        c.Hold(ids[1], 2, MONEY, 500, True),
        c.Hold(ids[2], 2, MONEY, 5, False),
    ]
    ledger.execute(c.Reserve(1, 1, holds))
    leg = c.Leg(ids[0], 1, 1, 2, 1, 10, 5, 20, 5, MONEY, 50, 10, 3)
    ledger.execute(c.Settle(1, 1, ids[1], 1, [leg, c.Release(ids[2], 5)], (-5, 47)))
    ledger.execute(c.Void(1, [ids[3]]))
    ledger.told.clear()
    return ledger


def more_for_ledger() -> list[c.LedgerCommand]:
    first, second = order_id_of(1, 1), order_id_of(2, 1)
    sell = c.Leg(first, 1, 1, 1, 2, 10, 55, 0, 55, MONEY, 550, 0, 0)
    opened = c.OpenOrders(2, order_id_of(9, 1), [second, 500])
    return [
        update(1, STOCK, -40),
        update(1, STOCK, -40),
        c.Settle(1, 1, second, 3, [sell, c.Referral(8, MONEY, 3, first, 1, False)], (-60, 600)),
        c.Settle(1, 2, second, 5, [opened], (-60, 600)),
        c.Reserve(2, 1, [c.Hold(order_id_of(1, 2), 2, MONEY, 9, True)]),
    ]


def test_a_loaded_ledger_goes_on() -> None:
    ledger = busy_ledger()
    again = load_ledger(dump(ledger))
    assert (state_hash(again), dump(again)) == (state_hash(ledger), dump(ledger))
    assert again.resting == ledger.resting
    check_ledger(again, forced=True)
    for command in more_for_ledger():
        for machine in (ledger, again):
            machine.begin(machine.time_us + 9_000_000)
        assert again.execute(command) == ledger.execute(command)
        assert state_hash(again) == state_hash(ledger)
        check_ledger(again, forced=True)
    assert again.told == ledger.told


def busy_catalog() -> Catalog:
    catalog = with_market(new_catalog())
    catalog.execute(rename_asset("BTC", "ö öö"))
    return catalog


def test_a_loaded_catalog_goes_on() -> None:
    catalog = busy_catalog()
    again = load_catalog(dump(catalog))
    assert (state_hash(again), dump(again)) == (state_hash(catalog), dump(catalog))
    assert again.copy() == catalog.copy()
    commands: list[c.CatalogCommand] = [
        rename_asset("ö öö", "USD"),
        rename_asset("ö öö", "BTC"),
        add_asset("ö öö"),
        revoke_key("live"),
        add_key("new"),
    ]
    for command in commands:
        for machine in (catalog, again):
            machine.begin(machine.time_us + 9_000_000)
        assert again.execute(command) == catalog.execute(command)
        assert state_hash(again) == state_hash(catalog)
    check_catalog(again)
    assert again.key_views() == catalog.key_views()


def test_every_field_counts() -> None:
    # A machine that differs in anything a command can change has another hash.
    hashes = [state_hash(new_market()), state_hash(busy_market())]
    for command in more_for_market():
        market = busy_market()
        market.execute(command)
        hashes.append(state_hash(market))
    hashes += [state_hash(new_ledger()), state_hash(busy_ledger())]
    for change in (1, 2):
        ledger = busy_ledger()
        ledger.execute(msgspec.structs.replace(update(1, STOCK, change), business_id=1))
        hashes.append(state_hash(ledger))
    hashes += [state_hash(new_catalog()), state_hash(busy_catalog())]
    assert len(set(hashes)) == len(hashes)


LOADERS = {"market": load_market, "ledger": load_ledger, "catalog": load_catalog}
DUMPS: dict[str, Callable[[], Machine]] = {
    "market": busy_market,
    "ledger": busy_ledger,
    "catalog": busy_catalog,
}


@pytest.mark.parametrize("loaded", LOADERS)
@pytest.mark.parametrize("dumped", DUMPS)
def test_a_snapshot_of_another_kind_or_format_is_refused(loaded: str, dumped: str) -> None:
    snapshot = dump(DUMPS[dumped]())
    if loaded == dumped:
        snapshot = b"[%d" % (FORMAT + 1) + snapshot[2:]
    with pytest.raises(ValueError, match=f"not of '{loaded}'"):
        LOADERS[loaded](snapshot)


@pytest.mark.parametrize("loaded", LOADERS)
@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b"[1,", b"null"])
def test_what_is_no_snapshot_is_refused(loaded: str, damage: bytes) -> None:
    with pytest.raises(ValueError):
        LOADERS[loaded](damage)
