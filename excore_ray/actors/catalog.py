"""Catalog shell: a registrar on its journal, which sees to it that every market runs.

Separate because only the catalog knows which markets there are.  It must not know how an actor
is started: that is handed in.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable

from excore_ray.actors.replay import Rebuilt, rebuild
from excore_ray.actors.shell import Around, Shell
from excore_ray.core.catalog import Catalog
from excore_ray.core.commands import CreateCatalog, CreateMarket
from excore_ray.core.registrar import Registrar, RegistrarLimits
from excore_ray.storage.journal import Journal

logger = logging.getLogger(__name__)

StartMarket = Callable[[CreateMarket], Awaitable[object]]  # returns when the market serves

STARTS_MAX = 4  # at once
PAUSE_FIRST_S, PAUSE_MAX_S = 0.1, 5.0


class CatalogShell(Shell):
    """One incarnation of the catalog.  Made by open_catalog().  registrar: its desk."""

    def __init__(
        self,
        registrar: Registrar,
        rebuilt: Rebuilt,
        journal: Journal,
        around: Around,
        start_market: StartMarket,
    ) -> None:
        super().__init__(registrar, rebuilt, journal, around)
        self.registrar = registrar
        self._start_market = start_market
        self._starts: dict[int, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(STARTS_MAX)

    @property
    def catalog(self) -> Catalog:
        """The machine."""
        return self.registrar.catalog

    def turned(self) -> None:
        """Start the markets that are not known to serve."""
        for market_no in sorted(self.registrar.unstarted):
            if market_no not in self._starts:
                self._starts[market_no] = asyncio.create_task(self._start(market_no))

    async def hang_up(self) -> None:
        """Give up the starts under way."""
        tasks = list(self._starts.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _start(self, market_no: int) -> None:
        """Start one market, as often as it takes."""
        market = self.catalog.markets[market_no - 1]
        create = CreateMarket(market.rules, self.catalog.shards)
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                async with self._at_once:
                    await self._start_market(create)
                break
            except Exception as error:
                # Foreign code: whatever keeps a market from starting now may pass.
                logger.warning("market %d did not start: %r", market_no, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)
        self.change(functools.partial(self._started, market_no))

    def _started(self, market_no: int) -> None:
        del self._starts[market_no]
        self.registrar.started(market_no)


async def open_catalog(
    create: CreateCatalog,
    limits: RegistrarLimits,
    journal: Journal,
    around: Around,
    start_market: StartMarket,
) -> CatalogShell:
    """Bring the catalog back from its journal, or create it, and serve.

    create: the number of shards, for a first start only; afterwards the journal says it.
    Raises what replay and `Shell.open` raise.
    """
    rebuilt = await rebuild(journal, "catalog")
    catalog = rebuilt.machine
    assert type(catalog) is Catalog
    if rebuilt.seq and catalog.shards != create.shards:
        kept = "the number of shards is fixed at the first start"
        logger.warning("%d shards, not %d: %s", catalog.shards, create.shards, kept)
    registrar = Registrar(catalog, limits)
    first = registrar.open(around.clock.now_us(), None if rebuilt.seq else create)
    shell = CatalogShell(registrar, rebuilt, journal, around, start_market)
    await shell.open(first)
    logger.info("%s serves epoch %d at %s", journal.stream, catalog.epoch, shell.endpoint)
    return shell
