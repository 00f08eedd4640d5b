"""Times: the protocol's long times and large blocks, made as short as the simulation's second.

Separate because they are constants of the core, not limits that a desk is given: they are set
for one run and set back after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from excore_ray.core import commands, reception, results, sequencer
from tests.simulation.world import MS

# As in earnest, a result outlives its gateway's deadline or its stamp by more than clocks differ.
SHORT: tuple[tuple[ModuleType, str, int], ...] = (
    (commands, "RESULT_KEPT_US", 1_200 * MS),
    (results, "RESULT_KEPT_US", 1_200 * MS),
    (commands, "RESULT_KEPT_STAMPED_US", 1_700 * MS),
    (results, "RESULT_KEPT_STAMPED_US", 1_700 * MS),
    (commands, "STAMP_AGE_MAX_US", 1_000 * MS),
    (commands, "NAME_KEPT_US", 3_000 * MS),
    (reception, "DEADLINE_SLACK_US", 600 * MS),
    (sequencer, "IDS_PER_BLOCK", 40),
)


@contextmanager
def short_times() -> Iterator[None]:
    """Everything within runs with the short ones."""
    before = [getattr(module, name) for module, name, _ in SHORT]
    for module, name, value in SHORT:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(SHORT, before, strict=True):
            setattr(module, name, value)
