"""Report: a drill's verdict with its numbers, for people.

Separate so that what is found need not know how it is shown.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from rich.console import Console
from rich.table import Table

from excore_ray.drill.history import DONE, KILL, REFUSED, UNKNOWN
from excore_ray.drill.recovery import Recovered
from excore_ray.drill.run import Outcome

_SHOWN_MAX = 20


def print_outcome(outcome: Outcome, out: Console) -> None:
    """Print operations and faults by kind, recovery times, what is wrong, and the verdict."""
    out.print(_operations(outcome))
    out.print(_faults(outcome.recovered))
    for surprise in outcome.surprises:
        out.print(f"note: {surprise}", markup=False)
    for violation in outcome.violations[:_SHOWN_MAX]:
        out.print(f"{violation.promise}: {violation.what}", style="red", markup=False)
    broken = Counter(violation.promise for violation in outcome.violations)
    hit = len(outcome.recovered)
    told = sum(operation.outcome == DONE for operation in outcome.operations)
    verdict = ", ".join(f"{count} {promise}" for promise, count in broken.items()) or "exact"
    out.print(
        f"{verdict}: {told} acknowledged operations of {len(outcome.operations)}, {hit} faults,"
        f" {outcome.restarts} starts anew, seed {outcome.plan.seed}, {outcome.seconds:.0f} s;"
        f" {broken['lost']} lost, {broken['doubled']} doubled"
    )


def _operations(outcome: Outcome) -> Table:
    """What was asked, and what became of it."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for operation in outcome.operations:
        count = counts[operation.method]
        count[operation.outcome] += 1
        if operation.outcome == UNKNOWN and outcome.matched.found.get(operation.number):
            count["executed"] += 1
        count["again"] += operation.sends > 1
    table = Table(
        "operation", "done", "refused", "unknown", "of them executed", "sent again", box=None
    )
    for method, count in sorted(counts.items()):
        shown = (DONE, REFUSED, UNKNOWN, "executed", "again")
        table.add_row(method, *(str(count[each]) for each in shown))
    return table


def _faults(recovered: list[Recovered]) -> Table:
    """Faults by kind, and how long they were felt: all of them, and those that no other touched."""
    kinds: defaultdict[tuple[str, str], list[Recovered]] = defaultdict(list)
    for each in recovered:
        kinds[each.fault.kind, each.fault.target].append(each)
    headers = ("fault", "of", "times", "p50 s", "p95 s", "max s", "alone", "max s", "unseen")
    table = Table(*headers, box=None)
    for (kind, target), group in sorted(kinds.items()):
        times = sorted(each.seconds for each in group if each.seconds is not None)
        alone = [each.seconds for each in group if each.alone and each.seconds is not None]
        figures = [f"{_quantile(times, part):.2f}" if times else "" for part in (0.5, 0.95, 1.0)]
        figures += [str(len(alone)), f"{max(alone):.2f}"] if alone else ["", ""]
        name = "kill -9" if kind == KILL else "stopped"
        unseen = len(group) - len(times)
        table.add_row(name, target, str(len(group)), *figures, str(unseen or ""))
    return table


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
