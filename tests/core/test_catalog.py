"""The machine of names: what may be added and renamed, and what a name leads to."""

from __future__ import annotations

import msgspec
import pytest

from excore_ray.core import commands as c
from excore_ray.core.audit import check_catalog
from excore_ray.core.catalog import Catalog, Scope
from excore_ray.core.messages import Credential, Done, KeyView
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.sharding import shard_of
from excore_ray.core.snapshot import dump, load_catalog, state_hash
from tests.core.machines import request_id


def add_asset(name: str, save: int = 20, show: int = 8) -> c.AddAsset:
    return c.AddAsset(request_id(), 0, name, save, show, "")


def rename_asset(old: str, new: str) -> c.RenameAsset:
    return c.RenameAsset(request_id(), 0, old, new)


def add_market(
    name: str,
    stock: tuple[str, int] = ("BTC", 8),
    money: tuple[str, int] = ("USD", 2),
    min_amount: int = 1,
) -> c.AddMarket:
    return c.AddMarket(request_id(), 0, name, *stock, *money, min_amount, "")


def rename_market(old: str, new: str, kept_us: int = c.NAME_KEPT_US) -> c.RenameMarket:
    return c.RenameMarket(request_id(), 0, old, new, kept_us)


def add_key(key: str, secret: str = "s", scopes: int = 1) -> c.AddKey:
    return c.AddKey(request_id(), 0, key, secret, scopes, "")


def revoke_key(key: str) -> c.RevokeKey:
    return c.RevokeKey(request_id(), 0, key)


def with_market(catalog: Catalog) -> Catalog:
    for command in (add_asset("BTC"), add_asset("USD"), add_asset("EUR"), add_market("BTC_USD")):
        assert catalog.execute(command) == Done()
    catalog.execute(add_key("old"))
    catalog.execute(revoke_key("old"))
    catalog.execute(add_key("live"))
    return catalog


