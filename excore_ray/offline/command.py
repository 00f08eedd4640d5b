"""The commands about an exchange's files: the deep audit's verdict, backup and restore.

Separate because they are for people: they print and show progress; what they show is found by
modules beside this one.  Exit codes are those of `excore`: 0 done; 1 something is wrong; 2 wrong
use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from excore_ray.errors import SettingsError
from excore_ray.offline.deep import Progress as Told
from excore_ray.offline.deep import audit_deep
from excore_ray.offline.report import Report
from excore_ray.serving import Places

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_deep_audit(places: Places, lake: str | None) -> bool:
    """Judge a data directory by its files, and print the verdict; whether all is exact.

    lake: where its lake lies, None for the directory in it.
    Raises SettingsError when there is nothing to judge, and what audit_deep() raises.
    """
    if not any(places.journals.glob("*.db")):
        raise SettingsError(f"there are no journals in {places.journals}")
    with showing() as told:
        report = audit_deep(places.journals, lake or str(places.lake), told)
    print_report(report)
    return not report.findings


def print_report(report: Report) -> None:
    """Print what was compared, what was found, and the verdict."""
    streams = Table("stream", "from", "to", "hashes", "snapshots", "state_hash", box=None)
    for one in report.streams:
        begun = f"snapshot {one.start}" if one.start else "the beginning"
        kept = " ".join(map(str, one.snapshots)) or "none"
        figures = begun, str(one.last), str(one.hashes), kept
        streams.add_row(one.stream, *figures, one.state_hash[:16] or "did not arrive")
    _out.print(streams)
    if report.tables:
        tables = Table("table", "stream", "entries", "rows compared", "files", "older", box=None)
        for each in report.tables:
            entries = f"{each.first_seq} to {each.last_seq}"
            counts = str(each.rows), str(each.files), str(each.older)
            tables.add_row(each.table, each.stream, entries, *counts)
        _out.print(tables)
    _out.print(
        f"between markets and shards: {report.entries} entries, {report.open_orders} open orders,"
        f" {report.undecided} holds of orders under way"
    )
    _out.print(f"lake: {report.lake or 'there is none'}")
    for note in report.notes:
        _out.print(f"note: {note}", markup=False)
    for finding in report.findings:
        _out.print(f"{finding.where}: {finding.what}", style="red", markup=False)
    replayed = sum(one.entries for one in report.streams)
    rows = sum(each.rows for each in report.tables)
    verdict = "exact" if not report.findings else f"{len(report.findings)} findings"
    _out.print(
        f"{verdict} as of {moment(report.time_s)} UTC: {len(report.streams)} streams, {replayed}"
        f" entries, {rows} rows of the lake, in {report.seconds:.1f} s"
    )


def moment(time_s: float) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


@contextmanager
def showing() -> Iterator[Told]:
    """A bar on the terminal that shows the progress told."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def told(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield told


def data_of(directory: Path) -> Places:
    """What lies where in a data directory that must be there.  Raises SettingsError."""
    places = Places(directory.expanduser().resolve())
    if not places.journals.is_dir():
        raise SettingsError(f"{directory} is no data directory: it has no {places.journals.name}")
    return places
