"""The manifest: which files of a lake are live, and how far each stream has come.

Separate because every reader and the one writer go through it, and only through it.  It must not
know where its bytes lie.

    manifest.json
    deals/market=3/date=2026-11-22/000000000001-000000008123.parquet        entries 1 to 8123
    deals/market=3/date=2026-11-22/000000000001-000000016000-c17.parquet    a compacted file

The files of one table, part and date cover ranges that do not meet, so no row is there twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypedDict, get_type_hints

from analytics.lake_schema import PART_NAMES, SCHEMAS

FORMAT = 1
MANIFEST_NAME = "manifest.json"
# An empty file beside a replaced one: its age tells how long that has been out of the manifest.
RETIRED_SUFFIX = ".retired"

_TABLES = "|".join(SCHEMAS)
_FILE = re.compile(
    rf"({_TABLES})/(market|shard)=([0-9]+)/date=([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})"
    r"/([0-9]{12,})-([0-9]{12,})(?:-c([0-9]+))?\.parquet"
)
_GARBAGE = re.compile(
    rf"{_FILE.pattern}(?:\.retired|\.[0-9a-f]{{16}}\.tmp)?"
    rf"|{re.escape(MANIFEST_NAME)}\.[0-9a-f]{{16}}\.tmp"
)


class LakeError(Exception):
    """The lake is not as it should be; the message names the file and what to do.

    LakeError
      StaleManifest     another writer has committed since the manifest was read
    """


class StaleManifest(LakeError):
    """The stored manifest is another than the one the commit is based on; nothing was changed."""


class AssetEntry(TypedDict):
    """One asset as it is named now.  The precisions count decimals."""

    asset_id: int
    name: str
    prec_save: int
    prec_show: int


class MarketEntry(TypedDict):
    """One market as it is named now.  stock, money: asset ids.  The precisions count decimals."""

    market: int
    name: str
    stock: int
    money: int
    stock_prec: int
    money_prec: int


@dataclass(frozen=True)
class FileEntry:
    """One file: the rows that entries first_seq to last_seq of its stream made on one UTC date.

    path: from the root of the lake.  part: the market's number, for balances the shard's.
    date: YYYY-MM-DD.  bytes: size of the file.
    """

    table: str
    path: str
    part: int
    date: str
    first_seq: int
    last_seq: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What is live.  version: grows by one with each commit, 0 before the first.

    watermarks: stream -> the last entry whose rows are in `files`.  files: sorted by table, part,
    date and first_seq.
    """

    version: int = 0
    watermarks: Mapping[str, int] = field(default_factory=dict)
    assets: tuple[AssetEntry, ...] = ()
    markets: tuple[MarketEntry, ...] = ()
    files: tuple[FileEntry, ...] = ()


def file_name(
    table: str, part: int, date: str, seqs: tuple[int, int], compacted: int | None
) -> str:
    """The path of a file from the root; compacted: the version that a compaction began with."""
    suffix = "" if compacted is None else f"-c{compacted}"
    folder = f"{table}/{PART_NAMES[table]}={part}/date={date}"
    return f"{folder}/{seqs[0]:012d}-{seqs[1]:012d}{suffix}.parquet"


def may_be_garbage(path: str) -> bool:
    """Whether the lake gave this name; what it did not name is not its own to remove."""
    return _GARBAGE.fullmatch(path) is not None


def in_order(files: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    """The files sorted; ValueError when two of them could hold the same row."""
    ordered = tuple(sorted(files, key=lambda f: (f.table, f.part, f.date, f.first_seq)))
    for one, two in pairwise(ordered):
        same = (one.table, one.part, one.date) == (two.table, two.part, two.date)
        if same and two.first_seq <= one.last_seq:
            raise ValueError(f"{one.path} and {two.path} cover the same entries")
    return ordered


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON, one file a line."""
    head = {
        "format": FORMAT,
        "version": manifest.version,
        "watermarks": dict(manifest.watermarks),
        "assets": manifest.assets,
        "markets": manifest.markets,
    }
    files = ",\n".join(json.dumps(vars(entry)) for entry in manifest.files)
    text = json.dumps(head, ensure_ascii=False)
    return f'{text[:-1]}, "files": [\n{files}\n]}}\n'.encode()


def decode(data: bytes) -> Manifest:
    """The manifest that `encode` made; ValueError, saying why, when it is anything else."""
    raw = json.loads(data)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(f"it is no manifest of format {FORMAT}")
    if raw.keys() != {"format", *get_type_hints(Manifest)}:
        raise ValueError(f"its keys are {sorted(raw)}")
    version, watermarks = raw["version"], raw["watermarks"]
    if not _is_count(version) or not isinstance(watermarks, dict):
        raise ValueError("version is no count, or watermarks no object")
    if not all(map(_is_count, watermarks.values())):
        raise ValueError("a watermark is no count")
    return Manifest(
        version=version,
        watermarks=watermarks,
        assets=tuple(_records(AssetEntry, raw["assets"])),
        markets=tuple(_records(MarketEntry, raw["markets"])),
        files=in_order(_file(each) for each in _records(FileEntry, raw["files"])),
    )


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _records(kind: type, raw: object) -> list[Any]:
    """`raw` if it is a list of objects with just the fields of `kind`, each of its type."""
    kinds = get_type_hints(kind)
    if not isinstance(raw, list):
        raise ValueError(f"what should be a list of {kind.__name__} is none")
    for each in raw:
        if not isinstance(each, dict) or {k: type(v) for k, v in each.items()} != kinds:
            raise ValueError(f"{each!r:.200} is no {kind.__name__}")
    return raw


def _file(raw: dict[str, Any]) -> FileEntry:
    """The entry, whose path must be the one its other fields give."""
    entry = FileEntry(**raw)
    found = _FILE.fullmatch(entry.path)
    seqs = entry.first_seq, entry.last_seq
    if not found or entry.table not in SCHEMAS or not 1 <= seqs[0] <= seqs[1]:
        raise ValueError(f"{entry.path!r} is no file of a lake")
    compacted = None if found[7] is None else int(found[7])
    if entry.path != file_name(entry.table, entry.part, entry.date, seqs, compacted):
        raise ValueError(f"{entry.path!r} is not where {entry!r} lies")
    return entry
