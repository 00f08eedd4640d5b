"""Quantities and bars are exact, or refused."""

from __future__ import annotations

import random
from datetime import timedelta
from decimal import Decimal, localcontext
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.history_rows import plain_text
from analytics.lake import SCHEMAS, bars_of, decimal_array
from analytics.lake_schema import QUANTITY
from analytics.lake_values import plain_texts
from tests.analytics.lake_rows import NOON, deals, naive_bars, table

LARGEST = 10**38 - 1


@pytest.mark.parametrize(
    ("values", "scale", "texts"),
    [
        ([], 8, []),
        ([0], 0, ["0"]),
        ([1, -1], 0, ["1", "-1"]),
        ([1, -1], 20, ["0.00000000000000000001", "-0.00000000000000000001"]),
        ([150_000_000, -250_000_000], 8, ["1.5", "-2.5"]),
        ([10**18 - 1, 1 - 10**18], 0, ["999999999999999999", "-999999999999999999"]),
        ([LARGEST], 20, ["999999999999999999.99999999999999999999"]),
        ([-LARGEST], 20, ["-999999999999999999.99999999999999999999"]),
        ([2**64, -(2**64)], 10, ["1844674407.3709551616", "-1844674407.3709551616"]),
        ([None], 8, [None]),
        ([None, 5, None, -5, None, None, None, None, 7], 1, [None, "0.5", None, "-0.5"]
         + [None] * 4 + ["0.7"]),
        ([15, -15, None, 15], [0, 1, 2, 20], ["15", "-1.5", None, "0.00000000000000000015"]),
        # As much as 64 bits hold, and one more; then what they hold at its own scale or not at all.
        ([2**63 - 1, -(2**63)], 1, ["922337203685477580.7", "-922337203685477580.8"]),
        ([2**63, -(2**63) - 1], 2, ["92233720368547758.08", "-92233720368547758.09"]),
        ([2**62, 1, None], [6, 8, 8], ["4611686018427.387904", "0.00000001", None]),
        ([2**63, None, 1], [8, 6, 6], ["92233720368.54775808", None, "0.000001"]),
    ],
)  # fmt: skip
def test_scaled_integers_become_quantities(
    values: list[int | None], scale: int | list[int], texts: list[str | None]
) -> None:
    array = decimal_array(values, scale)
    array.validate(full=True)
    assert array.type == QUANTITY
    assert array.to_pylist() == [None if text is None else Decimal(text) for text in texts]
    assert array.null_count == texts.count(None)


