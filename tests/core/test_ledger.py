"""The machine of a shard: balances, holds, entries, and what must never happen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from excore_ray.core import commands as c
from excore_ray.core.ledger import Ledger, resting_key
from excore_ray.core.messages import Done
from excore_ray.core.orders import order_id_of
from excore_ray.core.postings import LegPosted, postings_of
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.snapshot import dump, load_ledger, state_hash
from tests.core.machines import MONEY, START_US, STOCK, new_ledger, update
from tests.core.postings import changes_of, told_by

ALICE, BOB = 1, 2
A1, A2, A3, B1 = (order_id_of(n, 1) for n in (1, 2, 3, 4))


def accounts(ledger: Ledger) -> dict[tuple[int, int], tuple[int, int]]:
    return {
        (user, asset): (account.available, account.frozen)
        for user, assets in ledger.accounts.items()
        for asset, account in assets.items()
    }


def again(ledger: Ledger) -> Ledger:
    return load_ledger(dump(ledger))


def give(ledger: Ledger, *rows: tuple[int, int, int]) -> None:
    for row in rows:
        assert ledger.execute(update(*row)) == Done()


def reserve(*holds: tuple[int, int, int, int], epoch: int = 1, resting: bool = True) -> c.Reserve:
    return c.Reserve(1, epoch, [c.Hold(*hold, resting) for hold in holds])


def settle(
    first: int, *entries: c.Entry, emitted: tuple[int, int] = (0, 0), low: int = 0, epoch: int = 1
) -> c.Settle:
    return c.Settle(1, epoch, low, first, list(entries), emitted)


def sold(order_id: int, amount: int, money: int, fee: int = 0, referral: int = 0) -> c.Leg:
    """Alice's side of a deal in which she sells as taker."""
    rate = 20 if fee else 0
    price = money // amount
    return c.Leg(order_id, ALICE, 1, 2, 9, price, amount, rate, amount, MONEY, money, fee, referral)


def bought(order_id: int, amount: int, money: int, fee: int = 0, referral: int = 0) -> c.Leg:
    """Bob's side of a deal in which he buys as maker."""
    rate = 10 if fee else 0
    price = money // amount
    return c.Leg(order_id, BOB, 2, 1, 9, price, amount, rate, money, STOCK, amount, fee, referral)


# Updates: before, (change, options) -> refusal or what is available after.
UPDATES: list[tuple[int, dict[str, Any], Reason | int]] = [
    (0, {"change": 5}, 5),
    (5, {"change": -5}, 0),
    (5, {"change": -6}, Reason.BALANCE_NOT_ENOUGH),
    (5, {"change": -6, "force": True}, -1),
    (5, {"change": 0}, 5),
    (5, {"change": 1, "repeat": True}, Reason.REPEAT_UPDATE),
    (5, {"change": -6, "repeat": True}, Reason.REPEAT_UPDATE),  # checked before the amount
    (5, {"change": 5, "net_max": 10}, Reason.INVALID_ARGUMENT),
    (5, {"change": 4, "net_max": 10}, 9),
    (5, {"change": -15, "force": True, "net_max": 10}, Reason.INVALID_ARGUMENT),
    (5, {"change": -14, "force": True, "net_max": 10}, -9),
    (5, {"change": -16, "net_max": 10}, Reason.INVALID_ARGUMENT),  # checked before the amount
]


@pytest.mark.parametrize(("before", "options", "expected"), UPDATES)
def test_update(
    ledger: Ledger, before: int, options: dict[str, Any], expected: Reason | int
) -> None:
    give(ledger, (ALICE, MONEY, before))
    ledger.told.clear()
    command = msgspec.structs.replace(update(ALICE, MONEY, 0), **options)
    answer = ledger.execute(command)
    if isinstance(expected, Reason):
        assert isinstance(answer, Refused)
        assert answer.reason is expected
        assert (accounts(ledger)[ALICE, MONEY], ledger.told) == ((before, 0), [])
        assert ledger.results.get(command.request_id) is None
    else:
        assert answer == Done()
        assert accounts(ledger)[ALICE, MONEY] == (expected, 0)
        (row,) = changes_of(told_by(ledger, command))
        assert (row.user, row.asset, row.time_us) == (ALICE, MONEY, START_US)
        assert (row.change, row.balance) == (options["change"], expected)
        assert (row.business, row.business_id) == ("test", command.business_id)
        assert ledger.results.get(command.request_id) is not None


