"""Every file of a small journal, cut at every byte and with every bit flipped.

The fast tests try a seeded sample of what the slow ones try whole.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from excore_ray.errors import SnapshotBroken
from excore_ray.storage.sqlite import open_sqlite, read_sqlite
from tests.storage.places import OWNER, STREAM
from tests.storage.torture import (
    DB,
    HEAD,
    KEY_SCRIPTS,
    LOG,
    SCRIPTS,
    Case,
    Scene,
    cuts,
    directory,
    flips,
    remove,
    sample,
    written,
)

SAMPLE = 150


@pytest.fixture(params=SCRIPTS)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    place = directory()
    try:
        yield written(place, {**SCRIPTS, **KEY_SCRIPTS}[request.param])
    finally:
        remove(place)


def some(scene: Scene, name: str) -> list[Case]:
    """A sample of the cuts and flips of one file."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance, data = random.Random(seed), scene.files[name]
    half = SAMPLE // 2
    return [*sample(cuts(name, data), half, chance), *sample(flips(name, data), half, chance)]


def every(scene: Scene, name: str) -> list[Case]:
    return [*cuts(name, scene.files[name]), *flips(name, scene.files[name])]


def test_an_untouched_journal_is_there_whole(scene: Scene) -> None:
    for by_reader in (False, True):
        for changed in ({}, {HEAD: None}):
            scene.lay_out({**changed})
            assert scene.outcome(by_reader=by_reader) == "all"


def check(counts: Counter[str], *allowed: str) -> None:
    print(dict(counts))
    assert set(counts) <= set(allowed)


def test_damage_to_the_log_never_loses_an_entry_in_silence(scene: Scene) -> None:
    check(scene.torture(some(scene, LOG)), "all", "halt")


def test_damage_to_the_database_never_loses_an_entry_in_silence(scene: Scene) -> None:
    check(scene.torture(some(scene, DB)), "all", "halt")


@pytest.mark.parametrize("scene", KEY_SCRIPTS, indirect=True)
def test_damage_to_the_keys_never_forgets_one_in_silence(scene: Scene) -> None:
    check(scene.torture(some(scene, DB)), "all", "halt")


def test_damage_to_the_note_harms_nothing(scene: Scene) -> None:
    check(scene.torture(every(scene, HEAD)), "all")


@pytest.mark.parametrize("name", [DB, LOG])
def test_without_its_note_a_damaged_journal_is_a_prefix_or_halts(scene: Scene, name: str) -> None:
    counts = scene.torture(some(scene, name), noted=False)
    # That it is a prefix, each outcome has looked at.
    check(counts, "all", "halt", "entries lost")


@pytest.mark.parametrize("gone", [b"", b"x", None], ids=["empty", "a byte", "missing"])
@pytest.mark.parametrize("noted", [False, True])
def test_a_database_that_is_gone_is_not_begun_anew(
    scene: Scene, gone: bytes | None, noted: bool
) -> None:
    if not noted and not scene.files[LOG]:
        # Nothing is left that could tell of it, as in the directory of a new stream.
        return
    for by_reader in (False, True):
        scene.lay_out({DB: gone, **({} if noted else {HEAD: None})})
        assert scene.outcome(by_reader=by_reader) == "halt"
        assert (scene.directory / LOG).read_bytes() == scene.files[LOG]
    if noted:
        scene.lay_out({DB: gone, LOG: None})
        assert scene.outcome(by_reader=False) == "halt"
        assert not (scene.directory / DB).exists() or gone is not None


def test_a_cut_log_is_not_moved_over_what_the_database_has(scene: Scene) -> None:
    # The start must not make it worse: with the log put right, all is there again.
    for at in range(32, len(scene.files[LOG]), 97):
        scene.lay_out({LOG: scene.files[LOG][:at]})
        if scene.outcome(by_reader=False) == "halt":
            assert (scene.directory / DB).read_bytes() == scene.files[DB]


# Each file where it holds most, and every how many bits: one costs half a millisecond, and more
# where there are more keys, and there are 320,000.  A fifth still meets each byte.
BITS = [
    ("log", LOG, 1),
    ("both", LOG, 1),
    ("both", DB, 1),
    ("closed", DB, 1),
    ("many keys", DB, 5),
    ("long blocks", DB, 5),
]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("scene", "name", "step"), BITS, indirect=["scene"])
def test_every_bit(scene: Scene, name: str, step: int) -> None:
    check(scene.torture(flips(name, scene.files[name])[::step]), "all", "halt")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_cut(scene: Scene) -> None:
    for name in (LOG, DB):
        check(scene.torture(cuts(name, scene.files[name])), "all", "halt")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_cut_without_a_note(scene: Scene) -> None:
    for name in (LOG, DB):
        counts = scene.torture(cuts(name, scene.files[name]), noted=False)
        check(counts, "all", "halt", "entries lost")


@pytest.fixture
def kept() -> Iterator[Scene]:
    """A journal that begins at its older snapshot, of entry 2; the newer one is of entry 4."""
    place = directory()
    try:
        scene = written(place, "10 20 5 10 20")
        with closing(open_sqlite(place, STREAM, owner=OWNER)) as journal:
            journal.save_snapshot(2, b"older")
            journal.save_snapshot(4, b"newer")
            journal.truncate(2)
        yield scene
    finally:
        remove(place)


def every_damage(data: bytes) -> Iterator[bytes]:
    for case in (*cuts("", data), *flips("", data)):
        yield case.of(data)


def test_any_damage_to_the_newer_snapshot_leads_to_the_older(kept: Scene) -> None:
    path = max(kept.directory.glob("*.snapshot"))
    with closing(read_sqlite(kept.directory, STREAM)) as reader:
        for damaged in every_damage(path.read_bytes()):
            path.write_bytes(damaged)
            assert reader.load_snapshot() == (2, b"older")
        assert reader.read(3, 1 << 30) == kept.entries[2:]


def test_any_damage_to_the_only_snapshot_halts(kept: Scene) -> None:
    max(kept.directory.glob("*.snapshot")).unlink()
    [path] = kept.directory.glob("*.snapshot")
    with closing(read_sqlite(kept.directory, STREAM)) as reader:
        assert reader.load_snapshot() == (2, b"older")
        for damaged in every_damage(path.read_bytes()):
            path.write_bytes(damaged)
            with pytest.raises(SnapshotBroken, match=r"1 to 2 were truncated.* from a backup"):
                reader.load_snapshot()
