"""Bind: our hosts as Ray actors: names, processes, supervision and restart.  All of Ray is in here.

Separate so that everything else runs, and is tested, without Ray.  Ray carries no orders, and no
promise rests on it.  It is imported only when it is used, for it reads its environment then.

Source: the actor options of Ray's manual; why each is as it is stands beside it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from excore_ray.actors.backseat import Backseat
from excore_ray.actors.catalog import CatalogShell, open_catalog
from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.compactor import Compactor, CompactorSettings
from excore_ray.actors.host import Host, Readiness, ShellHost, end_on_failure
from excore_ray.actors.ledger import open_ledger
from excore_ray.actors.market import open_market
from excore_ray.actors.plan import GatewaySettings, LakeSettings, NodeSettings
from excore_ray.actors.replay import KINDS
from excore_ray.actors.shell import Around
from excore_ray.actors.wire import Endpoint
from excore_ray.actors.wiring import TcpWiring, new_gateway_name, read_secret
from excore_ray.core.commands import CreateCatalog, CreateMarket, CreateShard
from excore_ray.core.custodian import market_name
from excore_ray.core.questions import ARCHIVE
from excore_ray.core.registrar import CATALOG
from excore_ray.core.shardlink import shard_name
from excore_ray.errors import ExcoreError, WireClosed
from excore_ray.storage.journal import Journal
from excore_ray.storage.sqlite import read_sqlite

if TYPE_CHECKING:
    from excore_ray.actors.gateway import Gateway
    from excore_ray.actors.lakekeeper import Lakekeeper

logger = logging.getLogger(__name__)

NAMESPACE = "excore"
COMPACTOR = "compactor"
_COMPACTOR_NICENESS = 10
_PAUSE_S = 0.1
_TRUNCATE_WAIT_S = 60.0
_WATERMARKS_WAIT_S = 10.0
_MARKET_WAIT_S = 60.0  # then the catalog tries anew
_SPARED = ("pyarrow", "pydantic", "starlette")
_handles: dict[str, Any] = {}  # of this process, by name


class MarketActor(ShellHost):
    """The process of one market."""

    def __init__(self, node: NodeSettings, create: CreateMarket) -> None:
        name = market_name(create.rules.market_no)
        super().__init__(name, node, find, functools.partial(open_market, create, node.sequencer))


class LedgerActor(ShellHost):
    """The process of one ledger shard."""

    def __init__(self, node: NodeSettings, create: CreateShard) -> None:
        name = shard_name(create.shard)
        super().__init__(name, node, find, functools.partial(open_ledger, create, node.custodian))


class CatalogActor(ShellHost):
    """The process of the catalog."""

    def __init__(self, node: NodeSettings, create: CreateCatalog) -> None:
        self._create = create
        super().__init__(CATALOG, node, find, self._open_catalog)

    async def layout(self) -> tuple[int, list[int], list[int]]:
        """The number of shards, and the numbers of all markets and of those not known to serve."""
        assert isinstance(self.shell, CatalogShell), "asked before it was ready"
        catalog = self.shell.catalog
        markets = [market.market_no for market in catalog.markets]
        return catalog.shards, markets, sorted(self.shell.registrar.unstarted)

    async def _open_catalog(self, journal: Journal, around: Around) -> CatalogShell:
        limits = self.node.registrar
        return await open_catalog(self._create, limits, journal, around, self._start_market)

    async def _start_market(self, create: CreateMarket) -> None:
        name = market_name(create.rules.market_no)
        await spawn(name, MarketActor, self.node, create)
        await wait_ready([name], _MARKET_WAIT_S)


class CompactorActor(Host):
    """The process that writes the snapshots of all streams of this node."""

    def __init__(self, node: NodeSettings, settings: CompactorSettings) -> None:
        data = Path(node.data)
        self._compactor = Compactor(
            functools.partial(_streams, data),
            functools.partial(read_sqlite, data),
            settings,
            _truncate,
            functools.partial(_watermarks, asyncio.get_running_loop()),
        )
        self._running: asyncio.Task[None] | None = None
        super().__init__(COMPACTOR, node, self._start)

    async def status(self) -> dict[str, Any]:
        """How compaction of each stream stands."""
        found: dict[str, Any] = {"pid": os.getpid(), "trouble": self.progress}
        return found | {
            stream: msgspec.structs.asdict(state)
            for stream, state in self._compactor.states.items()
        }

    async def _start(self) -> Endpoint | None:
        # What it does can wait; what the others do cannot.
        os.nice(_COMPACTOR_NICENESS)
        self._running = asyncio.create_task(self._compactor.run(), name="the compactor")
        self._running.add_done_callback(end_on_failure)
        return None


class ArchiveActor(Host):
    """The process that keeps the lake of this node, and answers what is asked of the past."""

    def __init__(self, node: NodeSettings, settings: LakeSettings) -> None:
        beside = Path(node.data).parent / "lake"
        self._settings = msgspec.structs.replace(settings, url=settings.url or str(beside))
        self._keeper: Lakekeeper | None = None
        super().__init__(ARCHIVE, node, self._start)

    async def status(self) -> dict[str, Any]:
        """How far each stream is in the lake."""
        found: dict[str, Any] = {"pid": os.getpid(), "trouble": self.progress}
        if self._keeper is None:
            return found
        return found | {"trouble": self._keeper.archive.trouble} | self._keeper.archive.status()

    async def watermarks(self) -> dict[str, int]:
        """Of each stream, the entry up to which the lake has its rows."""
        if self._keeper is None:
            raise WireClosed(f"the archive has not begun: {self.progress}")
        return dict(self._keeper.archive.manifest.watermarks)

    async def stop(self, patience_s: float) -> None:
        """Write what is left to write, at most for so long; the next start would do it too."""
        if self._keeper is not None:
            for task in self._keeper.tasks:
                task.remove_done_callback(end_on_failure)
            try:
                async with asyncio.timeout(patience_s):
                    await self._keeper.stop()
            except TimeoutError:
                # It was far behind.  What is not written now is still in the journals.
                logger.warning("the archive is cut short: the next start goes on from here")

    async def _start(self) -> Endpoint | None:
        # Only here: no other process should carry DuckDB and Arrow.
        from excore_ray.actors.lakekeeper import Lakekeeper

        data = Path(self.node.data)
        self._keeper = Lakekeeper(
            functools.partial(_streams, data),
            functools.partial(read_sqlite, data),
            self._settings,
            Backseat(self._settings.niceness),
        )
        secret = read_secret(Path(self.node.secret))
        wiring = TcpWiring(ARCHIVE, secret, find, self.node.host, self.node.wire)
        endpoint = await self._keeper.open(wiring)
        for task in self._keeper.tasks:
            task.add_done_callback(end_on_failure)
        return endpoint


class GatewayActor(Host):
    """The process of one gateway.  name: its place among the gateways, which it keeps."""

    def __init__(self, name: str, node: NodeSettings, settings: GatewaySettings) -> None:
        self._settings = settings
        self._gateway: Gateway | None = None
        super().__init__(name, node, self._start)

    async def status(self) -> dict[str, Any]:
        """Whether it serves."""
        return {"pid": os.getpid(), "trouble": self.progress}

    async def stop(self, patience_s: float) -> None:
        """Take no more requests, and finish what was asked, for so long."""
        if self._gateway is not None and self._gateway.task is not None:
            self._gateway.task.remove_done_callback(end_on_failure)
            await self._gateway.drain(patience_s)

    async def _start(self) -> Endpoint | None:
        # Only here: no other process should carry an HTTP server.
        from excore_ray.actors.gateway import Gateway

        secret = read_secret(Path(self.node.secret))
        wiring = TcpWiring(new_gateway_name(), secret, find, self.node.host, self.node.wire)
        self._gateway = Gateway(wiring, SteadyClock(), self._settings)
        await self._gateway.open()
        assert self._gateway.task is not None
        self._gateway.task.add_done_callback(end_on_failure)
        return None


_KEEPS_IMPORTS = {ArchiveActor, GatewayActor}


async def connect(options: dict[str, Any]) -> None:
    """Begin to use Ray.  options: of ray.init(), which starts a private Ray or joins one."""
    import ray

    # In a thread, where it leaves the signal handlers of this process alone.
    await asyncio.to_thread(ray.init, namespace=NAMESPACE, logging_level=logging.ERROR, **options)


async def disconnect() -> None:
    """Stop using Ray; a private one ends, with all its actors."""
    import ray

    _handles.clear()
    await asyncio.to_thread(ray.shutdown, wait_for_processes=True)


async def spawn(name: str, actor: type[Host], *args: Any) -> Any:
    """The handle of the actor called `name`, which is started unless there is one.

    args: of its constructor, the same for every later incarnation.
    """
    import ray

    options = ray.remote(_lean(actor, args)).options(
        name=name,
        get_if_exists=True,
        lifetime="detached",  # it outlives whoever started it
        num_cpus=0,  # Ray's scheduling is not ours: an actor is never refused a place
        max_restarts=-1,
        max_task_retries=0,  # a call may have run: who asks decides whether to ask again
    )
    # In a thread: it waits for Ray's directory, which may be away.
    _handles[name] = await asyncio.to_thread(options.remote)
    return _handles[name]


async def handle_of(name: str) -> Any:
    """The handle of a running actor.  Raises WireClosed when there is none of this name."""
    import ray

    if name not in _handles:
        try:
            _handles[name] = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
        except (ValueError, ray.exceptions.RayError) as fault:
            raise WireClosed(f"there is no actor {name} now: {fault}") from fault
    return _handles[name]


async def find(name: str) -> Endpoint:
    """Where an actor serves now, asked of itself: a `Resolve`.  Raises WireClosed when nowhere."""
    readiness = await _ask_ready(name)
    if readiness.endpoint is None:
        raise WireClosed(f"{name} does not serve yet: {readiness.trouble}")
    return readiness.endpoint


async def wait_ready(
    names: Iterable[str], wait_s: float, report: Callable[[str], None] | None = None
) -> None:
    """Return when all these actors serve.  report: told what one of them waits for.

    Raises ExcoreError when one does not in time, with the reason as far as it is known.
    """
    end = time.monotonic() + wait_s
    for name in names:
        trouble = ""
        while True:
            try:
                readiness = await _ask_ready(name)
            except WireClosed as fault:
                readiness = Readiness(False, None, str(fault))
            if readiness.serves:
                break
            if time.monotonic() >= end:
                raise ExcoreError(f"{name} does not serve: {readiness.trouble}")
            if report is not None and readiness.trouble != trouble:
                report(f"{name}: {readiness.trouble}")
            trouble = readiness.trouble
            await asyncio.sleep(_PAUSE_S)


async def call(name: str, method: str, *args: Any, wait_s: float) -> Any:
    """What a control method of an actor returns.  Raises WireClosed when it does not answer."""
    import ray

    handle = await handle_of(name)
    try:
        async with asyncio.timeout(wait_s):
            return await getattr(handle, method).remote(*args)
    except (TimeoutError, ray.exceptions.RayActorError) as fault:
        _handles.pop(name, None)
        raise WireClosed(f"{name} does not answer: {type(fault).__name__}") from fault


async def remove(name: str) -> None:
    """End an actor for good; its name is free afterwards.  Nothing happens when there is none."""
    import ray

    try:
        handle = await handle_of(name)
    except WireClosed as fault:
        logger.info("%s is not removed: %s", name, fault)
        return
    await asyncio.to_thread(ray.kill, handle, no_restart=True)
    _handles.pop(name, None)


async def _ask_ready(name: str) -> Readiness:
    found: Readiness = await call(name, "ready", wait_s=10.0)
    return found


def _lean(actor: type[Host], args: tuple[Any, ...]) -> type[Host]:
    """`actor` with its arguments built in, kept from importing what it has no use for.

    When it first unpickles an argument or pickles a result, Ray imports whatever of some large
    packages is installed, 35 MB in each process, only to be able to pickle their objects.  An
    actor without arguments runs before that.
    """

    def make(self: Host) -> None:
        if actor not in _KEEPS_IMPORTS:
            for package in _SPARED:
                sys.modules.setdefault(package, None)  # type: ignore[arg-type]
        actor.__init__(self, *args)

    return type(actor.__name__, (actor,), {"__init__": make})


async def _truncate(stream: str, up_to: int) -> None:
    """Have the owner of a stream forget its entries up to one."""
    await call(stream, "truncate", up_to, wait_s=_TRUNCATE_WAIT_S)


def _watermarks(loop: asyncio.AbstractEventLoop) -> Mapping[str, int]:
    """How far the lake has each stream, asked of the archive from another thread.

    Asked, and not read: who reads a manifest must carry Arrow.
    """
    asking = call(ARCHIVE, "watermarks", wait_s=_WATERMARKS_WAIT_S)
    found: Mapping[str, int] = asyncio.run_coroutine_threadsafe(asking, loop).result()
    return found


def _streams(data: Path) -> list[str]:
    """The streams that have a journal in `data`."""
    names = (path.stem for path in data.glob("*.db"))
    return [name for name in names if name.partition("-")[0] in KINDS]