# In a catalog of BTC, USD, EUR and the market BTC_USD.
REFUSED: list[tuple[c.CatalogCommand, Reason]] = [
    (add_asset(""), Reason.INVALID_ASSET),
    (add_asset("a" * 16), Reason.INVALID_ASSET),
    (add_asset("ö" * 8), Reason.INVALID_ASSET),  # 16 bytes
    (add_asset("A\n"), Reason.INVALID_ASSET),
    (add_asset("A", 21, 8), Reason.INVALID_PRECISION),
    (add_asset("A", 8, 9), Reason.INVALID_PRECISION),
    (add_asset("A", 8, -1), Reason.INVALID_PRECISION),
    (add_asset("USD", 8, 9), Reason.INVALID_PRECISION),  # checked before the name is taken
    (add_asset("USD"), Reason.EXISTS_YET),
    (rename_asset("ETH", "A"), Reason.ASSET_NOT_FOUND),
    (rename_asset("ETH", ""), Reason.ASSET_NOT_FOUND),
    (rename_asset("BTC", ""), Reason.INVALID_ASSET),
    (rename_asset("BTC", "USD"), Reason.EXISTS_YET),
    (rename_asset("BTC", "BTC"), Reason.EXISTS_YET),
    (add_market(""), Reason.INVALID_ARGUMENT),
    (add_market("m" * 32), Reason.INVALID_ARGUMENT),
    (add_market("M", stock=("ETH", 8)), Reason.MARKET_ASSET_NOT_FOUND),
    (add_market("M", money=("ETH", 8)), Reason.MARKET_ASSET_NOT_FOUND),
    (add_market("M", stock=("USD", 8)), Reason.MARKET_ASSET_NOT_FOUND),
    (add_market("M", stock=("ETH", 99)), Reason.MARKET_ASSET_NOT_FOUND),  # before precisions
    (add_market("M", stock=("BTC", -1)), Reason.INVALID_PRECISION),
    (add_market("M", money=("USD", -1)), Reason.INVALID_PRECISION),
    (add_market("M", min_amount=0), Reason.INVALID_ARGUMENT),
    (add_market("M", min_amount=-1), Reason.INVALID_ARGUMENT),
    (add_market("BTC_USD"), Reason.EXISTS_YET),
    (rename_market("M", "N"), Reason.MARKET_NOT_FOUND),
    (rename_market("BTC_USD", ""), Reason.INVALID_ARGUMENT),
    (rename_market("BTC_USD", "BTC_USD"), Reason.EXISTS_YET),
    (add_key("", "s"), Reason.INVALID_ARGUMENT),
    (add_key("k", ""), Reason.INVALID_ARGUMENT),
    (add_key("k", "s", 0), Reason.INVALID_ARGUMENT),
    (add_key("k", "s", 8), Reason.INVALID_ARGUMENT),
    (add_key("live"), Reason.EXISTS_YET),
    (add_key("old"), Reason.EXISTS_YET),  # revoked, and never used again
    (revoke_key("k"), Reason.INVALID_ARGUMENT),
    (revoke_key("old"), Reason.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("command", "reason"), REFUSED, ids=lambda v: type(v).__name__)
def test_a_refused_change_changes_nothing(
    catalog: Catalog, command: c.AddAsset, reason: Reason
) -> None:
    before = with_market(catalog).copy()
    answer = catalog.execute(command)
    assert isinstance(answer, Refused)
    assert (answer.reason, catalog.copy()) == (reason, before)
    assert catalog.results.get(command.request_id) is None


PRECISIONS = [
    # prec_save of stock and money, stock_prec, money_prec -> whether there can be such a market
    (20, 20, 16, 4, True),
    (20, 20, 17, 3, False),  # stock_prec + 4 > 20
    (20, 20, 10, 10, True),
    (20, 20, 10, 11, False),  # 21 > 20
    (20, 20, 4, 16, True),
    (20, 20, 3, 17, False),  # money_prec + 4 > 20
    (12, 10, 8, 2, True),
    (12, 10, 8, 3, False),
    (11, 10, 8, 2, False),
    (4, 4, 0, 0, True),
    (3, 4, 0, 0, False),
    (4, 3, 0, 0, False),
]


@pytest.mark.parametrize(("stock", "money", "stock_prec", "money_prec", "fits"), PRECISIONS)
def test_precisions(
    catalog: Catalog, stock: int, money: int, stock_prec: int, money_prec: int, fits: bool
) -> None:
    catalog.execute(add_asset("S", stock, 0))
    catalog.execute(add_asset("M", money, 0))
    answer = catalog.execute(add_market("X", ("S", stock_prec), ("M", money_prec), 7))
    if not fits:
        assert isinstance(answer, Refused)
        assert answer.reason is Reason.INVALID_PRECISION
        return
    (market,) = catalog.markets
    rules = market.rules
    assert (rules.market_no, rules.stock_id, rules.money_id, rules.min_amount) == (1, 1, 2, 7)
    assert rules.stock_unit == 10 ** (stock - stock_prec)
    assert rules.money_unit == 10 ** (money - stock_prec - money_prec)


def test_names_are_labels_over_permanent_ids(catalog: Catalog) -> None:
    with_market(catalog)
    rules = catalog.markets[0].rules
    version = catalog.version
    for command in (
        rename_asset("BTC", "XBT"),
        rename_market("BTC_USD", "XBT / USD"),
        add_asset("BTC"),  # the old name is free again
        add_market("BTC_XBT", ("BTC", 0), ("XBT", 0)),
    ):
        assert catalog.execute(command) == Done()
        version += 1
        assert catalog.version == version
    assert [(a.asset_id, a.name) for a in catalog.assets] == [
        (1, "XBT"),
        (2, "USD"),
        (3, "EUR"),
        (4, "BTC"),
    ]
    assert [m.name for m in catalog.markets] == ["XBT / USD", "BTC_XBT"]
    assert catalog.markets[0].rules == rules
    assert (catalog.markets[1].rules.stock_id, catalog.markets[1].rules.money_id) == (4, 1)
    assert catalog.asset_named("XBT") is catalog.assets[0]
    assert catalog.market_named("none") is None


def test_no_other_market_gets_a_name_while_an_order_may_be_sent_again_under_it(
    catalog: Catalog,
) -> None:
    with_market(catalog)
    start_us = catalog.time_us
    assert catalog.execute(add_market("B", ("EUR", 0))) == Done()
    assert catalog.execute(rename_market("BTC_USD", "old")) == Done()
    for taking in (rename_market("B", "BTC_USD"), add_market("BTC_USD")):
        catalog.begin(start_us + c.NAME_KEPT_US - 1_500_000)
        assert catalog.execute(taking) == Refused(
            Reason.EXISTS_YET,
            "market 'BTC_USD' was renamed moments ago: its old name is free in 2 s",
        )
    # The market itself may have it back, and gives it up anew.
    for back in (rename_market("old", "BTC_USD"), rename_market("BTC_USD", "new")):
        assert catalog.execute(back) == Done()
        check_catalog(catalog)
    until_us = catalog.time_us + c.NAME_KEPT_US
    again = load_catalog(dump(catalog))
    assert state_hash(again) == state_hash(catalog)
    adding = add_market("BTC_USD")
    for machine in (catalog, again):
        machine.begin(until_us - 1)
        assert type(machine.execute(adding)) is Refused
        machine.begin(until_us)
        assert machine.execute(adding) == Done()
        assert [m.name for m in machine.markets] == ["new", "B", "BTC_USD"]
        assert not machine.freed
    assert state_hash(again) == state_hash(catalog)


def test_a_record_of_before_names_were_kept_does_as_was_done_then(catalog: Catalog) -> None:
    with_market(catalog)
    catalog.execute(add_market("B", ("EUR", 0)))
    for old, new in (("BTC_USD", "x"), ("B", "BTC_USD"), ("x", "B"), ("BTC_USD", "y")):
        assert catalog.execute(rename_market(old, new, kept_us=0)) == Done()
    assert not catalog.freed
    assert msgspec.json.decode(
        b'["rm","AAAAAAAAAAAAAAAAAAAAAA==",0,"a","b"]', type=c.RenameMarket
    ) == c.RenameMarket(bytes(16), 0, "a", "b", 0)


def test_a_copy_holds_live_credentials_and_views_hold_no_secret(catalog: Catalog) -> None:
    with_market(catalog)
    catalog.execute(add_key("all", "t", Scope.READ | Scope.TRADE | Scope.ADMIN))
    assert catalog.copy().credentials == [Credential("live", "s", 1), Credential("all", "t", 7)]
    assert catalog.key_views() == [
        KeyView("old", 1, "", True),
        KeyView("live", 1, "", False),
        KeyView("all", 7, "", False),
    ]


def test_there_are_as_many_markets_as_ids_can_name(catalog: Catalog) -> None:
    with_market(catalog)
    for number in range(2, 4096):
        assert catalog.execute(add_market(f"M{number}")) == Done()
    answer = catalog.execute(add_market("one more"))
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.INVALID_ARGUMENT


BUGS: list[c.CatalogCommand] = [c.CreateCatalog(2), c.OpenEpoch(1)]


@pytest.mark.parametrize("command", BUGS, ids=lambda command: type(command).__name__)
def test_what_only_a_bug_would_do_ends_the_machine(
    catalog: Catalog, command: c.CatalogCommand
) -> None:
    with pytest.raises(AssertionError):
        catalog.execute(command)


def test_a_journal_holds_no_refusal_and_no_other_state(catalog: Catalog) -> None:
    for command in (rename_asset("none", "A"), c.Checkpoint("another")):
        with pytest.raises(AssertionError):
            catalog.apply(c.CatalogRecord(catalog.time_us, [command]), lambda machine: "this")


@pytest.mark.parametrize("shards", [1, 2, 3, 64])
def test_every_user_has_one_shard_for_ever(shards: int) -> None:
    users = [1, 2, 3, 63, 64, 65, 2**31, 2**32 - 1]
    assert [shard_of(user, shards) for user in users] == [user % shards for user in users]
    assert {shard_of(user, shards) for user in range(1, 1 + 4 * shards)} == set(range(shards))