@pytest.mark.parametrize(
    ("values", "scale", "error", "why"),
    [
        ([10**18], 0, ValueError, "reaches 10\\*\\*18"),
        ([-(10**18)], 0, ValueError, "reaches 10\\*\\*18"),
        ([1, LARGEST + 1, 1], 20, ValueError, "reaches 10\\*\\*18"),
        ([10**400], 20, ValueError, "reaches 10\\*\\*18"),
        ([1, 10**18], [20, 0], ValueError, "reaches 10\\*\\*18"),
        ([2**127], 20, ValueError, "reaches 10\\*\\*18"),
        ([2**63 - 1], 0, ValueError, "reaches 10\\*\\*18"),
        ([1, 2**63 - 1], [1, 0], ValueError, "reaches 10\\*\\*18"),
        ([1], 21, ValueError, "scale 21"),
        ([1], -1, ValueError, "scale -1"),
        ([1, 1], [0, 21], ValueError, "scale 21"),
        ([1, 1], [0], ValueError, "shorter"),
        ([1], [0, 1], ValueError, "longer"),
        ([1, 1], [0, None], ValueError, "scale is null"),
        ([1], [None], ValueError, "scale is null"),
        ([1.0], 0, TypeError, "is an int"),
        ([True], 0, TypeError, "is an int"),
        (["1"], 0, TypeError, "is an int"),
        ([Decimal(1)], 0, TypeError, "is an int"),
    ],
)
def test_what_a_quantity_cannot_hold_is_refused(
    values: list[Any], scale: Any, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        decimal_array(values, scale)


@st.composite
def scaled(draw: st.DrawFn) -> tuple[int | None, int]:
    scale = draw(st.integers(0, 20))
    bound = 10 ** (18 + scale) - 1
    return draw(st.none() | st.integers(-bound, bound)), scale


@given(st.lists(scaled()))
def test_every_quantity_is_what_decimal_says(pairs: list[tuple[int | None, int]]) -> None:
    values, scales = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with localcontext() as context:
        context.prec = 60
        expected = [None if v is None else Decimal(v).scaleb(-s) for v, s in pairs]
    array = decimal_array(values, scales)
    array.validate(full=True)
    assert array.to_pylist() == expected


@given(st.lists(scaled()))
def test_scales_may_come_as_a_dictionary(pairs: list[tuple[int | None, int]]) -> None:
    values, scales = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    expected = decimal_array(values, scales)
    # A dictionary may hold scales that nobody takes, and the same one twice.
    dictionary = pa.array([*range(20, -1, -1), *range(21)], pa.int8())
    places = [20 - scale if scale % 2 else 21 + scale for scale in scales]
    encoded = pa.DictionaryArray.from_arrays(pa.array(places, pa.int32()), dictionary)
    assert decimal_array(values, encoded).equals(expected)


@given(
    st.lists(st.integers(0, LARGEST) | st.integers(0, 38).map(lambda n: 10**n - (n == 38))),
    st.integers(0, 3),
)
def test_texts_are_what_people_write(scaled: list[int], skipped: int) -> None:
    array = decimal_array(scaled, 20)
    texts = plain_texts(array.slice(skipped)).to_pylist()
    assert texts == [plain_text(each) for each in array.to_pylist()[skipped:]]
    assert plain_texts(decimal_array([0, 825, 10**20], 20)).to_pylist() == [
        "0",
        "0.00000000000000000825",
        "1",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_bars_are_what_a_naive_count_says(seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    rows = deals(seed, chance.choice((1, 2, 50, 3000)), seconds=chance.choice((0.0001, 1, 40)))
    bars = bars_of(rows)
    assert bars.schema.equals(SCHEMAS["bars"], check_metadata=True)
    assert bars.to_pylist() == naive_bars(rows.to_pylist())
    order = list(range(len(rows)))
    chance.shuffle(order)
    assert bars_of(rows.take(order)).equals(bars)


def test_no_deals_make_no_bars() -> None:
    bars = bars_of(SCHEMAS["deals"].empty_table())
    assert bars.schema.equals(SCHEMAS["bars"])
    assert len(bars) == 0


@pytest.mark.parametrize(
    ("microseconds", "minutes"),
    [(0, 0), (59_999_999, 0), (60_000_000, 1), (60_000_001, 1), (12 * 3600 * 10**6 - 1, 719)],
)
def test_a_minute_begins_with_its_first_moment(microseconds: int, minutes: int) -> None:
    rows = deals(1, 1, start=NOON + timedelta(microseconds=microseconds))
    assert bars_of(rows)["minute"].to_pylist() == [NOON + timedelta(minutes=minutes)]


@pytest.mark.parametrize(("count", "parts"), [(9, 1), (10, 2), (400, 64)])
def test_a_minute_that_does_not_fit_one_bar_has_several(count: int, parts: int) -> None:
    # 400 of them pass 2**127: a sum in decimal128 would wrap and say nothing.
    huge = Decimal(10) ** 17
    row = deals(1, 1).to_pylist()[0]
    same = [row | {"deal_id": n, "amount": huge, "deal": huge} for n in range(1, count + 1)]
    bars = bars_of(table("deals", same)).to_pylist()
    assert len(bars) == parts
    assert sum(bar["deals"] for bar in bars) == count
    assert sum(int(bar["volume"]) for bar in bars) == sum(int(bar["amount"]) for bar in bars)
    assert sum(int(bar["volume"]) for bar in bars) == count * 10**17
    ends = [(bar["first_deal_id"], bar["last_deal_id"]) for bar in bars]
    assert [ends[0][0], *(last + 1 for _, last in ends)] == [
        *(first for first, _ in ends),
        count + 1,
    ]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_says_what_it_means(name: str) -> None:
    for field in SCHEMAS[name]:
        assert field.metadata[b"comment"].decode(), field.name
        assert field.nullable == ("null" in field.metadata[b"comment"].decode()), field.name
        assert not pa.types.is_floating(field.type)
