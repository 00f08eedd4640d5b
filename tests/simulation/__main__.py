"""`python -m tests.simulation`: run seeds, or show that each planted defect is found.

Exit code 0 when nothing is violated (or every planted defect was found), 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import gc
import multiprocessing
import resource
import sys
import time
import traceback
from collections.abc import Iterable

from tests.simulation.mutants import MUTANTS
from tests.simulation.mutants_of_shards import COVERED
from tests.simulation.scenario import Scenario
from tests.simulation.times import short_times

MUTANT_SEEDS_MAX = 5_000  # what a planted defect may take
Outcome = tuple[int, str, dict[str, int], list[str]]


def run_seed(job: tuple[int, int, str]) -> Outcome:
    """One seed: (seed, what was violated or "", counts of faults, the story of it)."""
    # Nothing worth looking for is left behind amid a run.  All of it is in cycles at its end, and
    # is freed while it is in the caches still; what was there before is none of it.
    gc.disable()
    gc.freeze()
    try:
        with short_times():
            return _run_seed(*job)
    finally:
        gc.collect()
        gc.unfreeze()
        gc.enable()


def _run_seed(seed: int, steps: int, mutant: str) -> Outcome:
    undo = MUTANTS[mutant]() if mutant else None
    scenario = None
    try:
        scenario = Scenario(seed)
        scenario.run(steps)
    except Exception as broken:  # whatever it is, no run may end with it
        where = traceback.extract_tb(broken.__traceback__)[-1]
        what = f"{type(broken).__name__}: {broken} ({where.name}:{where.lineno})"
        story = scenario.world.story.tell(str(broken)) if scenario is not None else []
        return seed, what, {}, story
    finally:
        if undo is not None:
            undo()
    return seed, "", dict(scenario.world.counts), []


def run_seeds(jobs: Iterable[tuple[int, int, str]], processes: int) -> Iterable[Outcome]:
    """Run many seeds, in parallel, in any order."""
    if processes == 1:
        yield from map(run_seed, jobs)
        return
    with multiprocessing.Pool(processes) as pool:
        yield from pool.imap_unordered(run_seed, jobs, chunksize=4)
        pool.close()
        pool.join()


def _cpu_seconds() -> float:
    """What this process and those it has waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def simulate(arguments: argparse.Namespace) -> int:
    """All seeds without defects; prints the counts of every fault."""
    started = time.perf_counter()
    counts: collections.Counter[str] = collections.Counter()
    violations = 0
    jobs = ((arguments.seed + n, arguments.steps, "") for n in range(arguments.seeds))
    for seed, what, found, story in run_seeds(jobs, arguments.processes):
        counts.update(found)
        if what:
            violations += 1
            print("\n".join(story), f"\nseed {seed}: {what}\n", flush=True)
    seconds = time.perf_counter() - started
    for name, count in sorted(counts.items()):
        print(f"{count:>12,}  {name}")
    rate, cpu_rate = arguments.seeds / seconds, arguments.seeds / _cpu_seconds()
    print(
        f"{arguments.seeds:,} seeds, {violations} violations, {rate:.1f} seeds/s,"
        f" {cpu_rate:.1f} a second of one core"
    )
    return 1 if violations else 0


def hunt_one(job: tuple[str, int, int, int]) -> tuple[str, int, int, str]:
    """One planted defect: (its name, the seed that found it, seeds it took, what was violated).

    The last is "" when no seed has found it.
    """
    mutant, first, seeds, steps = job
    for tried in range(1, seeds + 1):
        seed, what, _, _ = run_seed((first + tried - 1, steps, mutant))
        if what:
            return mutant, seed, tried, what
    return mutant, 0, seeds, ""


def hunt(arguments: argparse.Namespace) -> int:
    """Each planted defect must be found; prints by which seed, after how many, and how."""
    chosen = [arguments.mutants] if arguments.mutants in MUTANTS else []
    if arguments.mutants == "all":
        chosen = [name for name in MUTANTS if name not in COVERED]
    seeds = min(arguments.seeds, MUTANT_SEEDS_MAX)
    jobs = [(name, arguments.seed, seeds, arguments.steps) for name in chosen]
    missed = [] if chosen else [arguments.mutants]
    print(f"{'defect':36}{'seed':>6}{'seeds':>7}  violated", flush=True)
    with multiprocessing.Pool(arguments.processes) as pool:
        for mutant, seed, tried, what in pool.imap_unordered(hunt_one, jobs):
            if what:
                print(f"{mutant:36}{seed:>6}{tried:>7}  {what[:100]}", flush=True)
            else:
                missed.append(mutant)
                print(f"{mutant:36}{'-':>6}{tried:>7}  NOT FOUND", flush=True)
    print(f"{len(chosen)} defects, {len(missed)} not found: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds")
    parser.add_argument("--steps", type=int, default=150, help="wishes of clients in a run")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--mutants", default="", help="hunt a planted defect, or 'all', instead")
    arguments = parser.parse_args()
    return hunt(arguments) if arguments.mutants else simulate(arguments)


if __name__ == "__main__":
    sys.exit(main())
