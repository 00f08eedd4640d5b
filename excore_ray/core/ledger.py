"""Ledger: the machine of one shard of accounts.  Records in, answers and events out.

Separate from `custodian.py`, which decides what becomes a record: everything here is a function
of the journal alone.  It must not know clock, wire, markets' books or names.

Money only ever moves between available, frozen and fees, or arrives from markets as they say:
per asset, available + frozen + fees == updates + received, at every moment.

Source: the RPC reference for balances; ARCHITECTURE.md for holds, entries and orphans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from excore_ray.core import commands as c
from excore_ray.core.machine import DONE, Machine
from excore_ray.core.messages import Done
from excore_ray.core.orders import ORDER_ID_STRIDE, Side, market_no_of
from excore_ray.core.reasons import Reason, Refused

# Looked up by name where it is hot: an enumeration's member costs three times as much.
_SELL = Side.SELL


class Account(msgspec.Struct, gc=False, array_like=True):
    """One user's asset, at prec_save.  available may be below 0 only after a forced update."""

    available: int = 0
    frozen: int = 0


class HeldFunds(msgspec.Struct, gc=False, array_like=True):
    """What is frozen for one order.  resting: whether it may be an open order."""

    user: int
    asset: int
    remaining: int
    resting: bool


class MarketLink(msgspec.Struct, array_like=True):
    """What a shard knows of one market.

    epoch: the newest heard of.  applied: newest entry applied.  low: order ids below it are
    decided, those of older epochs among them.  received: since the beginning.
    void: ids never to be granted again.  stock_id, money_id: its assets, 0 until one has moved.
    """

    epoch: int = 0
    applied: int = 0
    low: int = 0
    received_stock: int = 0
    received_money: int = 0
    void: dict[int, bool] = {}
    stock_id: int = 0
    money_id: int = 0


