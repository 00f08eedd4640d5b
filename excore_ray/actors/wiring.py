"""Wiring: how one actor, under its own name, is reached and reaches others.

Separate so that shells and the exchange façade run unchanged over TCP, in memory, or broken on
purpose.  It must not know what travels, nor how a name becomes an address: that is the business
of the `Resolve` it is given.
"""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from excore_ray.actors.wire import DEFAULT_LIMITS, Endpoint, Handler, Limits, Link, serve
from excore_ray.actors.wire_server import Server
from excore_ray.errors import SettingsError

SECRET_BYTES = 32

Resolve = Callable[[str], Awaitable[Endpoint]]  # the name of an actor -> where it serves now


class Wiring(Protocol):
    """One actor's way to the others.  name: what its peers know it by."""

    name: str

    def link(self, handler: Handler, peer: str) -> Link:
        """A link to the actor called `peer`, not yet started."""
        ...

    async def serve(self, handler: Handler) -> Server:
        """Begin to listen under `name`.  OSError when the address cannot be taken."""
        ...


class TcpWiring:
    """Wiring over TCP.  host: the address of this machine to listen on."""

    def __init__(
        self,
        name: str,
        secret: bytes,
        resolve: Resolve,
        host: str = "127.0.0.1",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.name = name
        self._secret = secret
        self._resolve = resolve
        self._host = host
        self._limits = limits

    def link(self, handler: Handler, peer: str) -> Link:
        """See Wiring.link."""
        return Link(
            handler,
            name=self.name,
            peer=peer,
            secret=self._secret,
            resolve=functools.partial(self._resolve, peer),
            limits=self._limits,
        )

    async def serve(self, handler: Handler) -> Server:
        """See Wiring.serve."""
        return await serve(
            handler, name=self.name, secret=self._secret, host=self._host, limits=self._limits
        )


def new_gateway_name() -> str:
    """A name for the wire that no other incarnation of a gateway has had."""
    return "gateway-" + secrets.token_hex(8)


def make_secret(path: Path) -> None:
    """Make the cluster secret at `path`, readable by its owner alone, unless there is one."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with open(fd, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(SECRET_BYTES))
        file.flush()
        os.fsync(fd)


def read_secret(path: Path) -> bytes:
    """The cluster secret.  Raises SettingsError when others can read it, or it is too short."""
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as fault:
        raise SettingsError(f"the cluster secret cannot be read: {fault}") from fault
    if mode & 0o077:
        raise SettingsError(f"{path} can be read by others: chmod 600 {path}, or make a new one")
    if len(secret) < SECRET_BYTES:
        raise SettingsError(f"{path} holds {len(secret)} bytes; a secret has {SECRET_BYTES}")
    return secret
