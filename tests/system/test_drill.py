"""A drill as operators run it, short: every kind of fault at least once, and no promise broken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from excore_ray.drill.history import DONE, UNKNOWN, load
from excore_ray.drill.nemesis import KINDS
from excore_ray.drill.report import print_outcome
from excore_ray.drill.run import Plan, drill, judge
from excore_ray.serving import Places

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SEED = 20
MINUTES = 0.5  # each kind of fault happens once, however long that takes


def test_a_drill_breaks_no_promise(tmp_path: Path) -> None:
    outcome = drill(Plan(tmp_path / "drill", MINUTES, SEED), print)
    print_outcome(outcome, Console(width=120))
    assert outcome.violations == []
    faults = Counter((each.fault.kind, each.fault.target) for each in outcome.recovered)
    assert set(faults) == set(KINDS)
    # Ray's directory and its raylet were killed, and each time all was started anew.
    assert outcome.restarts >= 2
    assert sum(operation.outcome == DONE for operation in outcome.operations) > 500
    # What was written down says the same again; and says no, when it is changed.
    places = Places(tmp_path / "drill" / "data")
    written = load(tmp_path / "drill" / "history.jsonl")
    assert written.operations == outcome.operations
    assert judge(written, places).violations == []
    puts = [o for o in written.operations if o.method == "order.put_limit" and o.outcome == DONE]
    puts[0].result["left"] = "0.0001"
    puts[1].number += 1_000_000
    unknown = [o for o in written.operations if o.outcome == UNKNOWN]
    print(f"{len(unknown)} operations of unknown fate")
    assert {v.promise for v in judge(written, places).violations} >= {"altered", "unasked", "lost"}
