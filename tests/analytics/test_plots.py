"""Pictures: what is drawn is what was given, and every kind of file can be written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from analytics import plots

D = Decimal
HOUR_S = 3_600
BARS: list[plots.Bar] = [
    (1_700_000_000 + k * HOUR_S, D(o), D(c), D(h), D(low), D(v), D(0))
    for k, (o, c, h, low, v) in enumerate(
        [(10, 12, 13, 9, 5), (12, 11, 12, 8, 7), (11, 11, 11, 11, 0)]
    )
]


def test_a_candle_spans_what_was_given() -> None:
    figure = plots.candles(BARS, HOUR_S, "BTC_USDT")
    prices, volumes = figure.axes
    bodies = sorted(
        (round(p.get_x(), 6), p.get_y(), p.get_height(), to_hex(p.get_facecolor()))
        for p in prices.patches
    )
    assert [body[1:] for body in bodies] == [
        (10, 2, plots.RISING),
        (11, 1, plots.FALLING),
        (11, 0, plots.RISING),
    ]
    wicks = [c for c in prices.collections if isinstance(c, LineCollection)]
    spans = sorted(tuple(p[:, 1]) for wick in wicks for p in (s for s in wick.get_segments()))
    assert spans == [(8, 12), (9, 13), (11, 11)]
    assert sorted(p.get_height() for p in volumes.patches) == [0, 5, 7]


def test_depth_sums_from_the_best_price_on() -> None:
    asks = [(D("101"), D(2)), (D("103"), D(3))]
    bids = [(D("100"), D(1)), (D("99"), D(4))]
    (axes,) = plots.depth(asks, bids, "BTC_USDT").axes
    drawn = {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }
    assert drawn == {"asks": ([101, 103], [2, 5]), "bids": ([100, 99], [1, 5])}


def test_fees_add_up() -> None:
    first = datetime(2026, 11, 1, tzinfo=UTC)
    days = [(first + timedelta(days=k), D(fee)) for k, fee in enumerate(("0.5", "0", "1.25"))]
    daily, summed = plots.fees(days, "USDT", "fees").axes
    assert [p.get_height() for p in daily.patches] == [0.5, 0, 1.25]
    assert list(summed.lines[0].get_ydata()) == [0.5, 0.5, 1.75]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_a_plot_is_saved(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot{suffix}"
    plots.save(plots.candles(BARS, HOUR_S, "A & B"), path)
    begins = {".png": b"\x89PNG", ".svg": b"<?xml", ".html": b"<!doctype html>"}[suffix]
    written = path.read_bytes()
    assert written.startswith(begins)
    if suffix == ".html":
        text = written.decode()
        assert "<title>A &amp; B</title>" in text
        assert "<script" not in text
        assert text.count("<svg") == 1


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.png, \.svg or \.html"):
        plots.save(plots.depth([], [], "empty"), tmp_path / "plot.bmp")


@pytest.mark.parametrize("bars", [[], BARS[:1]], ids=["none", "one"])
def test_few_candles_are_no_trouble(tmp_path: Path, bars: list[plots.Bar]) -> None:
    plots.save(plots.candles(bars, HOUR_S, "few"), tmp_path / "few.png")
