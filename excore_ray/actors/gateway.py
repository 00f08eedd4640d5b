"""Gateway: HTTP in front of one exchange façade: the server, its socket, its end.

Separate because the application above it lives in packages that must not be known here: it and
the façade come as import strings from whoever puts the whole together.  It must not know what is
asked.  Several gateways share one port, each with a socket of its own, and the kernel spreads
the connections over them.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import resource
import socket
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import uvicorn

from excore_ray.actors.clock import Clock
from excore_ray.actors.gateway_http import LINGERING_MAX, guarded
from excore_ray.actors.plan import GatewaySettings, HttpLimits
from excore_ray.actors.wiring import Wiring
from excore_ray.errors import SettingsError

logger = logging.getLogger(__name__)

_FILES_SPARE = 1_000  # for everything that is no client


class Facade(Protocol):
    """What a gateway itself needs of the exchange."""

    def start(self) -> None:
        """Begin to connect."""

    async def close(self, patience_s: float) -> None:
        """Wait for what is unanswered, at most so long, and hang up."""

    async def fresh_names(self) -> Any:
        """A copy of the catalog, or a refusal."""


class Gateway:
    """One incarnation of a gateway.

    task: serves HTTP until the end; when it is done without drain() the process should end.
    """

    def __init__(self, wiring: Wiring, clock: Clock, settings: GatewaySettings) -> None:
        self.exchange: Facade = load(settings.exchange)(wiring, clock)
        self.task: asyncio.Task[None] | None = None
        self._settings = settings
        limits = files_for(settings.limits)
        application = load(settings.application)(self.exchange, settings.application_settings)
        # Every request of a stranger that is no HTTP would be a line otherwise.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = uvicorn.Server(
            uvicorn.Config(
                application,
                http=guarded(limits),
                ws="none",  # it would leave the guarded protocol
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=limits.backlog,
                timeout_keep_alive=limits.keep_alive_s,
            )
        )

    async def open(self) -> None:
        """Connect to the catalog, then listen.  OSError when the address cannot be taken."""
        self.exchange.start()
        # Without names it could only refuse; another gateway on the port may already serve.
        await self.exchange.fresh_names()
        listening = listen(self._settings.host, self._settings.port, self._settings.limits.backlog)
        self.task = asyncio.create_task(self._server.serve(sockets=[listening]))
        logger.info("serves http://%s:%d", self._settings.host, self._settings.port)

    async def drain(self, patience_s: float) -> None:
        """Take no more connections, finish what was asked, at most so long, and hang up."""
        assert self.task is not None, "the gateway was never opened"
        self._server.config.timeout_graceful_shutdown = max(1, int(patience_s))
        self._server.should_exit = True
        await asyncio.wait([self.task])
        await self.exchange.close(patience_s)


def files_for(limits: HttpLimits) -> HttpLimits:
    """See to it that so many connections can be open; the limits that the system allows.

    Without a file to accept with, a server can do nothing for anybody.
    """
    most = limits.connections_max
    # A whole backlog may be accepted before the first of those it replaces is gone.
    beside = _FILES_SPARE + limits.backlog + LINGERING_MAX
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= most + beside:
        return limits
    soft = most + beside if hard == resource.RLIM_INFINITY else min(hard, most + beside)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fitting = max(1, soft - beside)
    if fitting >= most:
        return limits
    logger.warning(
        "%d files may be open, so at most %d connections, not %d: raise the limit of open files",
        soft,
        fitting,
        most,
    )
    return msgspec.structs.replace(limits, connections_max=fitting)


def load(reference: str) -> Callable[..., Any]:
    """What "module:name" stands for.  Raises SettingsError when there is no such thing."""
    module, _, name = reference.partition(":")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as fault:
        raise SettingsError(f"{reference!r} names nothing that can be imported: {fault}") from fault
    return found


def reserve(host: str, port: int) -> socket.socket:
    """Take a port for gateways to share, and nobody else; port 0 takes a free one.

    The socket never listens: it only keeps the port while gateways come and go.  Close it last.
    Raises SettingsError when somebody listens there.
    """
    try:
        # Alone first: sharing a port would succeed although another exchange uses it.
        probe = _bound(host, port, shared=False)
        taken = probe.getsockname()[1]
        probe.close()
        return _bound(host, taken, shared=True)
    except OSError as fault:
        raise SettingsError(f"cannot listen on {host}, port {port}: {fault}") from fault


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket on a shared port.  OSError when the address cannot be taken."""
    assert port, "a shared port is reserved before"
    listening = _bound(host, port, shared=True)
    listening.listen(backlog)
    listening.setblocking(False)
    return listening


def _bound(host: str, port: int, shared: bool) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
