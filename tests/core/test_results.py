"""Recorded results: kept for the time their request was promised, by record time alone."""

from __future__ import annotations

import pytest

from excore_ray.core.commands import RESULT_KEPT_STAMPED_US, RESULT_KEPT_US
from excore_ray.core.messages import Done, Placed
from excore_ray.core.results import Result, Results

STAMP_MS = 1_500_000_000_000


@pytest.mark.parametrize(
    ("stamp_ms", "kept_us"), [(0, RESULT_KEPT_US), (STAMP_MS, RESULT_KEPT_STAMPED_US)]
)
def test_a_result_is_kept_for_its_time_and_no_longer(stamp_ms: int, kept_us: int) -> None:
    results = Results()
    results.record(b"a", stamp_ms, 1_000, Done(), (3, 7))
    assert results.get(b"a") == Result(3, 7, Done())
    results.expire(1_000 + kept_us - 1)
    assert len(results) == 1
    results.expire(1_000 + kept_us)
    assert (len(results), results.get(b"a")) == (0, None)


def test_the_long_kept_do_not_hold_back_the_short_kept() -> None:
    results = Results()
    for number in range(10):
        stamp_ms = STAMP_MS if number % 2 else 0
        results.record(bytes([number]), stamp_ms, number, Placed(number, 0, 0, 0))
    results.expire(RESULT_KEPT_US + 5)
    kept = [number for number in range(10) if results.get(bytes([number])) is not None]
    assert kept == [1, 3, 5, 6, 7, 8, 9]


def test_a_request_is_recorded_once() -> None:
    results = Results()
    results.record(b"a", 0, 0, Done())
    with pytest.raises(AssertionError, match="twice"):
        results.record(b"a", 0, 1, Done())


def test_a_dump_expires_like_the_original() -> None:
    results = Results()
    for number in range(6):
        results.record(bytes([number]), number % 3, number, Done())
    again = Results()
    again.load(results.dump())
    for time_us in (RESULT_KEPT_US, RESULT_KEPT_US + 4, RESULT_KEPT_STAMPED_US + 2):
        results.expire(time_us)
        again.expire(time_us)
        assert again.dump() == results.dump()
        assert len(again) == len(results)
