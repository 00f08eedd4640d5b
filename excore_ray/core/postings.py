"""Postings: what a shard's record did to its accounts, read from the record alone.

Separate from `ledger.py`, which executes: a record has what every change left beside the command
that made it, so whoever wants to know what became of an account need not know what was before.
Quantities are at prec_save; times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from excore_ray.core.commands import LedgerRecord, Leg, Referral, Settle, Update

TRADE, REFERRAL = "trade", "ref"  # the business of a leg's changes, and of a referrer's share


class LegPosted(msgspec.Struct, frozen=True, gc=False):
    """The changes of one side of a deal: what was paid, what came and, unless it is 0, the fee.

    Told as one, because nearly all changes are of deals, and share all but a few numbers.
    debit_asset: what was paid.  debit_balance, credit_balance: available + frozen of the two
    accounts after all of it, at prec_save; until the fee the latter was higher by the fee.
    """

    time_us: int
    market_no: int
    leg: Leg
    debit_asset: int
    debit_balance: int
    credit_balance: int


class Posting(msgspec.Struct, frozen=True, gc=False):
    """One change of one account, other than by a leg.

    change and balance (available + frozen after it) at prec_save.
    business: "ref", or the caller's.  detail: for the caller's, JSON text; for a referrer's share
    "" with the numbers in market_no, order_id and deal_id.
    """

    user: int
    asset: int
    time_us: int
    business: str
    change: int
    balance: int
    business_id: int = 0
    detail: str = ""
    market_no: int = 0
    order_id: int = 0
    deal_id: int = 0


def postings_of(record: LedgerRecord) -> list[LegPosted | Posting]:
    """All changes of accounts a record made, in the order in which it made them.

    What only freezes or gives back is none: available + frozen stay.
    Raises ValueError when what the record tells does not belong to its commands.
    """
    made: list[LegPosted | Posting] = []
    told = iter(record.told)
    try:
        for command in record.commands:
            if type(command) is Settle:
                _add_settled(made, command, record.time_us, told)
            elif type(command) is Update:
                made.append(_updated(command, record.time_us, next(told)))
    except StopIteration:
        raise ValueError("a change has nothing told of it") from None
    if next(told, None) is not None:
        raise ValueError("more is told than was changed")
    return made


def _add_settled(
    made: list[LegPosted | Posting], settle: Settle, time_us: int, told: Iterator[int]
) -> None:
    market_no = settle.market_no
    for entry in settle.entries:
        if type(entry) is Leg:
            made.append(LegPosted(time_us, market_no, entry, next(told), next(told), next(told)))
        elif type(entry) is Referral:
            made.append(
                Posting(
                    entry.user,
                    entry.asset,
                    time_us,
                    REFERRAL,
                    entry.amount,
                    next(told),
                    market_no=market_no,
                    order_id=entry.order_id,
                    deal_id=entry.deal_id,
                )
            )


def _updated(update: Update, time_us: int, balance: int) -> Posting:
    return Posting(
        update.user,
        update.asset,
        time_us,
        update.business,
        update.change,
        balance,
        update.business_id,
        update.detail,
    )
