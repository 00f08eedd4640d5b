"""What is peculiar to a lake on S3: conditions of a PUT, parts of a file, a store that is down."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from s3fs import S3FileSystem

from analytics.lake import AssetEntry, Lake, LakeError, Manifest, StaleManifest
from analytics.lake_manifest import MANIFEST_NAME
from analytics.lake_store import RemoteStore, S3Store, file_system, open_store
from tests.analytics import s3_server
from tests.analytics.filled_lake import ASSETS
from tests.analytics.lake_rows import deals

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[s3_server.Server]:
    with s3_server.running() as running, s3_server.reached(running):
        yield running


@pytest.fixture
def url(server: s3_server.Server) -> str:
    """Where a lake may lie in a new bucket."""
    return f"{s3_server.bucket()}/lake"


def overtaking(url: str, base: Manifest) -> Iterator[AssetEntry]:
    """Names for a commit that let another writer commit while they are read."""
    Lake(url).commit(base, watermarks={"market-3": 7})
    yield from ASSETS


@pytest.mark.parametrize("commits", [0, 1])
def test_a_writer_that_was_overtaken_is_refused(url: str, commits: int) -> None:
    lake, base = Lake(url), Manifest()
    for _ in range(commits):
        base = lake.commit(base)
    with pytest.raises(StaleManifest, match=f"another writer has put version {commits + 1}"):
        lake.commit(base, assets=overtaking(url, base))
    assert lake.manifest() == Manifest(commits + 1, {"market-3": 7})


def test_elsewhere_nothing_keeps_two_writers_apart() -> None:
    """Why a lake has one archive: the second PUT takes the place of the first unseen."""
    url = f"memory://{uuid4().hex}/lake"
    lake = Lake(url)
    lake.commit(Manifest(), assets=overtaking(url, Manifest()))
    assert lake.manifest() == Manifest(1, assets=tuple(ASSETS))


class Unreliable:
    """A file system whose PUTs go through `put` first, which may do them or raise."""

    def __init__(self, system: Any, put: Callable[..., object]) -> None:
        self._system = system
        self.pipe_file = put

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)


def unreliable(url: str, put: Callable[..., object]) -> S3Store:
    system, root = file_system(url)
    return S3Store(Unreliable(system, lambda *given, **more: put(system, *given, **more)), root)


def test_an_answer_that_is_lost_does_not_make_a_commit_stale(url: str) -> None:
    def done_twice(system: Any, *given: Any, **more: Any) -> None:
        system.pipe_file(*given, **more)
        system.pipe_file(*given, **more)

    store = unreliable(url, done_twice)
    assert store.version("a") == ""
    for data in (b"1", b"2"):
        assert store.put_if("a", data, store.version("a"))
        assert store.get("a") == data
    assert not store.put_if("a", b"3", "")
    assert not store.put_if("a", b"3", '"0123"')
    assert not store.put_if("gone", b"3", '"0123"')
    assert (store.get("a"), store.size("gone")) == (b"2", None)


def test_a_put_that_was_not_done_is_a_fault(url: str) -> None:
    def lost(system: Any, *given: Any, **more: Any) -> None:
        raise ConnectionError("reset")

    store = unreliable(url, lost)
    with pytest.raises(OSError, match="lake/a: reset"):
        store.put_if("a", b"1", "")
    assert store.size("a") is None


def test_a_store_that_knows_no_conditions_is_written_all_the_same(url: str) -> None:
    def refuses(system: Any, path: str, data: bytes, **more: Any) -> None:
        if more.keys() & {"IfMatch", "IfNoneMatch"}:
            raise OSError(errno.ENOSYS, "a header that implies functionality not implemented")
        system.pipe_file(path, data, **more)

    store = unreliable(url, refuses)
    assert store.put_if("a", b"1", "")
    assert store.put_if("a", b"2", store.version("a"))
    assert store.get("a") == b"2"


def test_a_file_that_came_in_parts_is_like_any_other(url: str) -> None:
    system, root = file_system(url)
    data = bytes(range(256)) * (11 * MIB // 256)
    system.pipe_file(f"{root}/a", data, chunksize=5 * MIB)
    store = open_store(url)
    assert store.version("a").endswith('-3"')
    assert (store.size("a"), store.names(), store.get("a") == data) == (len(data), ["a"], True)
    with store.open("a") as file:
        file.seek(-3, 2)
        assert file.read(9) == b"\xfd\xfe\xff"  # type: ignore[attr-defined]
    assert store.put_if("a", b"", store.version("a"))
    assert (store.size("a"), store.get("a")) == (0, b"")


def test_a_reader_of_a_little_does_not_fetch_much(url: str) -> None:
    store, fetched = open_store(url), []
    store.put("a", bytes(8 * MIB))
    with store.open("a") as file:
        cache = file._file.cache  # type: ignore[attr-defined]
        fetch = cache.fetcher

        def counting(start: int, end: int) -> bytes:
            fetched.append(end - start)
            return bytes(fetch(start, end))

        cache.fetcher = counting
        file.read(100)  # type: ignore[attr-defined]
    assert 100 <= sum(fetched) <= 2 * MIB


def test_listings_that_others_keep_hide_nothing(url: str) -> None:
    """A notebook in this process has looked into the bucket before another process commits."""
    lake = Lake(url)
    [entry] = lake.write("deals", 3, 1, 300, deals(1, 20))
    notebook = fsspec.filesystem("s3")
    folder = f"{url.removeprefix('s3://')}/{entry.path}".rsplit("/", 1)[0]
    assert len(notebook.ls(folder)) == 1
    elsewhere = S3FileSystem(skip_instance_cache=True)
    store = RemoteStore(elsewhere, url.removeprefix("s3://"))
    other = entry.path.replace("-000000000300", "-000000000400")
    store.put(other, b"12345")
    store.remove(entry.path)
    assert len(notebook.ls(folder)) == 1
    assert open_store(url).names() == [other]
    assert open_store(url).size(other) == 5
    assert open_store(url).size(entry.path) is None
    assert open_store(url).modified_s(entry.path) is None


def test_a_bucket_that_is_not_there(server: s3_server.Server) -> None:
    url = f"s3://none-{uuid4().hex}/lake"
    lake = Lake(url)
    assert lake.manifest() == Manifest()
    assert open_store(url).names() == []
    for use in (
        lambda: lake.commit(Manifest(), watermarks={"market-3": 1}),
        lambda: lake.write("deals", 3, 1, 300, deals(1, 20)),
    ):
        with pytest.raises(OSError, match="bucket does not exist"):
            use()


def test_a_store_that_is_down_is_a_fault_that_may_pass() -> None:
    """Whoever writes tries again after an OSError, and gives up after any other."""
    with s3_server.running() as server, s3_server.reached(server):
        url = f"{s3_server.bucket()}/lake"
        lake, store = Lake(url), open_store(url)
        [entry] = lake.write("deals", 3, 1, 300, deals(1, 20))
        live = lake.commit(lake.manifest(), add=[entry])
        file = store.open(entry.path)
        server.end()
        for use in (
            lambda: store.get("a"),
            lambda: store.put("a", b""),
            lambda: store.put_if("a", b"", ""),
            lambda: store.size("a"),
            lambda: store.modified_s("a"),
            lambda: store.remove("a"),
            lambda: store.open("a"),
            lambda: file.read(9),  # type: ignore[attr-defined]
            store.names,
            lambda: lake.write("deals", 3, 1, 400, deals(1, 20)),
            lambda: lake.commit(live),
        ):
            with pytest.raises(OSError, match="Could not connect") as caught:
                use()
            assert str(caught.value).startswith(url)
        for failing in (lake.manifest, lambda: lake.read(entry)):
            with pytest.raises(LakeError, match="Could not connect") as named:
                failing()
            assert str(named.value).startswith(url)
        with pytest.raises(LakeError) as named:
            lake.manifest()
        # It may be all there still.
        assert "move the lake away" not in str(named.value)
    assert MANIFEST_NAME in str(named.value)
