"""The lake: deals, finished orders, account changes and bars as Parquet files.

Separate because a notebook reads it without the exchange.  It must not know what a journal is, nor
what one asks of the rows: a file's content is a function of entries of a stream, and whoever
replays that stream hands the rows in.

`Lake.write` makes files, `Lake.commit` makes them live by replacing the manifest, `Lake.sweep`
removes what no manifest names any more.  This module is the door for all of it.

Source: the manifest as one commit point is the manner of Apache Iceberg and Delta Lake.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from analytics.lake_compact_rows import Checked, KeyColumns
from analytics.lake_manifest import (
    MANIFEST_NAME,
    RETIRED_SUFFIX,
    AssetEntry,
    FileEntry,
    LakeError,
    Manifest,
    MarketEntry,
    StaleManifest,
    decode,
    encode,
    file_name,
    in_order,
    may_be_garbage,
)
from analytics.lake_schema import (
    BLOOM_COLUMNS,
    DATE_COLUMNS,
    DICTIONARY_COLUMNS,
    SCHEMAS,
    SORT_KEYS,
)
from analytics.lake_store import open_store
from analytics.lake_values import bars_of, decimal_array

__all__ = [
    "SCHEMAS",
    "SORT_KEYS",
    "AssetEntry",
    "FileEntry",
    "Lake",
    "LakeError",
    "Manifest",
    "MarketEntry",
    "StaleManifest",
    "bars_of",
    "decimal_array",
]

GROUP_ROWS_MAX = 32_768
_BLOOM_FALSE_SHARE = 0.01
_MEND = "restore it from a backup, or move the lake away and let the archive write it again"


class Lake:
    """The lake at a directory path or fsspec URL; nothing is created before the first write.

    One writer, any number of readers.  OSError, a fault of the store, goes through.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or url
        self._store = open_store(url)
        self._newest: tuple[bytes | None, Manifest] = None, Manifest()

    def manifest(self) -> Manifest:
        """The newest manifest, an empty one of version 0 when there is none.

        LakeError when it cannot be read.
        """
        try:
            data = self._store.get(MANIFEST_NAME)
            # Most of the time it is still the one that was read or made last.
            known, manifest = self._newest
            if data != known:
                manifest = decode(data)
                self._newest = data, manifest
            return manifest
        except FileNotFoundError:
            return Manifest()
        except OSError as error:
            raise LakeError(f"{self._where(MANIFEST_NAME)}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise LakeError(f"{self._where(MANIFEST_NAME)}: {error}; {_MEND}") from error

    def write(
        self,
        table: str,
        part: int,
        first_seq: int,
        last_seq: int,
        rows: pa.Table,
        *,
        compacted: int | None = None,
    ) -> list[FileEntry]:
        """Write what entries first_seq to last_seq of a stream made, one file a UTC date.

        rows: with exactly the columns of SCHEMAS[table], in any order of rows; none, no file.
        compacted: for a file that replaces others, the version of the manifest they are from.
        The files are durable when it returns, but live only once committed.  The same call
        writes the same bytes in the same place, as long as pyarrow stays the same.
        ValueError when the rows do not fit the schema, two have the same key, or one was made
        by an entry outside the range.  Memory: the rows once more, and one compressed file.
        """
        ordered = _ordered(table, rows)
        if not 1 <= first_seq <= last_seq:
            raise ValueError(f"{first_seq} to {last_seq} are no entries of a stream")
        if "seq" in ordered.column_names and len(ordered):
            found = pc.min_max(ordered["seq"]).as_py()
            if not first_seq <= found["min"] <= found["max"] <= last_seq:
                raise ValueError(f"{table} of entries {found}, not {first_seq} to {last_seq}")
        entries = []
        for date, of_date in _by_date(table, ordered):
            path = file_name(table, part, date, (first_seq, last_seq), compacted)
            data = _parquet(table, _groups([of_date]))
            self._store.put(path, data)
            size = len(of_date), len(data)
            entries.append(FileEntry(table, path, part, date, first_seq, last_seq, *size))
        return entries

    def read(self, entry: FileEntry) -> pa.Table:
        """The rows of one file, with the schema and in the order of its table.

        LakeError when the file is gone, or not the one that was written.
        """
        try:
            data = self._store.get(entry.path)
            source = pa.BufferReader(data)
            rows = pq.ParquetFile(source, page_checksum_verification=True).read()
        except (OSError, pa.ArrowException) as error:
            raise LakeError(f"{self._where(entry.path)}: {error}; {_MEND}") from error
        if (len(data), len(rows)) != (entry.bytes, entry.rows):
            found = f"{len(rows)} rows in {len(data)} bytes, not {entry.rows} in {entry.bytes}"
            raise LakeError(f"{self._where(entry.path)}: {found}; {_MEND}")
        if not rows.schema.equals(SCHEMAS[entry.table]):
            raise LakeError(f"{self._where(entry.path)}: other columns than {entry.table} has now")
        return rows

    def stream(self, entry: FileEntry, rows_max: int) -> Generator[pa.Table, None, None]:
        """The rows of one file as `read` gives them, at most `rows_max` at a time.

        LakeError when the file is gone, or not the one that was written, or a row is out of order
        or belongs elsewhere; it may come after rows that were good.
        Memory: the rows given, and one row group as it is encoded.
        """
        where = self._where(entry.path)
        checked = Checked(entry.table, entry.date, (entry.first_seq, entry.last_seq))
        try:
            if found := self._other(entry):
                raise ValueError(found)
            with self._store.open(entry.path) as source:
                file = pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True)
                if not file.schema_arrow.equals(SCHEMAS[entry.table]):
                    raise ValueError(f"other columns than {entry.table} has now")
                batches = file.iter_batches(rows_max, use_threads=False)
                yield from checked.each(pa.Table.from_batches([batch]) for batch in batches)
            if checked.rows != entry.rows:
                raise ValueError(f"{checked.rows} rows, not {entry.rows}")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise LakeError(f"{where}: {error}; {_MEND}") from error

    def write_merged(
        self,
        table: str,
        part: int,
        date: str,
        seqs: tuple[int, int],
        version: int,
        batches: Iterable[pa.Table],
    ) -> FileEntry:
        """Write what live files hold between them as one file, to replace them by a commit.

        seqs: the first and the last entry they cover.  version: of the manifest they are from.
        batches: their rows in the order of SORT_KEYS[table], at least one.  The bytes are those
        that `write` makes of the same rows, but memory holds one row group and what is compressed.
        LakeError when a row is out of order, twice there, or belongs elsewhere; it, or whatever
        `batches` raises, leaves no file.
        """
        path = file_name(table, part, date, seqs, version)
        checked = Checked(table, date, seqs)
        try:
            data = _parquet(table, _groups(checked.each(batches)))
            _expect_written(data, checked)
        except ValueError as error:
            raise LakeError(f"{self._where(path)}: {error}; nothing was written") from error
        self._store.put(path, data)
        return FileEntry(table, path, part, date, *seqs, checked.rows, len(data))

    def commit(
        self,
        base: Manifest,
        *,
        add: Iterable[FileEntry] = (),
        remove: Iterable[FileEntry] = (),
        watermarks: Mapping[str, int] | None = None,
        assets: Iterable[AssetEntry] | None = None,
        markets: Iterable[MarketEntry] | None = None,
    ) -> Manifest:
        """Make the next manifest from `base`, all of it or nothing; durable when it returns.

        watermarks: of the streams that moved on; the others stay.  assets, markets: all of them,
        None leaves them as they are.
        StaleManifest when `base` is not the newest.  LakeError when an added file is not there.
        ValueError when a file to remove is not live, two files would hold the same row, or a
        watermark would go back.
        """
        added, removed = list(add), set(remove)
        moved = dict(watermarks or {})
        with self._store.lock():
            # Asked for before the manifest is read: what is put in between is then in the way.
            stored_as = self._store.version(MANIFEST_NAME)
            stored = self.manifest()
            if stored.version != base.version:
                raise StaleManifest(
                    f"{self._where(MANIFEST_NAME)}: version {stored.version} is stored, not"
                    f" {base.version}; read it and begin again"
                )
            if strange := removed.difference(stored.files):
                raise ValueError(f"not live: {sorted(entry.path for entry in strange)}")
            for stream, seq in moved.items():
                if seq < stored.watermarks.get(stream, 0):
                    raise ValueError(f"{stream} is past {seq}: {stored.watermarks[stream]}")
            kept = [entry for entry in stored.files if entry not in removed]
            manifest = Manifest(
                version=stored.version + 1,
                watermarks={**stored.watermarks, **moved},
                assets=stored.assets if assets is None else tuple(assets),
                markets=stored.markets if markets is None else tuple(markets),
                files=in_order([*kept, *added]),
            )
            data = encode(manifest)
            # The files that stay have been read already: so this costs what is new.
            news = replace(manifest, files=in_order(added))
            if decode(encode(news)) != news:
                raise ValueError(f"this would not be read again as it is: {news!r:.2000}")
            self._expect(added)
            for entry in removed:
                self._store.put(entry.path + RETIRED_SUFFIX, b"")
            if not self._store.put_if(MANIFEST_NAME, data, stored_as):
                raise StaleManifest(
                    f"{self._where(MANIFEST_NAME)}: another writer has put version"
                    f" {manifest.version}; read it and begin again"
                )
        self._newest = data, manifest
        return manifest

    def sweep(self, grace_s: float, now_s: float) -> list[str]:
        """Remove files that the manifest has not named for `grace_s` seconds; what was removed.

        grace_s: longer than a reader holds a manifest, and than a writer takes to commit.
        now_s: the time, seconds since the epoch, by the clock of the store.
        Files whose names are not the lake's stay.  Returns sorted paths from the root.
        """
        with self._store.lock():
            live = {entry.path for entry in self.manifest().files}
            names = [name for name in self._store.names() if may_be_garbage(name)]
            ages = {name: self._store.modified_s(name) for name in names if name not in live}
            swept = []
            # A mark comes after its file, so that a crash in between cannot make the file young.
            for name, modified_s in sorted(ages.items()):
                retired_s = ages.get(name + RETIRED_SUFFIX)
                if modified_s is None or now_s - max(modified_s, retired_s or 0) < grace_s:
                    continue
                self._store.remove(name)
                if not name.endswith(RETIRED_SUFFIX):
                    swept.append(name)
        return swept

    def _expect(self, added: Iterable[FileEntry]) -> None:
        """LakeError unless each file is there as it was written."""
        for entry in added:
            if found := self._other(entry):
                raise LakeError(f"{self._where(entry.path)}: {found}; write it again")

    def _other(self, entry: FileEntry) -> str:
        """What is there in place of the file, "" when it has the size it should have."""
        size = self._store.size(entry.path)
        if size == entry.bytes:
            return ""
        return "it is gone" if size is None else f"{size} bytes, not {entry.bytes}"

    def _where(self, path: str) -> str:
        return f"{self.url}/{path}"


