"""Report: what a deep audit found, and what it did to find it.

Separate so that whoever shows a verdict need not know how it came about.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from excore_ray.offline.lake_part import TableFigures


class Finding(NamedTuple):
    """One thing that is wrong.  where: a stream, a table, two streams or a check."""

    where: str
    what: str


class StreamFigures(msgspec.Struct):
    """What was done for one stream.

    start: the entry of the snapshot the replay began with, 0 for the first entry of all.
    last: the entry it ended with.  hashes: recorded ones that came out again.  snapshots: the
    entries of those that were compared.  keys: dedupe keys that are there, each in its place.
    state_hash: "" when the replay did not arrive.
    """

    stream: str
    start: int = 0
    last: int = 0
    hashes: int = 0
    snapshots: list[int] = []
    keys: int = 0
    state_hash: str = ""
    seconds: float = 0.0

    @property
    def entries(self) -> int:
        """How many were replayed."""
        return self.last - self.start


class Report(msgspec.Struct):
    """What a deep audit found and what it did.

    time_s: the instant it judged.  entries: emitted by markets, that shards had journaled too.
    open_orders: whose holds were compared.  undecided: holds of orders that are not open (yet).
    lake: its URL and manifest version, "" when there is none.  notes: what could not be judged.
    """

    time_s: float
    streams: list[StreamFigures] = []
    tables: list[TableFigures] = []
    entries: int = 0
    open_orders: int = 0
    undecided: int = 0
    lake: str = ""
    findings: list[Finding] = []
    notes: list[str] = []
    seconds: float = 0.0
