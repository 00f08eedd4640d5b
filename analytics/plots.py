"""Plots: candles with volume, depth, and fees over time, as figures to show or to save.

Separate so that the lake answers without a drawing library.  It takes plain rows, as the
questions of `history` and the RPC return them, and must not know where they come from.
Quantities become floats here and nowhere before: a picture has no last digit.

The colours are those of Okabe and Ito, which keep apart for every kind of colour vision.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

RISING, FALLING, NEUTRAL = "#009e73", "#d55e00", "#0072b2"
_BODY_PART = 0.8  # of the distance between two candles
_SECONDS_A_DAY = 86_400
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{margin:2rem;font-family:sans-serif}}svg{{max-width:100%;height:auto}}</style></head>
<body>{svg}</body></html>
"""

# time (seconds since the epoch), open, close, high, low, volume, amount
Bar = tuple[int, Decimal, Decimal, Decimal, Decimal, Decimal, Decimal]
Level = tuple[Decimal, Decimal]  # price, amount


def candles(bars: Sequence[Bar], interval_s: int, title: str) -> Figure:
    """Candles above, volume (of stock) below.  bars: oldest first, `interval_s` seconds each.

    A rising candle closes at or above its open.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    prices, volumes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = interval_s / _SECONDS_A_DAY * _BODY_PART
    for colour, rises in ((RISING, True), (FALLING, False)):
        mine = [bar for bar in bars if (bar[2] >= bar[1]) is rises]
        times = [_day(datetime.fromtimestamp(bar[0], UTC)) for bar in mine]
        opens, closes, highs, lows, volume = (
            [float(bar[column]) for bar in mine] for column in range(1, 6)
        )
        bottoms = [min(pair) for pair in zip(opens, closes, strict=True)]
        heights = [abs(o - c) for o, c in zip(opens, closes, strict=True)]
        prices.vlines(times, lows, highs, colors=colour, linewidth=1)
        # The line around a body keeps one visible that opened and closed at the same price.
        prices.bar(times, heights, width, bottoms, color=colour, edgecolor=colour, linewidth=1)
        volumes.bar(times, volume, width, color=colour)
    prices.set_title(title)
    prices.set_ylabel("price")
    volumes.set_ylabel("volume")
    _dates(volumes)
    return figure


def depth(asks: Sequence[Level], bids: Sequence[Level], title: str) -> Figure:
    """What could be bought and sold up to each price.  Both sides best price first."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for levels, colour, name in ((bids, RISING, "bids"), (asks, FALLING, "asks")):
        total = 0.0
        prices, totals = [], []
        for price, amount in levels:
            total += float(amount)
            prices.append(float(price))
            totals.append(total)
        # Between two levels nothing more is to be had than up to the better one.
        axes.step(prices, totals, where="post", color=colour, label=name)
        axes.fill_between(prices, totals, step="post", color=colour, alpha=0.2)
    axes.set_title(title)
    axes.set_xlabel("price")
    axes.set_ylabel("summed amount")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def fees(days: Sequence[tuple[datetime, Decimal]], asset: str, title: str) -> Figure:
    """Fees of one asset: each day's as bars, all since the first day as a line."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    daily = figure.subplots()
    summed = daily.twinx()
    times = [_day(day) for day, _ in days]
    daily.bar(times, [float(fee) for _, fee in days], _BODY_PART, color=NEUTRAL, label="a day")
    total = Decimal(0)
    totals = []
    for _, fee in days:
        total += fee
        totals.append(float(total))
    summed.plot(times, totals, color=FALLING, marker=".", label="in all")
    daily.set_title(title)
    daily.set_ylabel(f"fees a day, {asset}")
    summed.set_ylabel(f"fees in all, {asset}")
    summed.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2)
    _dates(daily)
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to `path`: .png, .svg, or .html, a page of its own that loads nothing.

    Raises ValueError for another suffix, OSError when it cannot be written.
    """
    path = Path(path)
    if path.suffix in (".png", ".svg"):
        figure.savefig(path, dpi=150)
    elif path.suffix == ".html":
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg")
        svg = drawn.getvalue()
        titles = (axes.get_title() for axes in figure.axes)
        title = next(filter(None, titles), path.stem)
        page = _PAGE.format(title=html.escape(title), svg=svg[svg.index("<svg") :])
        path.write_text(page, encoding="utf-8")
    else:
        raise ValueError(f"{path}: a plot is saved as .png, .svg or .html")


def _day(time: datetime) -> float:
    """A time as the axis counts it: days since the epoch."""
    return time.timestamp() / _SECONDS_A_DAY


def _dates(axes: Axes) -> None:
    """Label the time axis, in UTC."""
    locator = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    formatter = ConciseDateFormatter(locator, tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel("time (UTC)")
