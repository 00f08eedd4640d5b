"""Deep audit: everything that journals and lake can prove, without asking anybody.

Separate because it must be able to judge an exchange that does not run, or a copy of one, and one
that runs without its knowing.  It reads, and never writes or repairs.  It must not know how a
verdict is shown.

All streams are judged at one instant, see cut.py, so they can be held against each other to the
last unit.  Each is replayed from its first entry, or, when that was truncated, from the oldest
snapshot that verifies: what lies before is vouched for by two snapshots, which must lead to the
same end, and by the lake.

    streams   every recorded state_hash comes out again; every kept snapshot is the state that the
              replay had there, and leads to the same end; every machine agrees with itself; no
              dedupe key is missing from its place
    across    shards journaled exactly the entries that markets emitted, byte by byte; what was
              received is what was emitted; open orders are backed by holds; definitions fit
    lake      the rows that the replay makes are the rows the lake has, up to its watermarks
    checks    all of the lake agrees with itself, older rows than the journals keep included
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analytics import checks, warehouse
from analytics.lake import Lake, LakeError, Manifest
from excore_ray.actors.archive_rows import Scales, UnknownScale
from excore_ray.actors.replay import KINDS, kind_of
from excore_ray.core.catalog import Catalog
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.registrar import CATALOG
from excore_ray.core.shardlink import shard_name
from excore_ray.core.snapshot import AnyMachine, state_hash
from excore_ray.errors import ExcoreError, JournalForgotten, SnapshotBroken, StreamMissing
from excore_ray.offline import across
from excore_ray.offline.cut import Cut, cut_of
from excore_ray.offline.entries import Exchanged
from excore_ray.offline.lake_part import LakePart
from excore_ray.offline.report import Finding, Report, StreamFigures
from excore_ray.offline.walk import Walk
from excore_ray.storage.snapshots import SnapshotFiles
from excore_ray.storage.sqlite import SqliteReader, read_sqlite

_TRIES = 3
# What is at work, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


def audit_deep(journals: Path, lake_url: str, progress: Progress | None = None) -> Report:
    """Judge the journals of a directory and their lake at one instant.

    lake_url: a directory or fsspec URL; one without a manifest is no lake yet, and is not judged.
    Works beside a running exchange, of which it sees what is committed.
    Raises StreamMissing when there is no journal at all, JournalFailed when no instant is found,
    JournalForgotten when entries are truncated faster than they are read.
    Memory: the machines of all streams, and a few numbers for each block of entries.
    Cost: some 20 us an order of the market and 20 of the shards.
    """
    for _ in range(_TRIES - 1):
        try:
            return _audit(journals, lake_url, progress or _quiet)
        except JournalForgotten:
            continue  # entries were truncated that were still to be read: there are newer snapshots
    return _audit(journals, lake_url, progress or _quiet)


def _audit(journals: Path, lake_url: str, progress: Progress) -> Report:
    began = time.monotonic()
    # First: what the lake has then, the journals have at any later instant.
    lake, manifest = Lake(lake_url), Manifest()
    findings: list[Finding] = []
    try:
        manifest = lake.manifest()
    except (LakeError, OSError) as fault:
        findings.append(Finding("lake", str(fault)))
    cut = cut_of(journals)
    if not cut.heads:
        raise StreamMissing(f"there are no journals in {journals}")
    running = _Audit(journals, cut, (lake, manifest), progress)
    running.report.findings += findings
    try:
        running.run()
    finally:
        running.close()
    running.report.seconds = time.monotonic() - began
    return running.report


class _Audit:
    """One deep audit while it goes on."""

    def __init__(
        self, journals: Path, cut: Cut, lake: tuple[Lake, Manifest], progress: Progress
    ) -> None:
        self.report = Report(cut.time_s)
        self._journals = journals
        self._heads = cut.heads
        self._lake, self._manifest = lake
        self._progress = progress
        self._readers: dict[str, SqliteReader] = {}
        self._walks: dict[str, Walk] = {}
        self._machines: dict[str, AnyMachine] = {}  # at the instant, of those that arrived
        self._exchanged = Exchanged()
        self._scales = Scales()

    def run(self) -> None:
        """Judge it all."""
        # Shards before markets: of what a market emitted, what has arrived is compared.
        order = {"catalog": 0, "ledger": 1, "market": 2}
        streams = sorted(self._known(), key=lambda name: (order[kind_of(name)], name))
        for stream in streams:
            self._attempt(stream, functools.partial(self._begin, stream))
        if self._manifest.version:
            self.report.lake = f"{self._lake.url}, version {self._manifest.version}"
        for stream in streams:
            if stream in self._walks:
                self._attempt(stream, functools.partial(self._replay, stream))
        self._compare_across()
        if self._manifest.version:
            self._compare_definitions()
            self._check_lake()

    def close(self) -> None:
        """Let go of the journals."""
        while self._readers:
            self._readers.popitem()[1].close()

    def _known(self) -> list[str]:
        known: list[str] = []
        for stream in self._heads:
            try:
                kind_of(stream)
                known.append(stream)
            except KeyError as strange:
                self._find(stream, str(strange.args[0]))
        for stream, mark in self._manifest.watermarks.items():
            if mark and stream not in self._heads:
                self._find(stream, f"the lake has its entries up to {mark}, there is no journal")
        return known

    def _begin(self, stream: str) -> None:
        """Open a stream, and find where its replay can begin."""
        reader = self._readers[stream] = read_sqlite(self._journals, stream)
        figures = StreamFigures(stream)
        self.report.streams.append(figures)
        head = self._heads[stream]
        reader.load_snapshot()  # one beyond the journal's end says that entries were lost
        figures.snapshots = _verified(reader, head)
        there = SnapshotFiles(self._journals, stream, lambda seq, chain: True).numbers()
        for seq in there:
            if seq <= head and seq not in figures.snapshots:
                self._find(stream, f"the snapshot of entry {seq} does not verify")
        oldest = reader.status().oldest_seq
        if oldest > 1:
            if not figures.snapshots:
                self._find(stream, f"no snapshot stands for the entries before {oldest}")
                return
            figures.start = min(figures.snapshots)
        self._attempt(stream, functools.partial(self._check_keys, stream))
        walk = Walk(reader, figures.start, head)
        figures.last = walk.seq
        self._walks[stream] = walk
        if not isinstance(walk.machine, Catalog):
            self._exchanged.begin(walk.machine)

    def _check_keys(self, stream: str) -> None:
        """Every dedupe key must be where it is looked for."""
        self._figures(stream).keys = self._readers[stream].check_keys()

    def _replay(self, stream: str) -> None:
        """Replay a stream to the instant, with everybody looking on."""
        walk, figures = self._walks[stream], self._figures(stream)
        part = self._lake_part(walk)
        machine, emitted = walk.machine, []
        if type(machine) is Ledger:
            self._exchanged.listen_to_shard(machine)
        elif type(machine) is Market:
            emitted = [box.out_seq for box in machine.outboxes]
        began = time.monotonic()
        every = max(1, (walk.last - walk.start) // 200)
        for seq in walk.steps():
            figures.last, figures.hashes = seq, walk.hashes
            if type(machine) is Market:
                self._exchanged.take(machine, emitted)
            if part is not None:
                part.take()
            if seq in figures.snapshots:
                self._compare_snapshot(stream, seq)
            if seq % every == 0:
                self._progress(f"replaying {stream}", seq - walk.start, walk.last - walk.start)
        figures.seconds = time.monotonic() - began
        if walk.seq != walk.last:
            self._find(stream, f"it ends with entry {walk.seq}, not {walk.last}")
            return
        figures.state_hash = state_hash(machine)
        self._machines[stream] = machine
        if type(machine) is Ledger:
            self._exchanged.end_shard(machine)
        elif type(machine) is Catalog:
            self._scales = Scales(machine.assets, machine.markets)
        for wrong in across.alone(machine):
            self._find(stream, wrong)
        if part is not None:
            self._compare_lake(walk, part)
        for seq in figures.snapshots:
            self._attempt(stream, functools.partial(self._replay_snapshot, stream, seq))

    def _compare_snapshot(self, stream: str, seq: int) -> None:
        """A kept snapshot must be the state that the replay has there."""
        found = self._readers[stream].load_snapshot(seq)
        if found is None or found[0] != seq:
            self.report.notes.append(f"{stream}: the snapshot of entry {seq} is gone by now")
            self._figures(stream).snapshots.remove(seq)
            return
        kept = KINDS[kind_of(stream)].load(found[1])
        if state_hash(kept) != state_hash(self._walks[stream].machine):
            self._find(stream, f"the snapshot of entry {seq} is of another state")

    def _replay_snapshot(self, stream: str, seq: int) -> None:
        """A replay from a kept snapshot must lead to the same end."""
        figures = self._figures(stream)
        if seq == figures.start:
            return
        again = Walk(self._readers[stream], seq, figures.last)
        for at in again.steps():
            if at % 1_000 == 0:
                what = f"replaying {stream} from its snapshot {seq}"
                self._progress(what, at - seq, figures.last - seq)
        if state_hash(again.machine) != figures.state_hash:
            self._find(stream, f"a replay from the snapshot of entry {seq} has another end")

    # Across.

    def _compare_across(self) -> None:
        markets = [m for m in self._machines.values() if type(m) is Market]
        ledgers = [m for m in self._machines.values() if type(m) is Ledger]
        for market in markets:
            self.report.open_orders += len(market.orders)
            for ledger in ledgers:
                if ledger.shard >= len(market.outboxes):
                    continue
                pair = market.rules.market_no, ledger.shard
                where = f"market-{pair[0]} and {shard_name(ledger.shard)}"
                self.report.undecided += across.undecided(market, ledger)
                for wrong in across.between(market, ledger):
                    self._find(where, wrong)
                if differs := self._exchanged.compare(pair):
                    self._find(where, differs)
        self.report.entries = self._exchanged.compared
        for wrong in across.missing(self._machines, self._heads):
            self._find("streams", wrong)
        catalog = self._machines.get(CATALOG)
        if isinstance(catalog, Catalog):
            for wrong in across.definitions(catalog, self._machines):
                self._find(CATALOG, wrong)
        elif CATALOG not in self._heads:
            self._find(CATALOG, "there is no such journal")

    # The lake.

    def _lake_part(self, walk: Walk) -> LakePart | None:
        """The part of the lake that a stream makes; None when there is none to compare."""
        mark = self._manifest.watermarks.get(walk.stream, 0)
        if not self._manifest.version or walk.kind == CATALOG:
            return None
        if mark > walk.last:
            self._find(
                walk.stream,
                f"the lake has its entries up to {mark}, the journal ends at {walk.last}",
            )
        if mark <= walk.start:
            if mark:
                what = f"{walk.stream}: the lake ends at {mark}, the replay begins at {walk.start}"
                self.report.notes.append(what)
            return None
        return LakePart(walk, min(mark, walk.last), self._scales)

    def _compare_lake(self, walk: Walk, part: LakePart) -> None:
        """The rows that were told must be those of the lake."""
        try:
            reader = self._readers[walk.stream]
            self._progress(f"reading the lake of {walk.stream}", 0, 1)
            figures, wrong = part.compare(self._lake, self._manifest, reader)
        except (UnknownScale, ValueError, OSError, LakeError) as fault:
            self._find(walk.stream, f"its rows could not be compared: {fault}")
            return
        self.report.tables += figures
        for where, what in wrong:
            self._find(where, what)

    def _compare_definitions(self) -> None:
        """What the lake says of assets and markets must be what is defined, names apart."""
        catalog = self._machines.get(CATALOG)
        if not isinstance(catalog, Catalog):
            return
        assets = {a.asset_id: (a.prec_save, a.prec_show) for a in catalog.assets}
        for asset in self._manifest.assets:
            said = asset["prec_save"], asset["prec_show"]
            if (known := assets.get(asset["asset_id"])) != said:
                self._find("lake", f"asset {asset['asset_id']}: precisions {said}, not {known}")
        rules = {m.market_no: m.rules for m in catalog.markets}
        for one in self._manifest.markets:
            defined = rules.get(one["market"])
            digits = defined and (defined.stock_prec, defined.money_prec)
            if digits != (one["stock_prec"], one["money_prec"]):
                self._find("lake", f"market {one['market']}: precisions are not {digits}")

    def _check_lake(self) -> None:
        """All of the lake must agree with itself."""
        for again in range(_TRIES, 0, -1):
            version = self._lake.manifest().version
            try:
                connection = warehouse.connect(self._lake.url)
                try:
                    self.report.notes += checks.begins_late(connection)
                    found = checks.check(connection, self._progress_checks)
                finally:
                    connection.close()
            except (LakeError, OSError) as fault:
                # While it is read, files may be merged and the old ones swept.
                if again > 1 and self._lake.manifest().version != version:
                    continue
                self._find("lake", str(fault))
                return
            for one in found:
                examples = "; ".join(one.examples)
                self._find(f"check {one.check}", f"{one.what}, {one.times} times: {examples}")
            return

    def _progress_checks(self, name: str, done: int, count: int) -> None:
        self._progress(f"checking the lake: {name}", done, count)

    # Parts of them.

    def _figures(self, stream: str) -> StreamFigures:
        return next(one for one in self.report.streams if one.stream == stream)

    def _find(self, where: str, what: str) -> None:
        self.report.findings.append(Finding(where, what))

    def _attempt(self, stream: str, job: Callable[[], Any]) -> None:
        """Do a step for a stream; what a replay or a journal says against it is a finding."""
        try:
            job()
        except JournalForgotten:
            raise
        except Exception as wrong:
            # Whatever a machine stumbles over when it is given wrong records.
            notes = "; ".join(getattr(wrong, "__notes__", []))
            text = str(wrong)
            if not isinstance(wrong, AssertionError | ExcoreError) or not text:
                text = f"{type(wrong).__name__}: {text}"
            self._find(stream, f"{text} ({notes})" if notes else text)


def _verified(reader: SqliteReader, head: int) -> list[int]:
    """The entries of the snapshots that verify, not beyond `head`; oldest first."""
    found: list[int] = []
    seq_max = head
    while True:
        try:
            snapshot = reader.load_snapshot(seq_max)
        except SnapshotBroken:
            break
        if snapshot is None:
            break
        found.insert(0, snapshot[0])
        seq_max = snapshot[0] - 1
    return found


def _quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody wants to see."""