def test_a_refused_update_makes_no_account(ledger: Ledger) -> None:
    ledger.execute(update(ALICE, MONEY, -1))
    assert (ledger.accounts, ledger.available(ALICE, MONEY)) == ({}, 0)


def test_in_debt_credits_only_reduce_the_debt(ledger: Ledger) -> None:
    give(ledger, (ALICE, MONEY, 10))
    ledger.execute(reserve((A1, ALICE, MONEY, 8)))
    assert ledger.execute(update(ALICE, MONEY, -7, force=True)) == Done()
    assert accounts(ledger)[ALICE, MONEY] == (-5, 8)
    give(ledger, (ALICE, MONEY, 3))
    assert accounts(ledger)[ALICE, MONEY] == (-2, 8)
    answer = ledger.execute(update(ALICE, MONEY, -1))
    assert isinstance(answer, Refused)
    assert answer.reason is Reason.BALANCE_NOT_ENOUGH
    ledger.execute(settle(1, c.Release(A1, 8)))
    assert accounts(ledger)[ALICE, MONEY] == (6, 0)


def test_net_updates_are_counted_per_asset(ledger: Ledger) -> None:
    rows = ((ALICE, MONEY, 9), (BOB, MONEY, 9), (ALICE, STOCK, 9))
    bounded = [msgspec.structs.replace(update(*row), net_max=18) for row in rows]
    refused = [isinstance(ledger.execute(command), Refused) for command in bounded]
    assert refused == [False, True, False]
    assert ledger.updates == {MONEY: 9, STOCK: 9}


def test_a_deal_posts_its_rows_in_order(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 10), (BOB, MONEY, 1_000))
    ledger.execute(reserve((A1, ALICE, STOCK, 10), (B1, BOB, MONEY, 1_000)))
    ledger.told.clear()
    entries = (
        sold(A1, 10, 1_000, fee=20, referral=5),
        bought(B1, 10, 1_000, fee=1, referral=1),
        c.Referral(7, MONEY, 5, A1, 9, False),
        c.Referral(8, STOCK, 1, B1, 9, True),
    )
    settling = settle(1, *entries, emitted=(-10 + 10 - 1 + 1, 1_000 - 5 - 1_000 + 5))
    ledger.execute(settling)
    told = changes_of(told_by(ledger, settling))
    rows = [(e.user, e.asset, e.business, e.change, e.balance, e.fee_rate) for e in told]
    assert rows == [
        (ALICE, STOCK, "trade", -10, 0, -1),
        (ALICE, MONEY, "trade", 1_000, 1_000, -1),
        (ALICE, MONEY, "trade", -20, 980, 20),
        (BOB, MONEY, "trade", -1_000, 0, -1),
        (BOB, STOCK, "trade", 10, 10, -1),
        (BOB, STOCK, "trade", -1, 9, 10),
        (7, MONEY, "ref", 5, 5, -1),
        (8, STOCK, "ref", 1, 1, -1),
    ]
    causes = {(e.market_no, e.order_id, e.deal_id) for e in told}
    assert causes == {(1, A1, 9), (1, B1, 9)}
    assert {(e.price, e.amount) for e in told[:6]} == {(100, 10)}
    assert ledger.fees == {MONEY: 15, STOCK: 0}
    assert ledger.holds == {1: {}}
    assert ledger.resting == {}


def test_a_leg_is_told_as_one_with_the_balances_after_it(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 15), (ALICE, MONEY, 3))
    ledger.execute(reserve((A1, ALICE, STOCK, 10)))
    ledger.told.clear()
    leg = sold(A1, 4, 400, fee=8)
    settling = settle(1, leg, emitted=(-4, 400))
    ledger.execute(settling)
    # What is frozen still belongs to her: 15 - 4 are left of the stock, and 3 + 400 - 8 of money.
    assert told_by(ledger, settling) == [LegPosted(START_US, 1, leg, STOCK, 11, 395)]


def test_without_a_fee_there_is_no_fee_row(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 10))
    ledger.execute(reserve((A1, ALICE, STOCK, 10)))
    ledger.told.clear()
    settling = settle(1, sold(A1, 4, 400), emitted=(-4, 400))
    ledger.execute(settling)
    assert [(e.asset, e.change, e.balance) for e in changes_of(told_by(ledger, settling))] == [
        (STOCK, -4, 6),
        (MONEY, 400, 400),
    ]
    assert accounts(ledger) == {(ALICE, STOCK): (0, 6), (ALICE, MONEY): (400, 0)}
    assert ledger.fees == {}


