"""The manifest is read as it was written, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analytics.lake import FileEntry, Lake, LakeError, Manifest
from analytics.lake_manifest import MANIFEST_NAME, decode, encode, may_be_garbage

FOLDER = "deals/market=3/date=2026-11-22"
PATH = f"{FOLDER}/000000000001-000000008123.parquet"
LATER = f"{FOLDER}/000000008124-000000008124-c17.parquet"
MANIFEST = Manifest(
    version=17,
    watermarks={"market-3": 8124, "ledger-0": 991},
    assets=({"asset_id": 1, "name": "BÄR", "prec_save": 20, "prec_show": 8},),
    markets=(
        {"market": 3, "name": "BTC_USDT", "stock": 1, "money": 2, "stock_prec": 8, "money_prec": 8},
    ),
    files=(
        FileEntry("deals", PATH, 3, "2026-11-22", 1, 8123, 100, 12345),
        FileEntry("deals", LATER, 3, "2026-11-22", 8124, 8124, 1, 1234),
    ),
)


@pytest.mark.parametrize("manifest", [Manifest(), MANIFEST])
def test_it_is_read_as_it_was_written(manifest: Manifest) -> None:
    assert decode(encode(manifest)) == manifest


def test_it_has_the_documented_form() -> None:
    assert json.loads(encode(MANIFEST)) == {
        "format": 1,
        "version": 17,
        "watermarks": {"market-3": 8124, "ledger-0": 991},
        "assets": list(MANIFEST.assets),
        "markets": list(MANIFEST.markets),
        "files": [
            {"table": "deals", "path": PATH, "part": 3, "date": "2026-11-22", "first_seq": 1}
            | {"last_seq": 8123, "rows": 100, "bytes": 12345},
            {"table": "deals", "path": LATER, "part": 3, "date": "2026-11-22", "first_seq": 8124}
            | {"last_seq": 8124, "rows": 1, "bytes": 1234},
        ],
    }


def _change(*keys: str | int, to: object) -> Callable[[Any], None]:
    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change("format", to=2),
        _change("new", to=1),
        _change("version", to="17"),
        _change("version", to=True),
        _change("version", to=-1),
        _change("watermarks", to=[]),
        _change("watermarks", "market-3", to=1.5),
        _change("assets", to={}),
        _change("assets", 0, "asset_id", to="1"),
        _change("assets", 0, to=7),
        _change("markets", 0, "more", to=1),
        _change("files", 0, "rows", to=None),
        _change("files", 0, "table", to="orders"),
        _change("files", 0, "part", to=4),
        _change("files", 0, "date", to="2026-11-23"),
        _change("files", 0, "last_seq", to=8122),
        _change("files", 0, "path", to="/etc/passwd"),
        _change("files", 0, "path", to=f"../{PATH}"),
        _change("files", 1, "path", to=LATER.replace("-c17", "-c")),
        _change("files", 1, to=json.loads(encode(MANIFEST))["files"][0]),
        lambda raw: raw.pop("files"),
    ],
)
def test_one_that_is_wrong_names_itself(tmp_path: Path, change: Callable[[Any], object]) -> None:
    raw = json.loads(encode(MANIFEST))
    change(raw)
    _expect_named(tmp_path, json.dumps(raw).encode())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\x00\xff", b"[]", b"null", b"[" * 100_000, encode(MANIFEST)[:-40]]
)
def test_one_that_is_broken_names_itself(tmp_path: Path, data: bytes) -> None:
    _expect_named(tmp_path, data)


def test_one_that_is_a_directory_names_itself(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).mkdir()
    with pytest.raises(LakeError, match=MANIFEST_NAME):
        Lake(str(tmp_path)).manifest()


def _expect_named(root: Path, data: bytes) -> None:
    path = root / MANIFEST_NAME
    path.write_bytes(data)
    lake = Lake(str(root))
    for use in (
        lake.manifest,
        lambda: lake.commit(Manifest(), watermarks={"market-1": 1}),
        lambda: lake.sweep(0, 1e12),
    ):
        with pytest.raises(LakeError, match="restore it from a backup") as caught:
            use()
        assert str(path) in str(caught.value)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        (PATH, True),
        (LATER, True),
        (f"{PATH}.retired", True),
        (f"{PATH}.0123456789abcdef.tmp", True),
        ("manifest.json.0123456789abcdef.tmp", True),
        ("bars/market=12/date=2026-11-22/1234567890123-1234567890123.parquet", True),
        ("manifest.json", False),
        ("manifest.lock", False),
        ("manifest.json.bak", False),
        (f"{PATH}.crc", False),
        (f"{PATH}.tmp", False),
        (f"copy/{PATH}", False),
        (f"{FOLDER}/1-2.parquet", False),
        (f"{FOLDER}/notes.txt", False),
        (PATH.replace("deals", "trades"), False),
    ],
)
def test_only_names_of_the_lake_are_its_to_remove(path: str, ours: bool) -> None:
    assert may_be_garbage(path) == ours
