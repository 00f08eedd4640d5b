"""The commands of audit, backup and restore: what they are told, and what they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analytics.lake import Lake
from excore_ray.__main__ import app
from excore_ray.offline.backup import make_backup
from excore_ray.offline.restore import restore
from tests.offline.world import made, quiet, source_of


def excore(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.output


def test_the_commands(tmp_path: Path) -> None:
    planted = made(tmp_path)
    data, backup, again = planted.places.data, tmp_path / "backup", tmp_path / "again"
    code, out = excore("backup", backup, "--data", data)
    assert (code, "backed up as of" in out) == (0, True), out
    code, out = excore("restore", backup, again)
    assert (code, "restored as of" in out, "exact as of" in out) == (0, True, True), out
    assert "note: with these settings" not in out
    code, out = excore("audit", "--deep", "--data", again)
    assert (code, "exact as of" in out) == (0, True), out
    (backup / "cluster.secret").write_bytes(b"another")
    code, out = excore("restore", backup, tmp_path / "new")
    assert (code, "cluster.secret changed" in out) == (1, True), out


# Words, with {root} for a place in which data, backup and again are full; exit code, what is said.
MISUSE = [
    ("backup {root}/backup --data {root}/data", 2, "backup is not empty"),
    ("restore {root}/backup {root}/again", 2, "again is not empty"),
    ("backup {root}/new --data {root}/nowhere", 2, "nowhere is no data directory"),
    ("backup {root}/new --config {root}/nowhere.toml", 2, "cannot be read"),
    ("restore {root}/data {root}/new", 1, "data is no backup"),
    ("audit --deep --data {root}/nowhere", 2, "no journals in"),
    ("audit --deep --online --data {root}/data", 2, "--deep asks nobody"),
    ("audit --lake {root}/data/lake --data {root}/data", 2, "--lake goes with --deep"),
    ("audit --online --lake {root}/data/lake --data {root}/data", 2, "--lake goes with --deep"),
    ("audit --deep --config {root}/odd.toml", 2, "there is no setting 'lakes'"),
]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full")
    planted = made(root)
    make_backup(source_of(planted), root / "backup", quiet)
    restore(root / "backup", root / "again", quiet)
    (root / "odd.toml").write_text("lakes = 1")
    return root


@pytest.mark.parametrize(("words", "code", "said"), MISUSE)
def test_wrong_use_is_told(words: str, code: int, said: str, full: Path) -> None:
    found, out = excore(*words.format(root=full).split())
    assert (found, said in out) == (code, True), out
    assert not (full / "new").exists()


def moved_lake(root: Path) -> Path:
    """A data directory whose lake lies elsewhere; the settings that say so, relative to nothing."""
    planted = made(root)
    shutil.move(planted.places.lake, root / "elsewhere")
    config = root / "excore.toml"
    config.write_text(f'data = "{planted.places.data}"\n[lake]\nurl = "{root / "elsewhere"}"\n')
    return config


def test_the_settings_say_where_everything_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = moved_lake(tmp_path)
    version = Lake(str(tmp_path / "elsewhere")).manifest().version
    monkeypatch.chdir(tmp_path)  # where ./data is the very directory: the lake still is not
    code, out = excore("audit", "--deep")
    assert (code, "lake: there is none" in out) == (0, True), out
    code, out = excore("audit", "--deep", "--config", config)
    assert (code, f"elsewhere, version {version}" in out) == (0, True), out
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    code, out = excore("audit", "--deep", "--config", config)
    assert (code, f"elsewhere, version {version}" in out) == (0, True), out
    code, out = excore("backup", tmp_path / "backup", "--config", config)
    assert (code, "files of the lake" in out) == (0, True), out
    code, out = excore("restore", tmp_path / "backup", tmp_path / "again", "--config", config)
    assert (code, "exact as of" in out) == (0, True), out
    assert f"served with the lake {tmp_path / 'elsewhere'}" in out


def test_an_option_wins_over_a_variable_and_that_over_the_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = moved_lake(tmp_path), tmp_path / "data"
    for name, told in (("EXCORE_DATA", tmp_path / "nowhere"), ("EXCORE_DATA", data)):
        monkeypatch.setenv(name, str(told))
        code, out = excore("audit", "--deep", "--config", config)
        assert code == (0 if told == data else 2), out
        code, out = excore("backup", tmp_path / f"of-{told.name}", "--config", config)
        assert code == (0 if told == data else 2), out
    monkeypatch.setenv("EXCORE_DATA", str(tmp_path / "nowhere"))
    code, out = excore("audit", "--deep", "--config", config, "--data", data)
    assert (code, "elsewhere" in out) == (0, True), out
    code, out = excore("audit", "--deep", "--config", config, "--data", data, "--lake", data)
    assert (code, "lake: there is none" in out) == (0, True), out
    monkeypatch.setenv("EXCORE_DATA", str(tmp_path / "restored"))
    code, out = excore("restore", tmp_path / "of-data", "--config", config)
    assert (code, (tmp_path / "restored" / "journals").is_dir()) == (0, True), out


def test_the_audit_ends_with_1_when_it_finds_something(tmp_path: Path) -> None:
    planted = made(tmp_path)
    entry = next(f for f in Lake(str(planted.places.lake)).manifest().files if f.table == "deals")
    (planted.places.lake / entry.path).unlink()
    code, out = excore("audit", "--deep", "--data", planted.places.data)
    assert code == 1
    assert "findings as of" in out
    assert "deals of market-1" in out
