"""Outboxes: numbers without gaps, what was moved up to each, and what is offered again."""

from __future__ import annotations

import pytest

from excore_ray.core.commands import Entry, Leg, Referral, Release
from excore_ray.core.outbox import Outbox


def bought(n: int) -> Leg:
    """A leg that moves n of stock and -10 n of money."""
    return Leg(n, 1, 2, 1, n, 10, n, 0, 10 * n, 1, n, 0, 0)


def filled(count: int) -> Outbox:
    """Entries 1..count; entry n moves n of stock and -10 n of money."""
    box = Outbox()
    for n in range(1, count + 1):
        assert box.add(bought(n)) == n
    return box


MOVED = [
    # entry, stock, money
    (Leg(1, 1, 1, 1, 1, 10, 7, 20, 7, 2, 70, 9, 4), -7, 66),  # sold: what goes on to a referrer
    (Leg(1, 1, 2, 1, 1, 10, 7, 20, 70, 1, 7, 3, 2), 5, -70),  # leaves for the referrer's shard
    (Referral(1, 1, 2, 1, 1, True), 2, 0),
    (Referral(1, 2, 4, 1, 1, False), 0, 4),
    (Release(1, 5), 0, 0),  # from frozen to available of one account
]


@pytest.mark.parametrize(("entry", "stock", "money"), MOVED)
def test_what_an_entry_moves(entry: Entry, stock: int, money: int) -> None:
    box = Outbox()
    box.add(entry)
    assert (box.stock, box.money) == (stock, money)


AFTER = [
    # forgotten, after, count_max -> entries, emitted
    (0, 0, 9, [1, 2, 3, 4], (10, -100)),
    (0, 0, 2, [1, 2], (3, -30)),
    (0, 2, 1, [3], (6, -60)),
    (2, 2, 9, [3, 4], (10, -100)),
    (2, 3, 9, [4], (10, -100)),
    (0, 4, 9, [], (0, 0)),
    (4, 4, 9, [], (0, 0)),
    (1, 1, 0, [], (0, 0)),
]


@pytest.mark.parametrize(("forgotten", "after", "count_max", "ids", "emitted"), AFTER)
def test_entries_from_a_place_on(
    forgotten: int, after: int, count_max: int, ids: list[int], emitted: tuple[int, int]
) -> None:
    box = filled(4)
    box.forget(forgotten)
    entries, moved = box.after(after, count_max)
    assert ([entry.order_id for entry in entries if isinstance(entry, Leg)], moved) == (
        ids,
        emitted,
    )
    assert (box.out_seq, box.acked, box.stock, box.money) == (4, forgotten, 10, -100)


def test_what_is_forgotten_already_is_forgotten_once() -> None:
    box = filled(3)
    box.forget(2)
    box.forget(1)
    assert (box.acked, len(box.dump())) == (2, 1)


def test_nobody_has_applied_what_was_not_written() -> None:
    with pytest.raises(AssertionError, match="ahead"):
        filled(3).forget(4)


def test_a_dumped_outbox_goes_on() -> None:
    box = filled(3)
    box.forget(1)
    again = Outbox(box.out_seq, box.acked, (box.stock, box.money), box.dump())
    assert again.dump() == box.dump()
    assert again.add(Release(9, 1)) == 4


def test_an_outbox_with_a_gap_is_refused() -> None:
    with pytest.raises(AssertionError, match="gap"):
        Outbox(5, 1, (0, 0), filled(3).dump())