def _ordered(table: str, rows: pa.Table) -> pa.Table:
    """The rows with the schema of `table`, sorted; ValueError when they do not fit."""
    if table not in SCHEMAS:
        raise ValueError(f"no table {table!r}; there are {', '.join(SCHEMAS)}")
    schema, keys = SCHEMAS[table], SORT_KEYS[table]
    # Compared first, because a cast would turn a float into a quantity.
    if [(f.name, f.type) for f in rows.schema] != [(f.name, f.type) for f in schema]:
        raise ValueError(f"the columns are not those of {table}: {rows.schema.to_string()}")
    ordered = rows.cast(schema).sort_by([(key, "ascending") for key in keys]).combine_chunks()
    again = pa.array([True] * max(len(ordered) - 1, 0), pa.bool_())
    for key in keys:
        column = ordered[key]
        again = pc.and_(again, pc.equal(column[1:], column[:-1]))
    if pc.any(again).as_py():
        raise ValueError(f"two rows of {table} have the same {', '.join(keys)}")
    return ordered


def _by_date(table: str, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each UTC date with its rows, in order."""
    dates = rows[DATE_COLUMNS[table]].cast(pa.date32())
    for date in sorted(pc.unique(dates).to_pylist()):
        yield date.isoformat(), rows.filter(pc.equal(dates, date)).combine_chunks()


def _groups(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, GROUP_ROWS_MAX at a time, whatever they came in; the last may be fewer."""
    waiting: list[pa.Table] = []
    count = 0
    for rows in batches:
        waiting.append(rows)
        count += len(rows)
        if count >= GROUP_ROWS_MAX:
            whole = pa.concat_tables(waiting)
            while count >= GROUP_ROWS_MAX:
                yield whole.slice(len(whole) - count, GROUP_ROWS_MAX).combine_chunks()
                count -= GROUP_ROWS_MAX
            waiting = [whole.slice(len(whole) - count)]
    if count:
        yield pa.concat_tables(waiting).combine_chunks()


def _parquet(table: str, groups: Iterator[pa.Table]) -> bytes:
    """The row groups as a Parquet file; the same rows make the same bytes.

    ValueError when there is none.  The checksums let a page that went bad be seen before a
    compaction writes it again as good.
    """
    first = next(groups, None)
    if first is None:
        raise ValueError("no rows")
    schema = SCHEMAS[table]
    distinct = {"ndv": len(first), "fpp": _BLOOM_FALSE_SHARE}
    order = [pq.SortingColumn(schema.get_field_index(key)) for key in SORT_KEYS[table]]
    # Unlike a buffer of Arrow's, this one gives its bytes away without a copy.
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=DICTIONARY_COLUMNS[table],
        write_page_checksum=True,
        sorting_columns=order,
        bloom_filter_options=dict.fromkeys(BLOOM_COLUMNS[table], distinct),
    ) as writer:
        for group in chain([first], groups):
            writer.write_table(group, row_group_size=GROUP_ROWS_MAX)
    return sink.getvalue()


def _expect_written(data: bytes, checked: Checked) -> None:
    """ValueError unless the file has as many rows as were checked, and the same at its ends."""
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    rows, keys = file.metadata.num_rows, SORT_KEYS[checked.table]
    first, last = (
        file.read_row_group(n, columns=keys) for n in (0, file.metadata.num_row_groups - 1)
    )
    found = KeyColumns(checked.table, first)[0], KeyColumns(checked.table, last)[len(last) - 1]
    if (rows, *found) != (checked.rows, checked.first, checked.last):
        raise ValueError(f"{checked.rows} rows became {rows}, or others at the ends: {found}")
