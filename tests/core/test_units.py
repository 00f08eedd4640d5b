"""Units against `decimal.Decimal`, which reads and writes the same numbers by other means."""

from __future__ import annotations

import re
import time
from decimal import MAX_EMAX, MIN_EMIN, ROUND_DOWN, Context, Decimal, InvalidOperation

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from excore_ray.core.units import format_padded, format_plain, parse, rescale

WIDE = Context(prec=3000, rounding=ROUND_DOWN, Emax=MAX_EMAX, Emin=MIN_EMIN)
SCALES = st.integers(0, 40)
MAGNITUDE_MAX = 10**18

NO_DECIMALS = [
    *("", " ", " 1", "1 ", "1\n", "\t1", "1_0", "1,0", "1'0", "0x10", "1 0"),
    *("+", "-", ".", "+.", "-.", "..", "1..", "1.2.3", "--1", "+-1", "1-", "1+1"),
    *("e", "e1", ".e1", "1e", "1e+", "1e-", "1e1.0", "1e1000", "1e1000000", "1E-9999", "1ee1"),
    *("NaN", "nan", "sNaN", "Infinity", "-Infinity", "inf", "1n", "null", "true"),
    *("１", "1٣", "²", "1.０", "−1", "1e１", "\u00a01", "1\u200b", "\x00", "1\x00"),
    *("1000000000000000000", "1e18", "-1e18", "1e999", "999999999999999999e1", "0.1e19"),
    *("9" * 65, "0" * 65, "0." + "0" * 63, "1" * 100_000, "0" * 100_000 + "1"),
    *(None, True, False, 1, 1.0, 0, 10**30, b"1", ["1"], {"1": 1}, ("1",), Decimal(1)),
]

DECIMALS = [
    # text, scale, value
    ("0", 0, 0),
    ("0", 8, 0),
    ("-0", 8, 0),
    ("0e999", 8, 0),
    ("0e-999", 20, 0),
    ("1", 0, 1),
    ("+1", 2, 100),
    ("-1", 2, -100),
    ("1.", 2, 100),
    (".5", 2, 50),
    ("+.5", 2, 50),
    ("-.5", 2, -50),
    ("+.5e+1", 2, 500),
    ("1.e2", 0, 100),
    ("007", 0, 7),
    ("1e3", 0, 1000),
    ("1E3", 0, 1000),
    ("1e+003", 0, 1000),
    ("12e-1", 1, 12),
    ("1e-400", 20, 0),
    ("-1e-999", 20, 0),
    ("1.239", 2, 123),
    ("-1.239", 2, -123),
    ("-0.009", 2, 0),
    ("0.99999", 4, 9999),
    ("0.00000001", 8, 1),
    ("0.000000001", 8, 0),
    ("999999999999999999", 0, MAGNITUDE_MAX - 1),
    ("999999999999999999.99999999999999999999", 20, MAGNITUDE_MAX * 10**20 - 1),
    ("-999999999999999999.9", 0, 1 - MAGNITUDE_MAX),
    ("1e17", 20, 10**37),
    ("1000000000000000000e-1", 0, 10**17),
    ("0" * 63 + "1", 0, 1),
]


@pytest.mark.parametrize("text", NO_DECIMALS, ids=lambda text: repr(text)[:24])
def test_this_is_no_decimal(text: object) -> None:
    assert parse(text, 8) is None


@pytest.mark.parametrize(("text", "scale", "value"), DECIMALS)
def test_this_decimal_reads(text: str, scale: int, value: int) -> None:
    assert parse(text, scale) == value


@pytest.mark.parametrize("text", ["1e999", "9" * 60 + "e999", "1e-999", "1e1000000", "1" * 10**5])
def test_no_text_costs_much(text: str) -> None:
    parse.__globals__["_parse"].cache_clear()
    started = time.perf_counter()
    parse(text, 20)
    assert time.perf_counter() - started < 1  # with `int(Decimal(text))`, many seconds


@settings(deadline=None)
@given(
    st.from_regex(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    SCALES,
)
def test_a_decimal_reads_as_decimal_reads_it(text: str, scale: int) -> None:
    exact = Decimal(text, WIDE)
    if len(text) > 64 or exact.copy_abs() >= MAGNITUDE_MAX:
        assert parse(text, scale) is None
    else:
        assert parse(text, scale) == int(exact.scaleb(scale, WIDE))


@settings(deadline=None)
@given(st.text(st.sampled_from("0123456789+-.eE _\n١n"), max_size=12) | st.text(max_size=70))
def test_what_reads_is_a_decimal(text: str) -> None:
    try:
        Decimal(text)
        form = set(text) <= set("0123456789+-.eE") and not re.search(r"[eE][+-]?\d{4}", text)
    except InvalidOperation:
        form = False
    expected = form and len(text) <= 64 and Decimal(text).copy_abs() < MAGNITUDE_MAX
    assert (parse(text, 8) is not None) == expected


@settings(deadline=None)
@given(st.integers(-(10**40), 10**40), SCALES)
def test_what_is_written_is_plain_and_exact(value: int, scale: int) -> None:
    plain, padded = format_plain(value, scale), format_padded(value, scale)
    for text in (plain, padded):
        assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", text)
        assert Decimal(text) == Decimal(value).scaleb(-scale, WIDE)
    assert "." not in plain or not plain.endswith("0")
    assert len(padded.partition(".")[2]) == scale
    assert (plain == "0") == (value == 0)


@settings(deadline=None)
@given(st.integers(1 - 10**38, 10**38 - 1), st.integers(20, 40))
def test_what_is_written_reads_back(value: int, scale: int) -> None:
    text = format_plain(value, scale)
    if len(text) <= 64:
        assert parse(text, scale) == value


@settings(deadline=None)
@given(st.integers(-(10**40), 10**40), SCALES, SCALES)
def test_rescaling_cuts_toward_zero(value: int, scale: int, to_scale: int) -> None:
    exact = Decimal(value).scaleb(to_scale - scale, WIDE)
    assert rescale(value, scale, to_scale) == int(exact)


@pytest.mark.parametrize(
    ("value", "scale", "plain", "padded"),
    [
        (0, 0, "0", "0"),
        (0, 8, "0", "0.00000000"),
        (151580000, 8, "1.5158", "1.51580000"),
        (800000000000, 8, "8000", "8000.00000000"),
        (1, 20, "0.00000000000000000001", "0.00000000000000000001"),
        (-5, 2, "-0.05", "-0.05"),
        (-500, 2, "-5", "-5.00"),
        (100, 0, "100", "100"),
        (-100, 0, "-100", "-100"),
        (10**38, 20, "1000000000000000000", "1000000000000000000.00000000000000000000"),
    ],
)
def test_this_is_written(value: int, scale: int, plain: str, padded: str) -> None:
    assert (format_plain(value, scale), format_padded(value, scale)) == (plain, padded)
