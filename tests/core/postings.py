"""Postings: what a shard told, written out as one change of one account after the other.

Separate because a leg is told as one, and several tests want to see each of its changes.  It is
the naive account of it, against which the columns of the archive are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from excore_ray.core import commands as c
from excore_ray.core.ledger import Ledger
from excore_ray.core.postings import LegPosted, Posting, postings_of


class Change(NamedTuple):
    """One row of balances, in integers: 0 stands for none, and -1 where there is no fee_rate."""

    user: int
    asset: int
    time_us: int
    business: str
    change: int
    balance: int
    business_id: int
    detail: str
    market_no: int
    order_id: int
    deal_id: int
    price: int = 0
    amount: int = 0
    fee_rate: int = -1


def told_by(ledger: Ledger, *commands: c.LedgerCommand) -> list[LegPosted | Posting]:
    """What a shard tells of these commands, which are all that has changed its accounts since it
    last began a record, or since its `told` was cleared.
    """
    return postings_of(ledger.record([*commands]))


def changes_of(events: Iterable[LegPosted | Posting]) -> list[Change]:
    """All changes these events tell of, in the order in which they were made."""
    return [change for event in events for change in _changes_of(event)]


def _changes_of(event: LegPosted | Posting) -> Iterator[Change]:
    if isinstance(event, Posting):
        yield Change(
            event.user,
            event.asset,
            event.time_us,
            event.business,
            event.change,
            event.balance,
            event.business_id,
            event.detail,
            event.market_no,
            event.order_id,
            event.deal_id,
        )
        return
    leg, after = event.leg, event.credit_balance
    moves = [
        (event.debit_asset, -leg.debit, event.debit_balance, -1),
        (leg.credit_asset, leg.credit, after + leg.fee, -1),
    ]
    if leg.fee:
        moves.append((leg.credit_asset, -leg.fee, after, leg.fee_rate))
    for asset, change, balance, fee_rate in moves:
        yield Change(
            leg.user,
            asset,
            event.time_us,
            "trade",
            change,
            balance,
            0,
            "",
            event.market_no,
            leg.order_id,
            leg.deal_id,
            leg.price,
            leg.amount,
            fee_rate,
        )
