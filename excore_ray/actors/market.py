"""Market shell: a sequencer on its journal, linked to every ledger shard.

Separate because only a market dials: it talks to all shards, whoever of them is up.  It must not
know books or orders.
"""

from __future__ import annotations

import functools
import logging

from excore_ray.actors.replay import Rebuilt, rebuild
from excore_ray.actors.shell import Around, Shell
from excore_ray.actors.wire import Connection, Link
from excore_ray.core.commands import CreateMarket
from excore_ray.core.market import Market
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import SequencerLimits, shard_name
from excore_ray.errors import JournalForeign
from excore_ray.storage.journal import Journal

logger = logging.getLogger(__name__)


class MarketShell(Shell):
    """One incarnation of a market.  Made by open_market()."""

    def __init__(
        self, sequencer: Sequencer, rebuilt: Rebuilt, journal: Journal, around: Around
    ) -> None:
        super().__init__(sequencer, rebuilt, journal, around)
        self._sequencer = sequencer
        self._shards = {shard_name(k): k for k in range(sequencer.market.shards)}
        self._links: list[Link] = []

    def dial(self) -> None:
        """Begin to connect to all shards."""
        for peer in self._shards:
            link = self.around.wiring.link(self, peer)
            self._links.append(link)
            link.start()

    def connected(self, connection: Connection) -> None:
        """Part of being a Handler: a shard that was away may have missed anything."""
        super().connected(connection)
        shard = self._shards.get(connection.name)
        if shard is not None:
            self.change(functools.partial(self._sequencer.connected, shard))

    async def hang_up(self) -> None:
        """Close the links."""
        for link in self._links:
            await link.close()


async def open_market(
    create: CreateMarket, limits: SequencerLimits, journal: Journal, around: Around
) -> MarketShell:
    """Bring a market back from its journal, or create it, and serve.

    create: the market's definition, which the journal of an existing one must agree with.
    Raises JournalForeign when it does not, and what replay and `Shell.open` raise.
    """
    rebuilt = await rebuild(journal, "market")
    market = rebuilt.machine
    assert type(market) is Market
    if rebuilt.seq and (market.rules, market.shards) != (create.rules, create.shards):
        raise JournalForeign(
            f"stream {journal.stream} is of a market with {market.rules} on {market.shards} shards;"
            f" the catalog says {create}. Do not mix the files of two exchanges."
        )
    sequencer = Sequencer(market, limits)
    first = sequencer.open(around.clock.now_us(), None if rebuilt.seq else create)
    shell = MarketShell(sequencer, rebuilt, journal, around)
    await shell.open(first)
    shell.dial()
    logger.info("%s serves epoch %d at %s", journal.stream, market.epoch, shell.endpoint)
    return shell
