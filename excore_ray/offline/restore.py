"""Restore: a backup, proven to be as it was made, becomes the data directory of an exchange.

Separate from `backup.py` because it trusts nothing of it but the sums.  It must not know actors,
nor whether the exchange the backup was made of still runs: the two share nothing, and what one
does from then on the other never learns.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec

from excore_ray.errors import BackupFailed
from excore_ray.offline.backup import ABOUT_NAME, FORMAT, SUMS_NAME, About, Progress, expect_empty
from excore_ray.offline.copying import copy_file, digest_of, files_in, make_folder, sync_folders
from excore_ray.storage.snapshots import sync_directory

_LINE = re.compile(r"([0-9a-f]{64})  ([^\n]+)")


def read_about(backup: Path) -> About:
    """What a backup says of itself.  Raises BackupFailed when it is none, or of another version."""
    try:
        about = msgspec.json.decode((backup / ABOUT_NAME).read_bytes(), type=About)
    except (OSError, msgspec.MsgspecError) as fault:
        raise BackupFailed(f"{backup} is no backup: {fault}") from fault
    if about.format != FORMAT:
        raise BackupFailed(
            f"{backup} has format {about.format}, and this version reads format {FORMAT}"
        )
    return about


def restore(backup: Path, target: Path, progress: Progress) -> About:
    """Make `target` what the exchange was at the instant of the backup.

    target: does not exist, or is an empty directory.
    Raises SettingsError when it is neither; BackupFailed, which names every file that changed.
    Nothing is at `target` then.
    """
    about = read_about(backup)
    expect_empty(target)
    sums = _sums(backup)
    staging = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        make_folder(staging)
        wrong: list[str] = []
        for done, (name, expected) in enumerate(sums.items()):
            progress("restoring", done, len(sums))
            if name == ABOUT_NAME:
                found = digest_of(backup / name)
            else:
                found = copy_file(backup / name, staging / name)
            if found != expected:
                wrong.append(name)
        if wrong:
            raise BackupFailed(
                f"{backup} is damaged, nothing was restored: {', '.join(wrong)} changed since it"
                " was made"
            )
        (staging / "logs").mkdir(mode=0o700)
        sync_folders(staging)
        os.rename(staging, target)
        sync_directory(target.parent)
    except OSError as fault:
        raise BackupFailed(f"{backup} could not be restored: {fault}") from fault
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return about


def _sums(backup: Path) -> dict[str, str]:
    """The sums by file.  Raises BackupFailed unless they speak of exactly the files there are."""
    sums: dict[str, str] = {}
    try:
        text = (backup / SUMS_NAME).read_text("utf-8")
        there = {path.relative_to(backup).as_posix() for path in files_in(backup)} - {SUMS_NAME}
    except (OSError, UnicodeDecodeError) as fault:
        raise BackupFailed(f"{backup} cannot be read: {fault}") from fault
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise BackupFailed(
                f"{backup / SUMS_NAME} is damaged: {line!r:.100} is no sum of a file"
            )
        sums[found[2]] = found[1]
    missing, strange = sorted(sums.keys() - there), sorted(there - sums.keys())
    if missing or strange or ABOUT_NAME not in sums:
        raise BackupFailed(f"{backup} is not whole: missing {missing}, not of it {strange}")
    return sums
