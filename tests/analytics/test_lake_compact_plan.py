"""What a plan merges and what retention lets go of, for manifests without a lake."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.lake import FileEntry, Manifest
from analytics.lake_compact import MIB, Merge, Settings, expired, plan
from analytics.lake_manifest import file_name, in_order

DATE, NEXT_DATE = "2026-11-22", "2026-11-23"
LARGE = (10, 64 * MIB)
Size = tuple[int, int]
Runs = list[tuple[int, int]]


def entry(
    place: int, size: Size, table: str = "deals", part: int = 1, date: str = DATE
) -> FileEntry:
    """A file of a manifest, with (rows, bytes)."""
    seqs = 10 * place + 1, 10 * place + 9
    return FileEntry(table, file_name(table, part, date, seqs, None), part, date, *seqs, *size)


def runs_of(sizes: Sequence[Size], today: str) -> Runs:
    """The merges planned for files of these sizes, as places of the first and the last."""
    files = [entry(place, size) for place, size in enumerate(sizes)]
    merges = plan(Manifest(files=tuple(files)), today)
    runs = [(files.index(each.files[0]), files.index(each.files[-1])) for each in merges]
    assert [each.files for each in merges] == [
        tuple(files[first : last + 1]) for first, last in runs
    ]
    return runs


@pytest.mark.parametrize(
    ("rows", "runs"),
    [
        ([1] * 7, []),
        ([1] * 8, [(0, 7)]),
        ([1] * 30, [(0, 29)]),
        ([4096] * 8, [(0, 7)]),
        ([5, 9, 1, 20, 3, 7, 11, 7], []),  # 63 rows: those of 9, 11 and 20 would not rise
        ([5, 9, 1, 20, 3, 7, 11, 8], [(0, 7)]),
        ([100, *[1] * 8], [(1, 8)]),
        ([*[1] * 8, 100, *[1] * 8], [(0, 7), (9, 16)]),
        ([*[1] * 7, 100, *[1] * 7], []),
        ([*[1] * 8, 100, *[1] * 7], [(0, 7)]),
        ([100, *[1] * 5, 200, 206], []),
        ([*[100] * 5, 1, 1, 10], [(0, 7)]),
        ([*[1] * 8, None, *[1] * 8], [(0, 7), (9, 16)]),  # None: a large file
        ([*[1] * 7, None, *[1] * 7], []),
        ([None] * 20, []),
    ],
)
def test_a_date_that_grows_is_merged_tier_by_tier(rows: list[int | None], runs: Runs) -> None:
    sizes = [LARGE if count is None else (count, 100 * count) for count in rows]
    assert runs_of(sizes, DATE) == runs
    assert runs_of(sizes, "2026-11-21") == runs


@pytest.mark.parametrize(
    ("mib", "runs"),
    [
        ([1], []),
        ([1, 1], [(0, 1)]),
        ([63, 1, 2], [(0, 2)]),
        ([64, 64], []),
        ([64, 1], [(0, 1)]),
        ([1, 64, 1], [(0, 2)]),
        ([500, 1, 501], [(0, 1)]),
        ([400, 30, 100], [(1, 2)]),
        ([400, 30, 40, 100], [(1, 2)]),
        ([512, 1, 512], []),
        ([512, 1, 1, 512], [(1, 2)]),
        ([600, 1], []),
        ([60] * 9, [(0, 6), (7, 8)]),
        ([63] * 16, [(0, 7), (8, 15)]),
        ([63] * 18, [(0, 7), (8, 15), (16, 17)]),
        ([*[63] * 8, 1, 1], [(0, 9)]),
    ],
)
def test_a_date_that_is_over_has_no_small_files(mib: list[int], runs: Runs) -> None:
    assert runs_of([(10, each * MIB) for each in mib], NEXT_DATE) == runs


def test_more_files_than_may_be_open_take_several_rounds() -> None:
    sizes = [(1, 100)] * 130
    assert runs_of(sizes, NEXT_DATE) == [(0, 63), (64, 127), (128, 129)]
    assert runs_of(sizes, DATE) == [(0, 63), (64, 127)]
    assert runs_of([(64, 6400)] * 2 + [(2, 200)], NEXT_DATE) == [(0, 2)]


@pytest.mark.parametrize("today", ["2026-1-1", "20261122", "today"])
def test_a_day_that_is_no_date_is_refused(today: str) -> None:
    with pytest.raises(ValueError, match=today):
        plan(Manifest(), today)
    with pytest.raises(ValueError, match=today):
        expired(Manifest(), today, 1)


def test_settings_and_merges_that_cannot_work_are_refused() -> None:
    for wrong in ({"bytes_min": 200 * MIB}, {"bytes_min": 0}, {"factor": 1}, {"files_max": 7}):
        with pytest.raises(ValueError, match=r"bytes_max \d+ is less|factor \d is not from 2"):
            Settings(**wrong)
    one, two = entry(1, (1, 1)), entry(2, (1, 1))
    for files in ((one,), (two, one), (one, one), (one, replace(two, part=2))):
        with pytest.raises(ValueError, match=r"not in order|two files"):
            Merge(files)


def applied(manifest: Manifest, merges: Sequence[Merge]) -> Manifest:
    """The manifest after all merges, with files of the sizes that are expected."""
    files = set(manifest.files)
    for each in merges:
        files -= set(each.files)
        rows, size = (sum(n) for n in zip(*((f.rows, f.bytes) for f in each.files), strict=True))
        last = each.files[-1].last_seq
        files.add(replace(each.files[0], last_seq=last, rows=rows, bytes=size))
    return Manifest(files=in_order(files))


SIZES = st.tuples(st.integers(1, 4000), st.sampled_from([1, 2, 7, 8, 9, 20, 40, 63, 64, 65]))


@given(
    st.lists(st.tuples(SIZES, st.sampled_from("ab"), st.integers(0, 1)), max_size=60),
    st.sampled_from(["2026-11-22", "2026-11-23", "2026-11-24"]),
)
def test_a_plan_keeps_its_rules_and_leaves_nothing_to_do(
    files: list[tuple[Size, str, int]], today: str
) -> None:
    settings = Settings(bytes_min=8, bytes_max=64, factor=3)
    tables, dates = {"a": "deals", "b": "orders"}, [DATE, NEXT_DATE]
    manifest = Manifest(
        files=in_order(
            entry(place, size, tables[name], 1, dates[day])
            for place, (size, name, day) in enumerate(files)
        )
    )
    merges = plan(manifest, today, settings)
    for each in merges:
        first = manifest.files.index(each.files[0])
        assert each.files == manifest.files[first : first + len(each.files)]
        assert sum(file.bytes for file in each.files) <= 64
    assert len({file for each in merges for file in each.files}) == sum(
        len(each.files) for each in merges
    )
    after = applied(manifest, merges)
    assert plan(after, today, settings) == []
    for (_, date), group in groupby(after.files, lambda file: (file.table, file.date)):
        sizes = [file.bytes for file in group]
        if date < today and len(sizes) > 1:
            for place, size in enumerate(sizes):
                beside = [*sizes[max(place - 1, 0) : place], *sizes[place + 1 : place + 2]]
                assert size >= 8 or all(size + other > 64 for other in beside)


def test_a_row_is_written_a_logarithm_of_times() -> None:
    chance = random.Random(1)
    manifest, written, count = Manifest(), 0, 0
    for place in range(3000):
        rows = chance.choice((1, 3, 10, chance.randrange(1, 200)))
        count += rows
        manifest = Manifest(files=(*manifest.files, entry(place, (rows, 100 * rows))))
        merges = plan(manifest, DATE)
        written += sum(file.rows for each in merges for file in each.files)
        manifest = applied(manifest, merges)
        assert len(manifest.files) < 64
    assert sum(file.rows for file in manifest.files) == count
    assert written < 4 * count  # 8**6 rows is more than there are, and few rows begin at the bottom


@pytest.mark.parametrize(
    ("keep_days", "gone"),
    [
        (0, ""),
        (1, "deals-20 deals-21 orders-20 orders-21 balances-20 balances-21"),
        (2, "deals-20 orders-20 balances-20"),
        (3, ""),
        (99_999, ""),
        ({}, ""),
        ({"deals": 1, "orders": 0}, "deals-20 deals-21"),
        ({"bars": 2, "balances": 1}, "bars-20 balances-20 balances-21"),
    ],
)
def test_what_is_older_than_it_has_to_be_is_let_go(
    keep_days: dict[str, int] | int, gone: str
) -> None:
    files = in_order(
        entry(day, LARGE, table, date=f"2026-11-{day}")
        for table in ("deals", "orders", "balances", "bars")
        for day in (20, 21, 22, 23, 24)
    )
    found = expired(Manifest(files=files), NEXT_DATE, keep_days)
    assert {f"{file.table}-{file.date[-2:]}" for file in found} == set(gone.split())
    assert found == sorted(found, key=files.index)


@pytest.mark.parametrize("keep_days", [-1, {"deals": -1}, {"trades": 1}])
def test_retention_that_means_nothing_is_refused(keep_days: dict[str, int] | int) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        expired(Manifest(), NEXT_DATE, keep_days)
