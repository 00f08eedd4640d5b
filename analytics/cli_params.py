"""What people write on a command line, as values: a time, an interval, a file to draw into.

Separate because it is about words alone.  It must not know the lake.

Each function raises ValueError, saying what is wrong, for words that mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from analytics.market_data import MONTH_S, WEEK_S, interval_of

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": WEEK_S, "M": MONTH_S}


def explained(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse` as typer wants it: so that its ValueError is told, and not only what was written."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as fault:
            raise typer.BadParameter(str(fault)) from fault

    return parsed


def plot_of(text: str) -> Path:
    """The file to draw into.  ValueError when no plot is saved as such a file."""
    if Path(text).suffix not in (".png", ".svg", ".html"):
        raise ValueError(f"{text} is not a file .png, .svg or .html")
    return Path(text)


def time_of(text: str) -> int:
    """Seconds since the epoch of an ISO time, in UTC unless it says otherwise, or of seconds.

    ValueError when it is neither, or before the epoch.
    """
    if re.fullmatch(r"[0-9]{1,11}", text, re.ASCII):
        return int(text)
    at = datetime.fromisoformat(text)
    at_s = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    if at_s < 0:
        raise ValueError(f"{text} is before 1970")
    return at_s


def interval_s_of(text: str) -> int:
    """Seconds of an interval like 5m.  ValueError when the kline has no such interval."""
    found = re.fullmatch(r"([1-9][0-9]{0,4})([smhdwM])", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is not like 1s 5m 1h 1d 1w 1M")
    count, unit = int(found[1]), found[2]
    # So many days as a week or month has are neither, for those begin where the calendar says.
    if count * _UNITS_S[unit] > (_UNITS_S[unit] if unit in "wM" else _UNITS_S["d"]):
        raise ValueError(f"{text!r}: above a day there are only 1w and 1M")
    return interval_of(count * _UNITS_S[unit]).interval_s
