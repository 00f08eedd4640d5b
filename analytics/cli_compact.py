"""The command that merges the files of a lake nobody writes now.

Separate because it is the only one that writes: a running archive merges by itself, and is the
one writer of its lake.  It must not know how to tell that one runs; whoever mounts it does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from analytics import lake_compact
from analytics.cli import Misuse, Root, failures, lake_of
from analytics.lake import Lake, Manifest


def add_compact(app: typer.Typer, root: Root, is_used: Callable[[str | None], bool]) -> None:
    """Give `app` the command compact.

    is_used: whether an archive writes the lake, given what was said with the option of its place.
    """

    @app.command("compact", epilog=f"Example: {root.care} compact")
    def compact(place: str | None = root.place) -> None:
        """Merge the small files of a lake that no archive writes now.

        A running exchange does this by itself.  Readers are not disturbed: replaced
        files stay until they are swept by the next archive.
        """
        with failures(root):
            url, before = lake_of(root, place)
            if is_used(place):
                raise Misuse("an exchange runs on this lake, and merges its files by itself")
            after = _compacted(Lake(url), before)
            print(f"{len(before.files)} files became {len(after.files)}")


def _compacted(lake: Lake, manifest: Manifest) -> Manifest:
    """Merge until nothing is worth merging; the last manifest."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    today = datetime.now(UTC).date().isoformat()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("merging", total=None)
        while merges := lake_compact.plan(manifest, today):
            bar.update(task, completed=0, total=len(merges))
            for merge in merges:
                made = lake_compact.merge(lake, merge, manifest.version)
                manifest = lake.commit(manifest, add=made, remove=merge.files)
                bar.advance(task)
    return manifest
