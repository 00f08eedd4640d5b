"""Archive streams: which journals the archive follows, and what hinders it.

Separate from `archive.py`, which writes: this only reads, and keeps the troubles of one stream
away from the others.  It must not know the lake.

A trouble that may pass is told and tried again.  A stream that does not replay to itself, or is
damaged, is left alone from then on: a row made of it might be wrong, and cannot be called back.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping

import msgspec

from analytics.lake import AssetEntry, MarketEntry
from excore_ray.actors.archive_follower import Follower
from excore_ray.actors.archive_rows import Scales, UnknownScale
from excore_ray.actors.replay import Replay
from excore_ray.core.catalog import Catalog
from excore_ray.errors import JournalBroken, JournalFailed, StreamMissing
from excore_ray.storage.journal import JournalReader

logger = logging.getLogger(__name__)

CATALOG = "catalog"

# A stream that was not opened yet, a disk that does not answer, a catalog that is late.
_PASSING = (StreamMissing, JournalFailed, UnknownScale, OSError)


class Standing(msgspec.Struct):
    """What hinders one stream.

    trouble: what it waits for, "" for nothing.  stopped: why it is left alone, "" while it is not.
    """

    trouble: str = ""
    stopped: str = ""


class Definitions:
    """What the catalog defines, as of the last time it was read without fault.

    assets, markets: as the manifest of a lake tells them, in order of creation.  shards: of the
    ledger, 0 while it is not known.
    """

    def __init__(self, reader: JournalReader) -> None:
        self.scales = Scales()
        self.shards = 0
        self.assets: tuple[AssetEntry, ...] = ()
        self.markets: tuple[MarketEntry, ...] = ()
        self._reader = reader
        self._replay = Replay(reader, CATALOG)
        self._version = 0

    def read(self) -> None:
        """Read to where the journal ends.  Raises what Replay.advance raises."""
        while self._replay.advance():
            continue
        catalog = self._replay.machine
        assert isinstance(catalog, Catalog)
        if catalog.version == self._version:
            return
        self._version = catalog.version
        self.shards = catalog.shards
        self.scales = Scales(catalog.assets, catalog.markets)
        self.assets = tuple(
            AssetEntry(
                asset_id=asset.asset_id,
                name=asset.name,
                prec_save=asset.prec_save,
                prec_show=asset.prec_show,
            )
            for asset in catalog.assets
        )
        self.markets = tuple(
            MarketEntry(
                market=market.market_no,
                name=market.name,
                stock=market.rules.stock_id,
                money=market.rules.money_id,
                stock_prec=market.rules.stock_prec,
                money_prec=market.rules.money_prec,
            )
            for market in catalog.markets
        )

    def close(self) -> None:
        """Let go of the journal."""
        self._reader.close()


class Streams:
    """All streams of a data directory, as far as they can be read.

    names: names those there are now.  open_reader: opens one beside its owner.  clock: seconds
    that never go back.  followers: one a market and a shard.  definitions: None until the catalog
    has been opened.  standings: one for every stream that was ever there.
    """

    def __init__(
        self,
        names: Callable[[], Iterable[str]],
        open_reader: Callable[[str], JournalReader],
        clock: Callable[[], float],
    ) -> None:
        self.followers: dict[str, Follower] = {}
        self.definitions: Definitions | None = None
        self.standings: dict[str, Standing] = {}
        self._names = names
        self._open_reader = open_reader
        self._clock = clock

    def open_new(self, watermarks: Mapping[str, int]) -> None:
        """Follow the streams that came since the last time, and read the catalog."""
        for stream in sorted(self._names()):
            standing = self.standings.setdefault(stream, Standing())
            known = stream in self.followers or (stream == CATALOG and self.definitions is not None)
            if not known and not standing.stopped:
                watermark = watermarks.get(stream, 0)
                self.attempt(stream, functools.partial(self._open, stream, watermark))
        self.read_catalog()

    def read_catalog(self) -> None:
        """Learn what was defined and renamed since the last time."""
        if self.definitions is not None and not self.standings[CATALOG].stopped:
            self.attempt(CATALOG, self.definitions.read)

    def advance(self, follower: Follower) -> None:
        """Read one slice of a stream and make rows of it; see `standings` for how it went."""
        self.attempt(follower.stream, functools.partial(self._advance, follower))

    def newest(self, stream: str) -> int:
        """The entry with which the journal of a stream ends now, 0 when it cannot be told."""
        follower = self.followers.get(stream)
        found = [0]
        if follower is not None:
            self.attempt(stream, lambda: found.append(follower.newest()))
        return found[-1]

    def follower(self, stream: str) -> Follower | None:
        """The follower of a stream that is in order; None when there is no such stream.

        Raises JournalBroken when it is left alone, JournalFailed when it has a trouble.
        """
        standing = self.standings.get(stream)
        if standing is None:
            return None
        if standing.stopped:
            raise JournalBroken(f"stream {stream} is not archived any more: {standing.stopped}")
        if standing.trouble:
            raise JournalFailed(f"stream {stream} cannot be archived now: {standing.trouble}")
        return self.followers.get(stream)

    def attempt(self, stream: str, job: Callable[[], object]) -> None:
        """Do something for a stream.  When it fails, `standings` tells why, and the log."""
        try:
            job()
        except Exception as error:
            self.blame(stream, error)
        else:
            self.standings[stream].trouble = ""

    def blame(self, stream: str, error: Exception) -> None:
        """Report what befell a stream, and leave it alone if that will not pass."""
        standing = self.standings[stream]
        notes = "; ".join(getattr(error, "__notes__", []))
        text = f"{type(error).__name__}: {error} {notes}".strip()
        if isinstance(error, _PASSING):
            if text != standing.trouble:
                logger.warning("%s waits to be archived: %s", stream, text)
            standing.trouble = text
            return
        standing.stopped = text
        what = "is NOT ARCHIVED ANY MORE, its journal must be looked at"
        logger.critical("%s %s: %s", stream, what, text, exc_info=error)
        follower = self.followers.pop(stream, None)
        if follower is not None:
            follower.close()

    def close(self) -> None:
        """Let go of all journals."""
        while self.followers:
            self.followers.popitem()[1].close()
        if self.definitions is not None:
            self.definitions.close()

    def _open(self, stream: str, watermark: int) -> None:
        reader = self._open_reader(stream)
        try:
            if stream == CATALOG:
                self.definitions = Definitions(reader)
            else:
                self.followers[stream] = Follower(reader, watermark, self._clock())
        except BaseException:
            reader.close()
            raise

    def _advance(self, follower: Follower) -> None:
        if not follower.pending:
            follower.read()
        if follower.pending:
            # What an entry speaks of was durable in the catalog before it could be spoken of.
            self.read_catalog()
            scales = self.definitions.scales if self.definitions is not None else Scales()
            follower.convert(scales, self._clock())
