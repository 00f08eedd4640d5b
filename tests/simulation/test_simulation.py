"""A few seeds of the simulation, and a seed for each planted defect that finds it.

A seed that ever failed becomes a row here; `make sim` runs thousands.
"""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import run_seed
from tests.simulation.mutants import MUTANTS

STEPS = 150

# Seeds that found faults while the protocol was built, and what they found.
SEEDS = {
    28: "acknowledgements of an older epoch were not believed",
    64: "a balance that changed and changed back looked wrong to the check",
    83: "a lease of an older copy was dropped while it still covered a newer one",
}

# A change of the protocol changes what every seed leads to; `make sim` tells which find it then.
FOUND_BY = {
    "no_compare_and_append": range(1, 12),
    "market_sends_early": range(1, 3),
    "ledger_sends_early": range(1, 3),
    "ids_reused": range(1, 12),
    "orphans_not_voided": range(1, 12),
    "no_out_seq_check": range(1, 3),
    "outbox_pruned_on_send": range(1, 3),
    "no_wait_before_reply": range(1, 3),
    "no_sticky_refusals": range(1, 12),
    "no_inquiry": range(44, 45),
}


@pytest.mark.parametrize("seed", [*range(1, 13), *SEEDS])
def test_nothing_is_violated(seed: int) -> None:
    _, what, counts, story = run_seed((seed, STEPS, ""))
    assert not what, "\n".join([*story, f"seed {seed}: {what}"])
    assert counts["deals"] > 0


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_defect_is_found(mutant: str) -> None:
    found = [seed for seed in FOUND_BY[mutant] if run_seed((seed, STEPS, mutant))[1]]
    assert found, f"{mutant} was not found"


def test_a_run_is_a_function_of_its_seed() -> None:
    assert run_seed((7, STEPS, "")) == run_seed((7, STEPS, ""))
