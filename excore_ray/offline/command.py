"""The commands about an exchange's files: the deep audit's verdict, backup and restore.

Separate because they are for people: they print and show progress; what they show is found by
modules beside this one.  Exit codes are those of `excore`: 0 done; 1 something is wrong; 2 wrong
use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from excore_ray.errors import ExcoreError, SettingsError
from excore_ray.offline.backup import About, Source, make_backup
from excore_ray.offline.deep import Progress as Told
from excore_ray.offline.deep import audit_deep
from excore_ray.offline.report import Report
from excore_ray.offline.restore import restore
from excore_ray.serving import Places
from excore_ray.settings import load

WRONG, MISUSED = 1, 2
DATA_HELP = "The data directory.  [EXCORE_DATA, default ./data]"
CONFIG_HELP = "The settings in TOML that it is served with: its data directory and its lake."
LAKE_HELP = "Where its lake lies; default: what the settings say, or lake in the data directory."
LINK_HELP = "Link the lake's files instead of copying: quick, but only as safe as that disk."
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


class Located(NamedTuple):
    """An exchange's files.  lake: where its lake lies, a directory or URL."""

    places: Places
    lake: str


def locate(data: str | None, config: Path | None = None, lake: str | None = None) -> Located:
    """What `excore serve` would serve with the same options, variables and settings file.

    lake: wins over what the settings say.  Raises SettingsError.
    """
    settings = load(config, os.environ, {"data": data})
    places = Places(settings.directory)
    return Located(places, lake or settings.lake.url or str(places.lake))


def print_deep_audit(located: Located) -> bool:
    """Judge an exchange by its files, and print the verdict; whether all is exact.

    Raises SettingsError when there is nothing to judge, and what audit_deep() raises.
    """
    journals = located.places.journals
    if not any(journals.glob("*.db")):
        raise SettingsError(f"there are no journals in {journals}")
    with showing() as told:
        report = audit_deep(journals, located.lake, told)
    print_report(report)
    return not report.findings


def print_report(report: Report) -> None:
    """Print what was compared, what was found, and the verdict."""
    streams = Table("stream", "from", "to", "hashes", "snapshots", "keys", "state_hash", box=None)
    for one in report.streams:
        begun = f"snapshot {one.start}" if one.start else "the beginning"
        kept = " ".join(map(str, one.snapshots)) or "none"
        figures = begun, str(one.last), str(one.hashes), kept, str(one.keys)
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


def add_backup(
    app: typer.Typer, secrets: tuple[str, ...] = ("cluster.secret", "admin.json")
) -> None:
    """Give `app` the commands backup and restore.  secrets: private files of a data directory."""

    @app.command("backup", epilog="Example: excore backup /mnt/backups/monday --data ./data")
    def backup_command(
        target: Annotated[Path, typer.Argument(help="A directory that is empty or not there.")],
        data: Annotated[str | None, typer.Option("--data", help=DATA_HELP)] = None,
        config: Annotated[Path | None, typer.Option(help=CONFIG_HELP)] = None,
        lake: Annotated[str | None, typer.Option(help=LAKE_HELP)] = None,
        link: Annotated[bool, typer.Option("--link", help=LINK_HELP)] = False,
    ) -> None:
        """Copy an exchange as it is at one instant, while it runs or not.

        All that was acknowledged before is in it, and it agrees with itself: it is what a loss of
        power at that instant would have left.  The copy holds secrets: keep it as safe as the data.
        A lake on a remote store is not copied: its URL and version are noted.
        """
        with failures():
            places, url = locate(data, config, lake)
            if not places.journals.is_dir():
                lacking = f"it has no {places.journals.name}"
                raise SettingsError(f"{places.data} is no data directory: {lacking}")
            paths = tuple(places.data / name for name in secrets)
            source = Source(places.journals, url, paths, link)
            with showing() as told:
                about = make_backup(source, target.expanduser().absolute(), told)
        _print_about("backed up", about)

    @app.command("restore", epilog="Example: excore restore /mnt/backups/monday ./data")
    def restore_command(
        backup: Annotated[Path, typer.Argument(help="A backup that was made by excore backup.")],
        directory: Annotated[
            str | None, typer.Argument(help="The new data directory; default: as for serve.")
        ] = None,
        config: Annotated[Path | None, typer.Option(help=CONFIG_HELP)] = None,
    ) -> None:
        """Make a data directory of a backup, if it is as it was made, and audit it.

        The exchange that was backed up and the restored one are two from then on: whoever goes on
        using both has two truths, for neither knows of the other.  Stop one.
        """
        with failures():
            places, served = locate(directory, config)
            with showing() as told:
                about = restore(backup, places.data, told)
            _print_about("restored", about)
            in_it = about.lake.copied or not about.lake.version
            lake = str(places.lake) if in_it else about.lake.url
            exact = print_deep_audit(Located(places, lake))
            if served != lake:
                _out.print(f"note: {_another_lake(served, lake)}", markup=False)
        if not exact:
            raise typer.Exit(WRONG)


def _another_lake(served: str, restored: str) -> str:
    return (
        f"with these settings it would be served with the lake {served}; what belongs to it is"
        f" {restored}: set url under [lake] to that, unless you have put a copy of it there"
    )


def _print_about(done: str, about: About) -> None:
    lake = about.lake
    if not lake.version:
        said = "no lake"
    elif lake.copied:
        said = f"{lake.files} files of the lake"
    else:
        said = f"not the lake, which is remote: {lake.url}, version {lake.version}"
    ends = ", ".join(f"{stream} {seq}" for stream, seq in about.streams.items())
    _out.print(f"{done} as of {moment(about.time_s)} UTC: {about.bytes} bytes, {said}")
    _out.print(f"entries: {ends}", markup=False)


@contextmanager
def failures() -> Iterator[None]:
    """Turn what may go wrong in the world into a sentence and an exit code."""
    try:
        yield
    except SettingsError as fault:
        _err.print(f"excore: {fault}", markup=False)
        raise typer.Exit(MISUSED) from fault
    except ExcoreError as fault:
        _err.print(f"excore: {fault}", markup=False)
        raise typer.Exit(WRONG) from fault
