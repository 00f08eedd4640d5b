"""A few seeds of the simulation, and a seed for each planted defect that finds it.

A seed that ever failed becomes a row here; `make sim` runs thousands, and `make sim-mutants`
hunts every defect from the first seed on.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable
from functools import partial

import pytest

from tests.core import test_fences
from tests.simulation.__main__ import run_seed, run_seeds
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutants_of_shards import COVERED

STEPS = 150
SEEDS_EACH = 500  # of the two thousand, a test

# Seeds that found faults while the protocol was built, and what they found.
SEEDS = {
    7: "a market full of results refused everything for ever, for only a record forgets",
    28: "acknowledgements of an older epoch were not believed",
    64: "a balance that changed and changed back looked wrong to the check",
    83: "a lease of an older copy was dropped while it still covered a newer one",
    230: "a denial between two commands of a record looked wrong to the check",
    10041426: "a start that took long counted its predecessor's leases from before it was durable",
    10011177: "what was left of another order looked like the funds of one that was refused",
}

# A change of the protocol changes what every seed leads to; `make sim-mutants` tells which find
# them then.
FOUND_BY = {
    "market_sends_early": 1,
    "ledger_sends_early": 1,
    "no_compare_and_append": 3,
    "snapshot_mislabelled": 1,
    "truncated_beyond_older_snapshot": 6,
    "record_time_goes_back": 2,
    "no_new_epoch": 1,
    "ids_beyond_the_block": 1,
    "outbox_pruned_on_send": 1,
    "no_wait_before_reply": 1,
    "no_wait_before_repeated_reply": 1,
    "low_too_high": 1,
    "ids_reused": 3,
    "nothing_said_again": 1,
    "given_up_and_not_aborted": 1,
    "refused_before_aborted": 1,
    "nothing_asked_again": 1,
    "executed_out_of_order": 1,
    "forgotten_unacknowledged": 1,
    "no_sticky_refusals": 3,
    "no_joining": 1,
    "results_not_recorded": 1,
    "results_forgotten_early": 1,
    "plain_results_forgotten_early": 2,
    "full_market_stays_full": 1,
    "late_requests_executed": 4,
    "unstamped_sent_again": 3,
    "orphans_not_voided": 3,
    "no_out_seq_check": 1,
    "entries_beyond_a_gap": 1,
    "acknowledged_ahead": 1,
    "unknown_is_told_as_unavailable": 9,
    "aborts_overtake_settlements": 1,
    "decided_ids_granted": 2,
    "repeats_denied": 1,
    "holds_not_journaled": 1,
    "keys_not_written": 1,
    "keys_not_looked_up": 1,
    "live_state_drifts": 1,
    "lease_never_ends": 4,
    "lease_from_receipt": 4,
    "change_answered_at_once": 1,
    "added_market_answered_at_once": 1,
    "only_the_newest_lease_counts": 7,
    "zombies_speak_and_are_heard": 3,
    "requests_of_any_epoch": 21,
    "refusals_of_any_epoch": 271,
    "no_inquiry": 527,
    "no_owner_check": 83,
    "stamps_of_any_age": 8,
    "catalog_sends_early": 138,
    "leases_counted_from_before_the_opening": 1009,
    "leases_of_the_last_epoch_forgotten": 32,
    "voids_not_remembered": 1273,
    "low_too_low": 1,
    "told_again": 1,
    "deals_not_told": 1,
    "open_orders_told_as_over": 1,
    "balance_told_before_the_fee": 1,
    "fenced_market_goes_on": 26,
    "zombie_market_heard": 26,
    "freed_names_taken_at_once": 63,
}


# Whose defects no seed finds, for they are a second line: the test that needs each.
RULES: dict[str, Callable[[], None]] = {
    "older_epochs_heard": test_fences.test_a_shard_does_not_listen_to_an_older_epoch,
    "fenced_by_gateways_ignored": partial(
        test_fences.test_an_actor_ends_when_a_gateway_knows_a_newer_epoch, "market"
    ),
}


@pytest.mark.parametrize("seed", [*range(1, 7), *SEEDS])
def test_nothing_is_violated(seed: int) -> None:
    _, what, counts, story = run_seed((seed, STEPS, ""))
    assert not what, "\n".join([*story, f"seed {seed}: {what}"])
    assert counts["deals"] > 0


@pytest.mark.parametrize("mutant", FOUND_BY)
def test_a_planted_defect_is_found(mutant: str) -> None:
    assert run_seed((FOUND_BY[mutant], STEPS, mutant))[1], f"{mutant} was not found"


@pytest.mark.parametrize("mutant", COVERED)
def test_a_covered_defect_is_found_by_the_test_of_its_rule(mutant: str) -> None:
    rule = RULES[mutant]
    rule()
    undo = MUTANTS[mutant]()
    try:
        with pytest.raises(AssertionError):
            rule()
    finally:
        undo()


def test_every_planted_defect_has_a_row() -> None:
    assert set(FOUND_BY) == set(MUTANTS) - set(COVERED)
    assert set(RULES) == set(COVERED) < set(MUTANTS)


def test_a_run_is_a_function_of_its_seed() -> None:
    assert run_seed((5, STEPS, "")) == run_seed((5, STEPS, ""))


def test_a_failure_tells_of_what_it_names() -> None:
    _, what, _, story = run_seed((FOUND_BY["results_not_recorded"], STEPS, "results_not_recorded"))
    named = what.partition("request_id=")[2].partition(",")[0]
    assert named
    assert 0 < len(story) <= 60
    assert all(named in line or named[2:-1] in line for line in story)


@pytest.mark.slow
@pytest.mark.timeout(900)  # the machine may have much else to do
@pytest.mark.parametrize("first", range(1_001, 3_001, SEEDS_EACH))
def test_two_thousand_seeds_violate_nothing(first: int) -> None:
    jobs = ((seed, STEPS, "") for seed in range(first, first + SEEDS_EACH))
    counts: collections.Counter[str] = collections.Counter()
    tried = 0
    # Workers of a run that are at work beside this one have their share of the processors.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    for seed, what, found, story in run_seeds(jobs, max(1, (os.cpu_count() or 1) // workers)):
        assert not what, "\n".join([*story, f"seed {seed}: {what}"])
        counts.update(found)
        tried += 1
    assert tried == SEEDS_EACH
    assert counts["deals"] > 5 * SEEDS_EACH
