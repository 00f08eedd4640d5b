"""Check of the state: what is left at rest adds up, and is what was acknowledged.

Separate because it needs no order of events: only where the machines stand in the end.

    sums      per asset, what users have + fees = the updates that were executed
    machines  every machine agrees with itself, markets with shards, holds with open orders
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from excore_ray.core.audit import (
    check_catalog,
    check_conservation,
    check_holds,
    check_ledger,
    check_market,
)
from excore_ray.drill.check_commands import Matched
from excore_ray.drill.history import Operation
from excore_ray.drill.journals import Journals
from excore_ray.drill.verdict import Violation


def check_state(operations: list[Operation], matched: Matched) -> list[Violation]:
    """Every broken promise about the end of a drill, when nothing is under way any more."""
    return _check_sums(operations, matched) + _check_machines(matched.journals)


def _check_sums(operations: list[Operation], matched: Matched) -> list[Violation]:
    journals = matched.journals
    given: Counter[str] = Counter()
    for operation in operations:
        if operation.method == "balance.update" and matched.one(operation) is not None:
            _, name, _, _, change, *_ = operation.params
            scale = journals.names.asset_by_name[name].prec_save
            given[name] += int(Decimal(change).scaleb(scale))
    owned: Counter[str] = Counter()
    for facts in journals.ledgers.values():
        for accounts in facts.machine.accounts.values():
            for asset, account in accounts.items():
                name = journals.names.asset_by_id[asset].name
                owned[name] += account.available + account.frozen
        for asset, fees in facts.machine.fees.items():
            owned[journals.names.asset_by_id[asset].name] += fees
    return [
        Violation("sums", f"{name}: users and fees have {owned[name]}, given was {given[name]}")
        for name in sorted({*owned, *given})
        if owned[name] != given[name]
    ]


def _check_machines(journals: Journals) -> list[Violation]:
    ledgers = [facts.machine for facts in journals.ledgers.values()]
    markets = [facts.machine for facts in journals.markets.values()]
    found: list[Violation] = []
    try:
        check_catalog(journals.catalog.machine)
        for ledger in ledgers:
            check_ledger(ledger)
        for market in markets:
            check_market(market)
            check_holds(market, ledgers)
        check_conservation(markets, ledgers)
    except AssertionError as wrong:
        found.append(Violation("machines", str(wrong)))
    return found
