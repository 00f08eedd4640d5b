"""Check of reads: whoever read saw a state the journals know, with all that was told before.

Separate from the commands because a read leaves no trace but its answer.  Each is held against
the states its stream has had between its asking and its answer: none older, none that was never
durable.  A client sees all it was told itself; of deals and names it sees what anybody was told.

    balance   balance.query
    pending   order.pending
    depth     order.depth: in order, and not crossed
    deals     market.deal_history and order.deals: every deal once, as the journal has it
    names     asset.list
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from excore_ray.core import commands as c
from excore_ray.core.events import Deal
from excore_ray.core.names import Listing
from excore_ray.core.orders import market_no_of
from excore_ray.core.sharding import shard_of
from excore_ray.core.units import format_plain
from excore_ray.drill.check_commands import Matched
from excore_ray.drill.history import DONE, Operation
from excore_ray.drill.verdict import SLACK_US, Violation, told


class _Known:
    """Of one stream, the newest entry that anybody was told of, by when."""

    def __init__(self) -> None:
        self._ended_us: list[int] = []
        self._seqs: list[int] = []

    def add(self, ended_us: int, seq: int) -> None:
        """Somebody was told at `ended_us`; called in the order of that."""
        self._ended_us.append(ended_us)
        self._seqs.append(max(seq, self._seqs[-1] if self._seqs else 0))

    def before(self, began_us: int) -> int:
        """The newest entry that anybody had been told of when something was asked."""
        place = bisect_right(self._ended_us, began_us)
        return self._seqs[place - 1] if place else 0


class Reads:
    """Judges the reads of one drill, in the order in which they were answered."""

    def __init__(self, operations: list[Operation], matched: Matched) -> None:
        self._operations = sorted(operations, key=lambda operation: operation.ended_us)
        self._matched = matched
        self._journals = matched.journals
        self._listings = matched.journals.names.market_by_name
        self._own: defaultdict[tuple[int, str], int] = defaultdict(int)  # user, stream -> entry
        self._known: defaultdict[str, _Known] = defaultdict(_Known)
        self._deals_of: dict[int, list[tuple[int, Deal]]] = {}
        for market in self._journals.markets.values():
            for seq, deal in zip(market.deal_seqs, market.deals, strict=True):
                for order_id in (deal.taker_order_id, deal.maker_order_id):
                    self._deals_of.setdefault(order_id, []).append((seq, deal))

    def check(self) -> list[Violation]:
        """Every read that saw what it should not, or missed what it should."""
        judges: dict[str, Callable[[Operation], str]] = {
            "balance.query": self._balance,
            "order.pending": self._pending,
            "order.depth": self._depth,
            "market.deal_history": self._deals,
            "order.deals": self._order_deals,
            "asset.list": self._names,
        }
        promises = {
            "balance.query": "balance",
            "order.pending": "pending",
            "order.depth": "depth",
            "asset.list": "names",
        }
        found: list[Violation] = []
        for operation in self._operations:
            if operation.outcome != DONE:
                continue
            judge = judges.get(operation.method)
            if judge is None:
                self._learn(operation)
            elif wrong := judge(operation):
                promise = promises.get(operation.method, "deals")
                found.append(Violation(promise, f"{told(operation)}: {wrong}"))
        return found

    def _learn(self, operation: Operation) -> None:
        """Its client knows of it from now on, and so does everybody who asks later."""
        for stream, executed in self._matched.found.get(operation.number, []):
            self._known[stream].add(operation.ended_us, executed.seq)
            command = executed.command
            if type(command) not in (c.Place, c.Cancel, c.Update):
                continue
            user = command.put.user if type(command) is c.Place else command.user
            self._raise(user, stream, executed.seq)
            shard = shard_of(user, self._journals.names.shards)
            ledger = self._journals.ledgers[shard]
            seq = 0
            if type(command) is c.Place:
                seq = ledger.settled.get(command.order_id, 0)
            elif type(command) is c.Cancel and command.order_id:
                seq = ledger.released.get(command.order_id, 0)
            self._raise(user, f"ledger-{shard}", seq)

    def _raise(self, user: int, stream: str, seq: int) -> None:
        self._own[user, stream] = max(self._own[user, stream], seq)

    def _balance(self, operation: Operation) -> str:
        user = operation.params[0]
        shard = shard_of(user, self._journals.names.shards)
        moments = self._journals.ledgers[shard].accounts[user]
        names = self._journals.names.asset_by_name
        seen = {}
        for name, told_of in operation.result.items():
            # Those that were renamed since are nobody's.
            if asset := names.get(name):
                parts = told_of["available"], told_of["freeze"]
                seen[asset.asset_id] = tuple(int(Decimal(p).scaleb(asset.prec_save)) for p in parts)
        may_be = moments.between(self._own[user, f"ledger-{shard}"], *_span(operation), {})
        # What is 0 has no account, or an empty one.
        if any(all(v.get(a, (0, 0)) == parts for a, parts in seen.items()) for v in may_be):
            return ""
        return f"saw {seen}, one of the {len(may_be)} states from {may_be[0]} to {may_be[-1]} was"

    def _pending(self, operation: Operation) -> str:
        user, market, _, limit = operation.params
        market_no = self._listings[market].market_no
        moments = self._journals.markets[market_no].pending[user]
        listing = self._listings[market]
        scale = listing.stock_prec
        seen = [
            (record["id"], int(Decimal(record["left"]).scaleb(scale)))
            for record in operation.result["records"]
        ]
        total = operation.result["total"]
        for value in moments.between(self._own[user, f"market-{market_no}"], *_span(operation), ()):
            if len(value) == total and len(seen) == min(total, limit) and set(seen) <= set(value):
                return ""
        return f"saw {seen} of {total}, which were never the open orders meanwhile"

    def _depth(self, operation: Operation) -> str:
        asks = [Decimal(price) for price, _ in operation.result["asks"]]
        bids = [Decimal(price) for price, _ in operation.result["bids"]]
        if asks != sorted(set(asks)) or bids != sorted(set(bids), reverse=True):
            return "the levels are out of order"
        if asks and bids and asks[0] <= bids[0]:
            return f"the book is crossed: ask {asks[0]}, bid {bids[0]}"
        return ""

    def _deals(self, operation: Operation) -> str:
        market, limit, last = operation.params
        listing = self._listings[market]
        facts = self._journals.markets[listing.market_no]
        records = operation.result["records"]
        expected = facts.deals[last : last + len(records)]
        for record, deal in zip(records, expected, strict=False):
            if _shown(record) != _of_deal(listing, deal) or record["side"] != deal.side:
                return f"told {record}, the journal says {deal}"
        if len(records) > len(expected):
            return f"told {len(records)} deals after {last}, the journal has {len(expected)}"
        known = self._known[f"market-{listing.market_no}"].before(operation.began_us)
        due = bisect_right(facts.deal_seqs, known) - last
        if len(records) < min(due, limit):
            return f"told {len(records)} deals after {last}, known were {due}"
        return ""

    def _order_deals(self, operation: Operation) -> str:
        order_id, _, limit = operation.params
        listing = self._journals.names.market_by_no[market_no_of(order_id)]
        records = operation.result["records"][::-1]  # oldest first
        all_of_it = self._deals_of.get(order_id, [])
        known = self._known[f"market-{listing.market_no}"].before(operation.began_us)
        due = sum(seq <= known for seq, _ in all_of_it)
        if len(records) == limit:
            return ""
        if len(records) < due:
            return f"told {len(records)} deals, known were {due}"
        expected = [_of_deal(listing, deal) for _, deal in all_of_it[: len(records)]]
        if [_shown(record) for record in records] != expected:
            return f"told {records}, the journal says {expected}"
        return ""

    def _names(self, operation: Operation) -> str:
        seen = [record["name"] for record in operation.result["records"]]
        known = self._known["catalog"].before(operation.began_us)
        until_us = operation.ended_us + SLACK_US
        # A change may be journaled for a while before anybody uses it: until it is answered.
        may_be = self._journals.catalog.names.between(known, 0, until_us, [])
        return "" if seen in may_be else f"saw {seen}, which were never the names meanwhile"


def check_reads(operations: list[Operation], matched: Matched) -> list[Violation]:
    """Every broken promise about what was read."""
    return Reads(operations, matched).check()


def watched(operations: list[Operation]) -> set[int]:
    """The users whose accounts or open orders anybody has read."""
    reads = ("balance.query", "order.pending")
    return {operation.params[0] for operation in operations if operation.method in reads}


def _span(operation: Operation) -> tuple[int, int]:
    return operation.began_us - SLACK_US, operation.ended_us + SLACK_US


def _of_deal(listing: Listing, deal: Deal) -> list[Any]:
    price, amount = format_plain(deal.price, listing.money_prec), deal.amount
    return [deal.deal_id, Decimal(price), Decimal(format_plain(amount, listing.stock_prec))]


def _shown(record: dict[str, Any]) -> list[Any]:
    return [record["id"], Decimal(record["price"]), Decimal(record["amount"])]
