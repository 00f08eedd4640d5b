"""What records tell the world, held against the machine that the durable records describe.

Separate because a replay can only show that the same is told again; here it is judged whether it
is true.
"""

from __future__ import annotations

from typing import Any

from excore_ray.core.commands import LedgerRecord, MarketRecord
from excore_ray.core.events import Deal, OrderFinished, events_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.postings import LegPosted, postings_of
from tests.simulation.world import Violation


def check_told(shadow: Any, record: Any, deals_before: int) -> None:
    """Raises Violation unless the record, the newest that `shadow` has applied, tells the truth.

    deals_before: the last deal_id before it, 0 but for markets.
    """
    if shadow.record(record.commands) != record:
        raise Violation(f"told otherwise than by its replay: {record}")
    if type(shadow) is Market:
        _check_deals(shadow, record, deals_before)
    elif type(shadow) is Ledger:
        _check_balances(shadow, record)


def _check_deals(market: Market, record: MarketRecord, before: int) -> None:
    events = events_of(record)
    deals = [event for event in events if type(event) is Deal]
    if [deal.deal_id for deal in deals] != list(range(before + 1, market.last_deal_id + 1)):
        raise Violation(f"not the deals from {before + 1} to {market.last_deal_id}: {deals}")
    for event in events:
        if type(event) is OrderFinished and event.order_id in market.orders:
            raise Violation(f"told to have left, and open: {event}")


def _check_balances(ledger: Ledger, record: LedgerRecord) -> None:
    newest: dict[tuple[int, int], int] = {}
    for event in postings_of(record):
        if type(event) is LegPosted:
            newest[event.leg.user, event.debit_asset] = event.debit_balance
            newest[event.leg.user, event.leg.credit_asset] = event.credit_balance
        else:
            newest[event.user, event.asset] = event.balance
    for (user, asset), balance in newest.items():
        account = ledger.accounts[user][asset]
        if balance != account.available + account.frozen:
            raise Violation(f"user {user} was told to have {balance} of asset {asset}: {account}")