class Ledger(Machine):
    """Accounts, holds, fees and recorded results of one shard.

    told: what every change of an account has left, as `LedgerRecord` has it.
    """

    told: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.shard = 0
        self.accounts: dict[int, dict[int, Account]] = {}  # user -> asset -> account
        self.holds: dict[int, dict[int, HeldFunds]] = {}  # market_no -> order_id -> hold
        self.resting: dict[int, int] = {}  # resting_key(user, market_no) -> holds
        self.links: dict[int, MarketLink] = {}
        self.fees: dict[int, int] = {}
        self.updates: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self.handlers |= {
            c.CreateShard: self._create,
            c.Reserve: self._reserve,
            c.Void: self._void,
            c.Settle: self._settle,
            c.Update: self._update,
        }
        self._apply_entry: dict[type, Callable[[MarketLink, int, Any], None]] = {
            c.Referral: self._referral,
            c.Release: self._release,
            c.OpenOrders: self._open_orders,
        }

    def record(self, commands: list[c.LedgerCommand]) -> c.LedgerRecord:
        """See Machine.record."""
        return c.LedgerRecord(self.time_us, commands, self.told)

    def account(self, user: int, asset: int) -> Account:
        """The account of `user` in `asset`, made empty when there is none."""
        accounts = self.accounts.get(user)
        if accounts is None:
            accounts = self.accounts[user] = {}
        account = accounts.get(asset)
        if account is None:
            account = accounts[asset] = Account()
        return account

    def available(self, user: int, asset: int) -> int:
        """What `user` may spend of `asset`, without making an account."""
        account = self.accounts.get(user, _NO_ACCOUNTS).get(asset)
        return account.available if account is not None else 0

    def holds_of(self, market_no: int) -> dict[int, HeldFunds]:
        """What is frozen for a market's orders, by order id; to be read only."""
        return self.holds.get(market_no, _NO_HOLDS)

    def hold_of(self, order_id: int) -> HeldFunds | None:
        """What is frozen for an order, or None."""
        holds = self.holds.get(market_no_of(order_id))
        return holds.get(order_id) if holds is not None else None

    def link(self, market_no: int) -> MarketLink:
        """What is known of a market."""
        link = self.links.get(market_no)
        if link is None:
            link = self.links[market_no] = MarketLink()
            self.holds[market_no] = {}
        return link

    def restore_resting(self) -> None:
        """Count the resting holds anew, after the holds of a snapshot are in place."""
        for market_no, holds in self.holds.items():
            for hold in holds.values():
                if hold.resting:
                    self._count_resting(resting_key(hold.user, market_no))

    # Commands.

    def _create(self, command: c.CreateShard) -> Done:
        assert not self.shards, "a shard is created once"
        assert 0 <= command.shard < command.shards
        self.shard = command.shard
        self.shards = command.shards
        return DONE

    def _update(self, command: c.Update) -> Done | Refused:
        asset, change = command.asset, command.change
        if command.repeat:
            key = f"business {command.business}, business_id {command.business_id}"
            return Refused(Reason.REPEAT_UPDATE, key)
        updates = self.updates.get(asset, 0) + change
        if not -command.net_max < updates < command.net_max:
            return Refused(Reason.INVALID_ARGUMENT, "change: net updates would pass 10^18")
        if change < 0 and not command.force and self.available(command.user, asset) + change < 0:
            return Refused(Reason.BALANCE_NOT_ENOUGH, "change: more than is available")
        # From here on the command must succeed.
        self.updates[asset] = updates
        account = self.account(command.user, asset)
        account.available += change
        self.told.append(account.available + account.frozen)
        self.results.record(command.request_id, command.stamp_ms, self.time_us, DONE)
        return DONE

    def _reserve(self, command: c.Reserve) -> Done:
        link = self.link(command.market_no)
        assert command.epoch >= link.epoch, "a reservation of a fenced market"
        link.epoch = command.epoch
        for hold in command.holds:
            assert self.freeze(command.market_no, hold), "overdraft"
        return DONE

    def freeze(self, market_no: int, hold: c.Hold) -> bool:
        """Freeze what `hold` says; False, and nothing is changed, when it is not available.

        A part of the command Reserve, alone so that whoever decides what goes into one need not
        look everything up twice.  The market must be known.
        """
        order_id, user, asset, amount = hold.order_id, hold.user, hold.asset, hold.amount
        account = self.accounts.get(user, _NO_ACCOUNTS).get(asset)
        if account is None or not account.available >= amount > 0:
            return False
        holds = self.holds[market_no]
        assert order_id not in holds, "reserved twice"
        account.available -= amount
        account.frozen += amount
        holds[order_id] = HeldFunds(user, asset, amount, hold.resting)
        if hold.resting:
            self._count_resting(resting_key(user, market_no))
        return True

    def _void(self, command: c.Void) -> Done:
        link = self.link(command.market_no)
        for order_id in command.order_ids:
            self._drop(command.market_no, order_id)
            link.void[order_id] = True
        return DONE

    def _settle(self, command: c.Settle) -> Done:
        link = self.link(command.market_no)
        assert command.first_out_seq == link.applied + 1, "entries out of order"
        before_stock, before_money = link.received_stock, link.received_money
        for entry in command.entries:
            if type(entry) is c.Leg:
                self._leg(link, command.market_no, entry)
            else:
                self._apply_entry[type(entry)](link, command.market_no, entry)
        link.applied += len(command.entries)
        link.epoch = max(link.epoch, command.epoch)
        received = (link.received_stock, link.received_money)
        assert received == command.emitted, f"received {received}, emitted {command.emitted}"
        self._receive(link.stock_id, link.received_stock - before_stock)
        self._receive(link.money_id, link.received_money - before_money)
        if command.low > link.low:
            link.low = command.low
            if link.void:
                link.void = {i: True for i in link.void if i >= command.low}
        return DONE

    # Entries.

    def _leg(self, link: MarketLink, market_no: int, leg: c.Leg) -> None:
        hold = self.holds[market_no][leg.order_id]
        user, debit, fee = leg.user, leg.debit, leg.fee
        assert hold.user == user, "a leg on another user's hold"
        assert hold.remaining >= debit, "hold overrun"
        given, taken = hold.asset, leg.credit_asset
        accounts = self.accounts[user]
        paying = accounts[given]
        receiving = accounts.get(taken)
        if receiving is None:
            receiving = accounts[taken] = Account()
        hold.remaining -= debit
        paying.frozen -= debit
        receiving.available += leg.credit - fee
        if fee:
            self.fees[taken] = self.fees.get(taken, 0) + fee - leg.referral
        received = leg.credit - leg.referral
        if leg.side == _SELL:
            link.stock_id, link.money_id = given, taken
            link.received_stock -= debit
            link.received_money += received
        else:
            link.stock_id, link.money_id = taken, given
            link.received_money -= debit
            link.received_stock += received
        self.told += (
            given,
            paying.available + paying.frozen,
            receiving.available + receiving.frozen,
        )
        if not hold.remaining:
            self._forget_hold(market_no, leg.order_id, hold)

    def _referral(self, link: MarketLink, market_no: int, referral: c.Referral) -> None:
        account = self.account(referral.user, referral.asset)
        account.available += referral.amount
        if referral.is_stock:
            link.stock_id = referral.asset
            link.received_stock += referral.amount
        else:
            link.money_id = referral.asset
            link.received_money += referral.amount
        self.told.append(account.available + account.frozen)

    def _release(self, link: MarketLink, market_no: int, release: c.Release) -> None:
        hold = self.holds[market_no][release.order_id]
        assert hold.remaining >= release.amount > 0, "hold overrun"
        account = self.accounts[hold.user][hold.asset]
        hold.remaining -= release.amount
        account.frozen -= release.amount
        account.available += release.amount
        if not hold.remaining:
            self._forget_hold(market_no, release.order_id, hold)

    def _open_orders(self, link: MarketLink, market_no: int, opened: c.OpenOrders) -> None:
        listed = dict(zip(opened.holds[::2], opened.holds[1::2], strict=True))
        holds = self.holds[market_no]
        orphans = [i for i in holds if i < opened.id_base and i not in listed]
        for order_id in orphans:
            self._drop(market_no, order_id)
        for order_id, remaining in listed.items():
            hold = holds.get(order_id)
            assert hold is not None, f"open order {order_id} has no hold"
            assert hold.remaining == remaining, f"hold of {order_id} is {hold.remaining}"
        link.epoch = max(link.epoch, opened.epoch)
        link.void = {i: True for i in link.void if i >= opened.id_base}

    # Parts of them.

    def _count_resting(self, key: int) -> None:
        self.resting[key] = self.resting.get(key, 0) + 1

    def _receive(self, asset: int, amount: int) -> None:
        if amount:
            self.received[asset] = self.received.get(asset, 0) + amount

    def _drop(self, market_no: int, order_id: int) -> None:
        hold = self.holds[market_no].get(order_id)
        if hold is None:
            return
        account = self.accounts[hold.user][hold.asset]
        account.frozen -= hold.remaining
        account.available += hold.remaining
        self._forget_hold(market_no, order_id, hold)

    def _forget_hold(self, market_no: int, order_id: int, hold: HeldFunds) -> None:
        del self.holds[market_no][order_id]
        if hold.resting:
            key = resting_key(hold.user, market_no)
            count = self.resting[key] - 1
            if count:
                self.resting[key] = count
            else:
                del self.resting[key]


def resting_key(user: int, market_no: int) -> int:
    """One integer for a user in a market: a dictionary of them is the cheapest to count in."""
    return user * ORDER_ID_STRIDE + market_no


_NO_ACCOUNTS: dict[int, Account] = {}
_NO_HOLDS: dict[int, HeldFunds] = {}
