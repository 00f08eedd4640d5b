"""A few seeds of the simulation, and a seed for each planted defect that finds it.

A seed that ever failed becomes a row here; `make sim` runs thousands, and `make sim-mutants`
hunts the defects that no seed finds soon.
"""

from __future__ import annotations

import collections
import os

import pytest

from tests.simulation.__main__ import run_seed, run_seeds
from tests.simulation.mutants import MUTANTS

STEPS = 150

# Seeds that found faults while the protocol was built, and what they found.
SEEDS = {
    7: "a market full of results refused everything for ever, for only a record forgets",
    28: "acknowledgements of an older epoch were not believed",
    64: "a balance that changed and changed back looked wrong to the check",
    83: "a lease of an older copy was dropped while it still covered a newer one",
    230: "a denial between two commands of a record looked wrong to the check",
}

# A change of the protocol changes what every seed leads to; `make sim-mutants` tells which find
# them then.
FOUND_BY: dict[str, int] = {}

# Not found alone, for another rule covers each of them: see ARCHITECTURE.md, simulation.
COVERED: dict[str, str] = {}


@pytest.mark.parametrize("seed", [*range(1, 7), *SEEDS])
def test_nothing_is_violated(seed: int) -> None:
    _, what, counts, story = run_seed((seed, STEPS, ""))
    assert not what, "\n".join([*story, f"seed {seed}: {what}"])
    assert counts["deals"] > 0


@pytest.mark.parametrize("mutant", FOUND_BY)
def test_a_planted_defect_is_found(mutant: str) -> None:
    assert run_seed((FOUND_BY[mutant], STEPS, mutant))[1], f"{mutant} was not found"


def test_every_planted_defect_has_a_row() -> None:
    assert set(FOUND_BY) == set(MUTANTS)


def test_a_run_is_a_function_of_its_seed() -> None:
    assert run_seed((5, STEPS, "")) == run_seed((5, STEPS, ""))


def test_a_failure_tells_of_what_it_names() -> None:
    _, what, _, story = run_seed((FOUND_BY["results_not_recorded"], STEPS, "results_not_recorded"))
    named = what.partition("request_id=")[2].partition(",")[0]
    assert named
    assert 0 < len(story) <= 60
    assert all(named in line or named[2:-1] in line for line in story)


@pytest.mark.slow
def test_two_thousand_seeds_violate_nothing() -> None:
    jobs = ((seed, STEPS, "") for seed in range(1_001, 3_001))
    counts: collections.Counter[str] = collections.Counter()
    for seed, what, found, story in run_seeds(jobs, os.cpu_count() or 1):
        assert not what, "\n".join([*story, f"seed {seed}: {what}"])
        counts.update(found)
    assert counts["deals"] > 10_000