def test_a_self_trade_books_the_taker_before_the_maker(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 5), (ALICE, MONEY, 500))
    ledger.execute(reserve((A1, ALICE, STOCK, 5), (A2, ALICE, MONEY, 500)))
    ledger.told.clear()
    buys = msgspec.structs.replace(bought(A2, 5, 500, fee=1), user=ALICE)
    settling = settle(1, sold(A1, 5, 500, fee=2), buys)
    ledger.execute(settling)
    assert [(e.asset, e.change, e.balance) for e in changes_of(told_by(ledger, settling))] == [
        (STOCK, -5, 0),
        (MONEY, 500, 1_000),
        (MONEY, -2, 998),
        (MONEY, -500, 498),
        (STOCK, 5, 5),
        (STOCK, -1, 4),
    ]


def test_holds_end_with_their_order(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 30))
    ledger.execute(reserve((A1, ALICE, STOCK, 10), (A2, ALICE, STOCK, 10)))
    ledger.execute(reserve((A3, ALICE, STOCK, 10), resting=False))
    assert ledger.resting == {resting_key(ALICE, 1): 2}
    ledger.execute(settle(1, c.Release(A1, 4), c.Release(A3, 10)))
    assert accounts(ledger)[ALICE, STOCK] == (14, 16)
    ledger.execute(settle(3, c.Release(A1, 6)))
    assert (ledger.hold_of(A1), ledger.hold_of(A3)) == (None, None)
    assert ledger.resting == {resting_key(ALICE, 1): 1}
    ledger.execute(settle(4, c.Release(A2, 10)))
    assert (ledger.resting, accounts(ledger)[ALICE, STOCK]) == ({}, (30, 0))
    assert ledger.told == [30], "freezing and releasing change no balance"


def test_void_gives_back_and_remembers(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 10))
    ledger.execute(reserve((A1, ALICE, STOCK, 10)))
    ledger.execute(c.Void(1, [A1, A2]))
    assert accounts(ledger)[ALICE, STOCK] == (10, 0)
    assert ledger.link(1).void == {A1: True, A2: True}
    ledger.execute(settle(1, low=A2))
    assert ledger.link(1).void == {A2: True}, "ids below low need no memory"
    ledger.execute(settle(1, low=A1))
    assert ledger.link(1).low == A2


def test_a_new_epoch_voids_what_it_does_not_list(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 10), (BOB, MONEY, 100))
    ledger.execute(reserve((A1, ALICE, STOCK, 4), (A2, ALICE, STOCK, 3), (B1, BOB, MONEY, 100)))
    ledger.execute(c.Void(1, [A3]))
    later = order_id_of(9, 1)
    ledger.execute(reserve((later, ALICE, STOCK, 1), epoch=2))
    opened = c.OpenOrders(2, order_id_of(8, 1), [A1, 4, B1, 100])
    ledger.execute(settle(1, opened, epoch=2))
    assert list(ledger.holds[1]) == [A1, B1, later], "the new epoch's own hold stays"
    assert accounts(ledger)[ALICE, STOCK] == (5, 5)
    assert ledger.link(1).epoch == 2
    assert ledger.link(1).void == {}


def stocked() -> Ledger:
    ledger = new_ledger()
    give(ledger, (ALICE, STOCK, 10), (BOB, MONEY, 1_000))
    ledger.execute(reserve((A1, ALICE, STOCK, 10), (B1, BOB, MONEY, 1_000)))
    return ledger


