"""`python -m tests.simulation`: run seeds, or show that each planted defect is found.

Exit code 0 when nothing is violated (or every planted defect was found), 1 otherwise.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterable

from tests.simulation.mutants import MUTANTS
from tests.simulation.scenario import Scenario
from tests.simulation.times import short_times

Outcome = tuple[int, str, dict[str, int], list[str]]


def run_seed(job: tuple[int, int, str]) -> Outcome:
    """One seed: (seed, what was violated or "", counts of faults, the story of it)."""
    with short_times():
        return _run_seed(*job)


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
    rate = arguments.seeds / seconds
    print(f"{arguments.seeds:,} seeds, {violations} violations, {rate:.1f} seeds/s")
    return 1 if violations else 0


def hunt(arguments: argparse.Namespace) -> int:
    """Each planted defect must be found; prints after how many seeds."""
    missed = 0
    for mutant in MUTANTS:
        if arguments.mutants not in ("all", mutant):
            continue
        jobs = ((arguments.seed + n, arguments.steps, mutant) for n in range(arguments.seeds))
        for tried, (seed, what, _, _) in enumerate(run_seeds(jobs, arguments.processes), 1):
            if what:
                print(f"{mutant:24} found by seed {seed} after {tried}: {what[:90]}", flush=True)
                break
        else:
            missed += 1
            print(f"{mutant:24} NOT found in {arguments.seeds} seeds", flush=True)
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
