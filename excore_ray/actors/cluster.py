"""Cluster: a whole exchange on one machine, started and stopped in the right order.

Separate because the order is a matter of its own: what is asked must serve before who asks, and
end after.  It must not know Ray, which bind.py alone does, nor what is traded.

    cluster = await start(ClusterSettings(NodeSettings(data, logs, secret), ...))
    exchange = Exchange(cluster.wiring(), SteadyClock())
    await cluster.stop()

A start on a data directory that was used before brings everything back that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from excore_ray.actors import bind
from excore_ray.actors.instance import DataLock, PrivateRay
from excore_ray.actors.plan import ClusterSettings, GatewaySettings
from excore_ray.actors.wiring import TcpWiring, make_secret, new_gateway_name, read_secret
from excore_ray.core.commands import CreateCatalog, CreateShard
from excore_ray.core.custodian import market_name
from excore_ray.core.questions import ARCHIVE
from excore_ray.core.registrar import CATALOG
from excore_ray.core.shardlink import shard_name
from excore_ray.errors import ExcoreError, WireClosed

logger = logging.getLogger(__name__)

_STATUS_WAIT_S = 5.0
_LAYOUT_PAUSE_S = 0.1


class Cluster:
    """A running exchange.  Made by start().

    shards: of the ledger.  port: where the gateways serve HTTP, 0 without any.
    """

    def __init__(self, settings: ClusterSettings, lock: DataLock, ray: PrivateRay | None) -> None:
        self.settings = settings
        self.shards = 0
        self.gateways: list[str] = []
        self._lock = lock
        self._ray = ray
        self._port: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port the gateways share."""
        return int(self._port.getsockname()[1]) if self._port is not None else 0

    def wiring(self) -> TcpWiring:
        """A way to all actors for an `Exchange` in this process, under a name of its own."""
        node = self.settings.node
        secret = read_secret(Path(node.secret))
        return TcpWiring(new_gateway_name(), secret, bind.find, node.host, node.wire)

    async def layout(self) -> tuple[list[str], list[str]]:
        """The names of all ledger shards and of all markets."""
        shards, markets, _ = await bind.call(CATALOG, "layout", wait_s=_STATUS_WAIT_S)
        return [shard_name(k) for k in range(shards)], [market_name(k) for k in markets]

    async def status(self) -> dict[str, dict[str, Any]]:
        """How every process is, by the name of its actor; `trouble` says what is wrong with it."""
        ledgers, markets = await self.layout()
        names = [CATALOG, *ledgers, *markets, ARCHIVE, bind.COMPACTOR, *self.gateways]
        return dict(zip(names, await asyncio.gather(*map(_status, names)), strict=True))

    async def lost(self) -> str:
        """Return, saying why, when nothing that ends will be restarted any more: stop() then.

        Never returns on a Ray that others have started.
        """
        if self._ray is None:
            return await asyncio.Future()
        return await self._ray.lost()

    async def stop(self, patience_s: float = 20.0) -> None:
        """Finish what was asked and is pending, at most so long in all, then end everything.

        Gateways first, so that nothing new is asked; then markets, which settle with the shards;
        then shards and catalog; last the archive, which writes what they have left.  What is cut
        short is not lost: the next start replays it.  Without Ray's directory all is cut short.
        """
        if self._ray is not None and not self._ray.answers:
            logger.info("the directory of Ray has ended: everything is ended at once")
            self._ray.end()
            await self.release()
            return
        share_s = patience_s / 4
        try:
            await bind.wait_ready([CATALOG], share_s)
            ledgers, markets = await self.layout()
        except ExcoreError as fault:
            logger.warning("the catalog does not say what runs: %s", fault)
            ledgers, markets = [shard_name(k) for k in range(self.shards)], []
        for names in (self.gateways, markets, [*ledgers, CATALOG], [ARCHIVE]):
            await asyncio.gather(*(_stop(name, share_s) for name in names))
        await bind.remove(bind.COMPACTOR)
        await self.release()

    async def release(self) -> None:
        """Let go of Ray, the port and the data directory, whatever still runs."""
        await bind.disconnect()
        if self._ray is not None:
            self._ray.remove()
        if self._port is not None:
            self._port.close()
        self._lock.release()

    async def open(self, report: Callable[[str], None]) -> None:
        """Start everything, and wait until it serves; part of start()."""
        settings, node = self.settings, self.settings.node
        options = self._ray.options if self._ray is not None else {"address": settings.address}
        await bind.connect(options)
        if self._ray is not None:
            self._ray.begun()
        create = CreateCatalog(settings.shards)
        await bind.spawn(CATALOG, bind.CatalogActor, node, create)
        await bind.spawn(bind.COMPACTOR, bind.CompactorActor, node, settings.compactor)
        await bind.spawn(ARCHIVE, bind.ArchiveActor, node, settings.lake)
        if settings.gateway is not None:
            await self._open_gateways(settings.gateway)
        await bind.wait_ready([CATALOG], settings.start_s, report)
        ledgers, _ = await self.layout()
        self.shards = len(ledgers)
        for shard, name in enumerate(ledgers):
            await bind.spawn(name, bind.LedgerActor, node, CreateShard(shard, self.shards))
        await bind.wait_ready([*ledgers, bind.COMPACTOR, ARCHIVE], settings.start_s, report)
        await self._wait_markets(report)
        await bind.wait_ready(self.gateways, settings.start_s, report)

    async def _open_gateways(self, settings: GatewaySettings) -> None:
        from excore_ray.actors.gateway import reserve

        self._port = reserve(settings.host, settings.port)
        settings = msgspec.structs.replace(settings, port=self.port)
        for number in range(self.settings.gateways):
            name = f"http-{number}"
            self.gateways.append(name)
            await bind.spawn(name, bind.GatewayActor, name, self.settings.node, settings)

    async def _wait_markets(self, report: Callable[[str], None]) -> None:
        """Return when the catalog, which starts them, knows that all markets serve."""
        while True:
            _, _, unstarted = await bind.call(CATALOG, "layout", wait_s=_STATUS_WAIT_S)
            if not unstarted:
                return
            report(f"{len(unstarted)} markets do not serve yet")
            await asyncio.sleep(_LAYOUT_PAUSE_S)


async def start(settings: ClusterSettings, report: Callable[[str], None] = logger.info) -> Cluster:
    """Start an exchange, new or on what a data directory holds, and return when all of it serves.

    report: told in sentences what is being waited for.
    Raises SettingsError when the data directory is in use, the port is taken, or Ray was imported
    before a private one could be prepared; ExcoreError when something does not serve in time.
    """
    node = settings.node
    lock = DataLock(Path(node.data))
    try:
        make_secret(Path(node.secret))
        ray = None if settings.address else PrivateRay(lock, settings.cpus)
    except BaseException:
        lock.release()
        raise
    cluster = Cluster(settings, lock, ray)
    try:
        await cluster.open(report)
    except BaseException:
        await cluster.release()
        raise
    return cluster


async def _status(name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = await bind.call(name, "status", wait_s=_STATUS_WAIT_S)
    except WireClosed as fault:
        return {"trouble": str(fault)}
    return found


async def _stop(name: str, patience_s: float) -> None:
    try:
        await bind.wait_ready([name], patience_s)
        await bind.call(name, "stop", patience_s, wait_s=patience_s + 1)
    except ExcoreError as fault:
        logger.warning("%s was not stopped in order: %s", name, fault)
    await bind.remove(name)
