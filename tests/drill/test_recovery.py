"""Recovery times: which of them tell of one fault alone."""

from __future__ import annotations

import pytest

from excore_ray.drill.check_commands import Matched
from excore_ray.drill.history import KILL, STOP, Fault
from excore_ray.drill.journals import replayed
from excore_ray.drill.recovery import recoveries

SECOND_US = 1_000_000

# Two faults, each as the seconds when it began, ended and was back; whether each was felt alone.
PAIRS = [
    ((10, 10, 11), (12, 12, 13), True),
    ((10, 10, 13), (12, 12, 13), False),
    ((10, 15, 15), (12, 12, 13), False),
    ((10, 15, 15), (16, 16, 17), True),
    ((10, 10, 12), (12, 12, 13), False),  # one is back as the other begins
]


def gateway_fault(began: int, ended: int, back: int) -> Fault:
    times = [second * SECOND_US for second in (began, ended, back)]
    return Fault(STOP if ended > began else KILL, "gateway", "gateway", 7, *times)


@pytest.mark.parametrize(("one", "other", "alone"), PAIRS)
def test_a_fault_is_alone_when_no_other_is_felt(
    one: tuple[int, int, int], other: tuple[int, int, int], alone: bool
) -> None:
    nothing = Matched([], replayed([], frozenset()))
    for first, second in ((one, other), (other, one)):
        found = recoveries([], [gateway_fault(*first), gateway_fault(*second)], nothing)
        assert [each.alone for each in found] == [alone, alone]
        assert [each.seconds for each in found] == [first[2] - first[1], second[2] - second[1]]


def test_who_was_never_seen_again_may_be_felt_by_all_that_follow() -> None:
    nothing = Matched([], replayed([], frozenset()))
    unseen = Fault(KILL, "market", "market-1", 7, SECOND_US, SECOND_US)
    [first, second] = recoveries([], [unseen, gateway_fault(20, 20, 21)], nothing)
    assert (first.seconds, second.alone) == (None, False)
