"""Check of commands: each acknowledged one was executed once, as told, and in the order of time.

Separate from the reads because here the journals are held against the clients word by word.  It
must not know who was killed when: the promises do not depend on it.

    lost       acknowledged, and in no journal
    doubled    executed more than once, whatever was told
    refused    "nothing was done and nothing will be", and yet it was executed
    altered    executed otherwise than it was asked, or than its client was told
    unasked    executed, and nobody has asked it
    order      executed before another one of its stream, though asked after that was answered
    internal   answered with "internal error"
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from api.replies import ERROR_KINDS, placed_reply
from excore_ray.core import commands as c
from excore_ray.core.custodian import market_name
from excore_ray.core.messages import Placed
from excore_ray.core.orders import Side
from excore_ray.core.reasons import Reason
from excore_ray.core.registrar import CATALOG
from excore_ray.core.shardlink import shard_name
from excore_ray.drill.clients import BUSINESS
from excore_ray.drill.history import DONE, REFUSED, UNKNOWN, Operation
from excore_ray.drill.journals import Executed, Journals
from excore_ray.drill.verdict import Violation, told

PUTS = ("order.put_limit", "order.put_market")
_SUCCESS = {"status": "success"}
_INTERNAL = ERROR_KINDS[Reason.INTERNAL_ERROR].code
_FOREVER_US = 2**63


class Found(NamedTuple):
    """Where an operation was executed."""

    stream: str
    executed: Executed


class Matched:
    """Operations beside what was executed for them, by the number of the operation.

    unasked: what was executed for none.
    """

    def __init__(self, operations: Iterable[Operation], journals: Journals) -> None:
        self.found: defaultdict[int, list[Found]] = defaultdict(list)
        self.unasked: list[Found] = []
        self.journals = journals
        self._by_request: dict[str, Operation] = {}
        self._by_number: dict[int, Operation] = {}
        self._cancels: dict[tuple[int, str, int], Operation] = {}
        for operation in operations:
            self._by_number[operation.number] = operation
            if operation.request_id:
                self._by_request[operation.request_id] = operation
            elif operation.method == "order.cancel":
                user, market, order_id = operation.params
                self._cancels[user, market, order_id] = operation
        for stream, executed in _streams(journals):
            self._match(stream, executed)

    def one(self, operation: Operation) -> Executed | None:
        """What was executed for an operation; the first, should there be several."""
        found = self.found.get(operation.number)
        return found[0].executed if found else None

    def _match(self, stream: str, executed: list[Executed]) -> None:
        for each in executed:
            operation = self._operation_of(stream, each.command)
            if operation is None:
                self.unasked.append(Found(stream, each))
            else:
                self.found[operation.number].append(Found(stream, each))

    def _operation_of(self, stream: str, command: Any) -> Operation | None:
        if type(command) is c.Place:
            number = command.put.source.removeprefix("drill-")
            found = self._by_number.get(int(number)) if number.isdigit() else None
            return found if found is not None and found.method in PUTS else None
        if type(command) is c.Update:
            found = self._by_number.get(command.business_id)
            mine = found is not None and command.business == BUSINESS
            return found if mine else None
        stamped = self._by_request.get(command.request_id.hex())
        if stamped is not None or type(command) is not c.Cancel:
            return stamped
        market = self.journals.names.market_by_no[int(stream.partition("-")[2])].name
        return self._cancels.get((command.user, market, command.order_id))


def check_commands(operations: list[Operation], matched: Matched) -> list[Violation]:
    """Every broken promise about what was to be executed."""
    found: list[Violation] = []
    for stream, executed in matched.unasked:
        where = f"entry {executed.seq} of {stream}"
        found.append(Violation("unasked", f"{where} executes {executed.command}"))
    for operation in operations:
        found += _check_one(operation, matched)
    return found + _check_order(operations, matched)


def _check_one(operation: Operation, matched: Matched) -> list[Violation]:
    what, places = told(operation), matched.found.get(operation.number, [])
    found: list[Violation] = []
    if operation.code == _INTERNAL:
        found.append(Violation("internal", what))
    if len(places) > 1:
        where = ", ".join(f"entry {one.executed.seq} of {one.stream}" for one in places)
        found.append(Violation("doubled", f"{what}: {where}"))
    if operation.outcome == REFUSED and places:
        where = f"entry {places[0].executed.seq} of {places[0].stream}"
        found.append(Violation("refused", f"{what}: {where}"))
    if operation.outcome == DONE and not places and _is_command(operation.method):
        found.append(Violation("lost", what))
    for place in places:
        found += _check_answer(operation, place, matched.journals)
    return found


def _check_answer(operation: Operation, place: Found, journals: Journals) -> list[Violation]:
    """What differs between asked, executed and told."""
    command, answer = place.executed.command, place.executed.answer
    expected: Any = _SUCCESS
    if type(command) is c.Place:
        listing = journals.names.market_by_no[int(place.stream.partition("-")[2])]
        assert type(answer) is Placed
        expected = msgspec.to_builtins(placed_reply(listing, command.put, answer))
        asked = _asked(operation)
        executed = _values(expected)
        if asked != executed:
            what = f"{told(operation)}: executed was {executed}"
            return [Violation("altered", what)]
        command = command.put
    elif type(command) is c.Update:
        asset = journals.names.asset_by_id[command.asset]
        executed = [command.user, asset.name, Decimal(command.change).scaleb(-asset.prec_save)]
        user, name, _, _, change, *_ = operation.params
        if [user, name, Decimal(change)] != executed:
            return [Violation("altered", f"{told(operation)}: executed was {executed}")]
    if operation.request_id and command.request_id.hex() != operation.request_id:
        what = f"{told(operation)}: executed under the id {command.request_id.hex()}"
        return [Violation("altered", what)]
    if operation.outcome == DONE and operation.result != expected:
        what = f"{told(operation)}: told {operation.result}, the journal says {expected}"
        return [Violation("altered", what)]
    return []


def _asked(operation: Operation) -> list[Any]:
    """User, market, side, amount and price that an order was asked with."""
    user, market, side, amount, price, *_ = operation.params
    if operation.method == "order.put_market":
        price = "0"
    return [user, market, side, Decimal(amount), Decimal(price)]


def _values(reply: dict[str, Any]) -> list[Any]:
    side = Side(reply["side"])
    return [
        reply["user"],
        reply["market"],
        int(side),
        Decimal(reply["amount"]),
        Decimal(reply["price"]),
    ]


def _check_order(operations: list[Operation], matched: Matched) -> list[Violation]:
    """Of each stream: who was asked after another was answered is executed after it."""
    lines: defaultdict[str, list[tuple[int, Operation]]] = defaultdict(list)
    for operation in operations:
        for stream, executed in matched.found.get(operation.number, []):
            lines[stream].append((executed.place, operation))
    found: list[Violation] = []
    for stream, line in lines.items():
        line.sort(key=lambda pair: pair[0])
        latest: Operation | None = None  # the one that was asked last, of those before
        for _, operation in line:
            ended_us = operation.ended_us if operation.outcome != UNKNOWN else _FOREVER_US
            if latest is not None and ended_us < latest.began_us:
                what = f"{stream}: {told(latest)} before {told(operation)}"
                found.append(Violation("order", what))
            if latest is None or operation.began_us > latest.began_us:
                latest = operation
    return found


def _is_command(method: str) -> bool:
    return method in PUTS or method in (
        "order.cancel",
        "balance.update",
        "asset.add",
        "asset.rename",
        "market.add",
    )


def _streams(journals: Journals) -> Iterable[tuple[str, list[Executed]]]:
    yield CATALOG, journals.catalog.executed
    for shard, ledger in journals.ledgers.items():
        yield shard_name(shard), ledger.executed
    for market_no, market in journals.markets.items():
        yield market_name(market_no), market.executed
