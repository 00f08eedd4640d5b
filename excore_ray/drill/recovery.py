"""Recovery: how long after each fault what was hit had served somebody again.

Separate because it is measured, not judged.  The time runs from a kill, or from the moment a
stopped process was continued, to the first acknowledged operation that needed what was hit: after
a kill one that a later incarnation has executed, by the epoch of its entry.  Which gateway
answers, and whether the compactor works, clients cannot tell; the nemesis has looked.

Faults overlap: while Ray's own processes are stopped nothing is restarted, and a stopped gateway
holds its lease.  So it is told of each whether any other was felt meanwhile.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from excore_ray.core import commands as c
from excore_ray.core.sharding import shard_of
from excore_ray.core.shardlink import shard_name
from excore_ray.drill.check_commands import Matched
from excore_ray.drill.history import DONE, KILL, Fault, Operation
from excore_ray.drill.nemesis import VITAL

_HISTORY = ("market.deal_history", "order.deals")


class Served(NamedTuple):
    """An acknowledged operation that needed an actor.  epoch: of the entry there, 0 for none."""

    ended_us: int
    began_us: int
    epoch: int


class Recovered(NamedTuple):
    """A fault, and the seconds until what it hit was back; None when nobody asked it again.

    alone: whether nothing else was felt from when it began until then.
    """

    fault: Fault
    seconds: float | None
    alone: bool


def recoveries(
    operations: Iterable[Operation], faults: Iterable[Fault], matched: Matched
) -> list[Recovered]:
    """Of each fault, how long it was felt."""
    served = _served(operations, matched)
    felt = [(fault, _seconds(fault, served)) for fault in faults]
    spans = [_span(fault, seconds) for fault, seconds in felt]
    return [
        Recovered(fault, seconds, _is_alone(span, spans))
        for (fault, seconds), span in zip(felt, spans, strict=True)
    ]


def _span(fault: Fault, seconds: float | None) -> tuple[int, float]:
    """From when until when a fault was felt, for ever when nobody has seen the end of it."""
    return fault.began_us, fault.ended_us + (math.inf if seconds is None else seconds * 1e6)


def _is_alone(span: tuple[int, float], spans: list[tuple[int, float]]) -> bool:
    """Whether this one of the spans is touched by none but itself."""
    began_us, back_us = span
    return sum(began <= back_us and back >= began_us for began, back in spans) == 1


def _served(operations: Iterable[Operation], matched: Matched) -> dict[str, list[Served]]:
    """What was answered with the help of each actor, in the order of the answers."""
    served: defaultdict[str, list[Served]] = defaultdict(list)
    shards = matched.journals.names.shards
    for operation in operations:
        if operation.outcome != DONE:
            continue
        span = operation.ended_us, operation.began_us
        served[""].append(Served(*span, 0))
        if operation.method in _HISTORY:
            served["archive"].append(Served(*span, 0))
        for stream, executed in matched.found.get(operation.number, []):
            served[stream].append(Served(*span, executed.epoch))
            if type(executed.command) is c.Place:
                shard = shard_of(executed.command.put.user, shards)
                epoch = matched.journals.ledgers[shard].held.get(executed.command.order_id, 0)
                served[shard_name(shard)].append(Served(*span, epoch))
    for each in served.values():
        each.sort()
    return dict(served)


def _seconds(fault: Fault, served: dict[str, list[Served]]) -> float | None:
    if fault.target in ("gateway", "compactor"):
        since_us = fault.began_us if fault.kind == KILL else fault.ended_us
        return (fault.back_us - since_us) / 1e6 if fault.back_us else None
    if fault.target in VITAL:
        # Until it is noticed that nothing can be restarted, the others serve on.
        since_us = fault.back_us if fault.kind == KILL else fault.ended_us
        first = _first(served.get("", []), since_us, -1)
        return None if first is None else (first - fault.ended_us) / 1e6
    line = served.get(fault.victim, [])
    if fault.kind == KILL and fault.target != "archive":
        place = bisect_right(line, fault.began_us, key=lambda one: one.ended_us)
        epoch = max((one.epoch for one in line[:place]), default=0)
        first = _first(line, fault.began_us, epoch)
    elif fault.kind == KILL:
        later = [one for one in line if one.began_us >= fault.began_us]
        first = _first(later, fault.began_us, -1)
    else:
        first = _first(line, fault.ended_us, -1)
    return None if first is None else (first - fault.ended_us) / 1e6


def _first(line: list[Served], since_us: int, epoch: int) -> int | None:
    """When the first was answered after `since_us` that a later incarnation has served."""
    place = bisect_right(line, since_us, key=lambda one: one.ended_us)
    return next((one.ended_us for one in line[place:] if one.epoch > epoch), None)