BUGS: dict[str, Callable[[Ledger], object]] = {
    "entries out of order": lambda s: s.execute(settle(2, c.Release(A1, 1))),
    "entries out of order ": lambda s: s.execute(settle(0, c.Release(A1, 1))),
    "received .* emitted": lambda s: s.execute(settle(1, sold(A1, 5, 500), emitted=(-5, 501))),
    "hold overrun": lambda s: s.execute(settle(1, sold(A1, 11, 1_100), emitted=(-11, 1_100))),
    "hold overrun ": lambda s: s.execute(settle(1, c.Release(A1, 11))),
    "hold overrun  ": lambda s: s.execute(settle(1, c.Release(A1, 0))),
    "another user's hold": lambda s: s.execute(settle(1, bought(A1, 1, 100))),
    "overdraft": lambda s: s.execute(reserve((A2, ALICE, STOCK, 1))),
    "overdraft ": lambda s: s.execute(reserve((A2, ALICE, STOCK, 0))),
    "reserved twice": lambda s: (
        s.execute(update(ALICE, STOCK, 1)),
        s.execute(reserve((A1, ALICE, STOCK, 1))),
    ),
    "a fenced market": lambda s: (
        s.execute(update(ALICE, STOCK, 1)),
        s.execute(reserve((A2, ALICE, STOCK, 1), epoch=0)),
    ),
    "has no hold": lambda s: s.execute(settle(1, c.OpenOrders(2, A2, [A1, 10, A3, 1]))),
    "hold of 4097 is 10": lambda s: s.execute(settle(1, c.OpenOrders(2, A2, [A1, 9]))),
    "created once": lambda s: s.execute(c.CreateShard(0, 1)),
    "epochs only grow": lambda s: s.execute(c.OpenEpoch(1)),
    "backwards": lambda s: s.begin(START_US - 1),
}


@pytest.mark.parametrize("message", BUGS)
def test_what_only_a_bug_would_do_ends_the_machine(message: str) -> None:
    with pytest.raises(AssertionError, match=message.strip()):
        BUGS[message](stocked())


def test_a_shard_has_a_number_below_their_count() -> None:
    with pytest.raises(AssertionError):
        Ledger().execute(c.CreateShard(2, 2))


@pytest.mark.parametrize("entry", [c.Release(A2, 1), sold(A2, 1, 100)])
def test_an_entry_for_a_hold_that_is_not_there_ends_the_machine(entry: c.Entry) -> None:
    with pytest.raises(KeyError):
        stocked().execute(settle(1, entry))


def test_received_is_kept_by_market_and_by_asset(ledger: Ledger) -> None:
    give(ledger, (ALICE, STOCK, 10))
    ledger.execute(reserve((A1, ALICE, STOCK, 10)))
    ledger.execute(settle(1, sold(A1, 4, 400), emitted=(-4, 400)))
    ledger.execute(settle(2, sold(A1, 6, 300, fee=2, referral=1), emitted=(-10, 699)))
    link = ledger.link(1)
    assert (link.applied, link.received_stock, link.received_money) == (2, -10, 699)
    assert ledger.received == {STOCK: -10, MONEY: 699}
    assert accounts(ledger) == {(ALICE, STOCK): (0, 0), (ALICE, MONEY): (698, 0)}
    assert ledger.fees == {MONEY: 1}


def test_refused_commands_must_not_be_journaled(ledger: Ledger) -> None:
    record = c.LedgerRecord(START_US, [update(ALICE, MONEY, -1)], [])
    with pytest.raises(AssertionError, match="journaled but refused"):
        ledger.apply(record, lambda machine: "")


def test_what_a_record_tells_must_have_come_of_it(ledger: Ledger) -> None:
    paid = update(ALICE, MONEY, 7)
    for told in ([], [8], [7, 7]):
        with pytest.raises(AssertionError, match="tells otherwise"):
            again(ledger).apply(c.LedgerRecord(START_US, [paid], told), state_hash)
    ledger.apply(c.LedgerRecord(START_US, [paid], [7]), state_hash)


TOLD_AMISS = [
    ([update(ALICE, MONEY, 7)], []),
    ([update(ALICE, MONEY, 7)], [7, 7]),
    ([c.OpenEpoch(2)], [7]),
    ([settle(1, sold(A1, 4, 400))], [STOCK, 6]),
    ([settle(1, c.Release(A1, 4))], [6]),
]


@pytest.mark.parametrize(("commands", "told"), TOLD_AMISS)
def test_what_is_told_belongs_to_the_commands(
    commands: list[c.LedgerCommand], told: list[int]
) -> None:
    with pytest.raises(ValueError, match="told"):
        postings_of(c.LedgerRecord(START_US, commands, told))


def test_a_checkpoint_must_agree(ledger: Ledger) -> None:
    record = c.LedgerRecord(START_US, [c.Checkpoint("abc")], [])
    ledger.apply(record, lambda machine: "abc")
    with pytest.raises(AssertionError, match="replay differs"):
        ledger.apply(record, lambda machine: "abd")
