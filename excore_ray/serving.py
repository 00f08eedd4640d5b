"""Serving: an exchange from its first process to its last, as `excore serve` runs it.

Separate from the command line so that tests serve too.  A composition root: it alone brings
actors, the façade and the HTTP application together.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import msgspec

from excore_ray.actors.clock import SteadyClock
from excore_ray.actors.cluster import Cluster, start
from excore_ray.actors.plan import ClusterSettings, GatewaySettings, NodeSettings, RequestLimits
from excore_ray.core.catalog import Scope
from excore_ray.core.commands import AddKey
from excore_ray.core.messages import AskKeys, Keys
from excore_ray.core.reasons import Refused
from excore_ray.errors import ExcoreError, SettingsError
from excore_ray.exchange import Exchange
from excore_ray.settings import Settings

_STOP_PATIENCE_S = 15.0


class ApiSettings(msgspec.Struct, frozen=True):
    """What the HTTP application is told.  auth: whether requests must be signed.

    limits: how many requests it takes of each key and user.
    """

    auth: bool
    limits: RequestLimits


class Credential(NamedTuple):
    """An API key with its secret."""

    key: str
    secret: str


class Places:
    """What lies where in a data directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.journals = data / "journals"
        self.logs = data / "logs"
        self.lake = data / "lake"
        self.secret = data / "cluster.secret"
        self.admin = data / "admin.json"  # the generated admin credential
        self.running = data / "running.json"  # where the exchange serves while it runs

    def make(self) -> None:
        """Make the directories, for this user alone.  Raises SettingsError when that fails."""
        try:
            for directory in (self.data, self.journals, self.logs):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as fault:
            raise SettingsError(f"the data directory cannot be used: {fault}") from fault


async def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then stop in order.

    say: told what is being waited for, and the line beginning "excore ready" when it serves.
    Raises ExcoreError when the exchange cannot serve.
    """
    stopping = asyncio.Event()
    _listen(stopping)
    # Inherited by every process: whatever they write, logs included, is for this user alone.
    os.umask(0o077)
    places = Places(settings.directory)
    places.make()
    starting = asyncio.create_task(start(_plan(settings, places), say))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([starting, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        say("stopping before everything has started")
    cluster = await starting
    # Ray has put handlers of its own in place, which print a stack.
    _listen(stopping)
    lost = asyncio.create_task(cluster.lost())
    try:
        if not stopping.is_set():
            await _introduce(cluster, settings, places, say)
            await asyncio.wait([waiting, lost], return_when=asyncio.FIRST_COMPLETED)
        say("stopping: finishing what was asked")
    finally:
        waiting.cancel()
        lost.cancel()
        places.running.unlink(missing_ok=True)
        await cluster.stop(_STOP_PATIENCE_S)
    say("stopped")
    if lost.done() and not lost.cancelled():
        raise ExcoreError(f"the exchange could not go on: {lost.result()}; start it again")


def _listen(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)


def read_running(places: Places) -> str:
    """The URL where the exchange of a data directory serves.  Raises SettingsError when none."""
    try:
        found = json.loads(places.running.read_text())
        url, pid = str(found["url"]), int(found["pid"])
    except (OSError, ValueError, KeyError) as fault:
        raise SettingsError(f"no exchange seems to run on {places.data}") from fault
    # One that was killed has left the file behind.
    if not _lives(pid):
        raise SettingsError(f"the exchange on {places.data}, process {pid}, has ended unexpectedly")
    return url


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, and sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_admin(places: Places) -> Credential | None:
    """The generated admin credential, None when there is none."""
    try:
        found = json.loads(places.admin.read_text())
        return Credential(found["key"], found["secret"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as fault:
        raise SettingsError(f"{places.admin} cannot be read: {fault!r}") from fault


def _plan(settings: Settings, places: Places) -> ClusterSettings:
    node = NodeSettings(
        data=str(places.journals),
        logs=str(places.logs),
        secret=str(places.secret),
        log_level=settings.log_level,
        kill_after_s=settings.kill_after_s,
        shell=settings.shell,
        sequencer=settings.market,
        custodian=settings.ledger,
    )
    gateway = GatewaySettings(
        application="api.app:create_app",
        application_settings=ApiSettings(settings.auth, settings.limits),
        host=settings.host,
        port=settings.port,
        limits=settings.http,
    )
    return ClusterSettings(
        node=node,
        gateway=gateway,
        gateways=settings.gateways,
        shards=settings.shards,
        compactor=settings.compactor,
        lake=msgspec.structs.replace(settings.lake, url=settings.lake.url or str(places.lake)),
    )


async def _introduce(
    cluster: Cluster, settings: Settings, places: Places, say: Callable[[str], None]
) -> None:
    """Make sure that somebody may ask, then tell the world where."""
    if settings.auth:
        exchange = Exchange(cluster.wiring(), SteadyClock())
        exchange.start()
        try:
            await _ensure_admin(exchange, settings, places, say)
        finally:
            await exchange.close(1.0)
    else:
        say("authentication is off: everybody on this machine may do everything")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{cluster.port}"
    _write_private(places.running, {"url": url, "pid": os.getpid()})
    say(f"excore ready {url}")


async def _ensure_admin(
    exchange: Exchange, settings: Settings, places: Places, say: Callable[[str], None]
) -> None:
    """Have an admin credential: the one of the environment, or one that is generated once."""
    answer = await exchange.ask_catalog(AskKeys())
    if not isinstance(answer, Keys):
        raise ExcoreError(f"the catalog does not tell its keys: {answer}")
    known = {view.key: view for view in answer.keys}
    if settings.api_key:
        chosen = Credential(settings.api_key, settings.api_secret)
        await _add_admin(exchange, chosen, known)
        if trouble := await _trouble_of(exchange, chosen):
            say(f"EXCORE_API_KEY {chosen.key!r} {trouble}")
        return
    admin = read_admin(places)
    if admin is None:
        if any(not view.revoked and view.scopes & Scope.ADMIN for view in known.values()):
            return
        admin = Credential(secrets.token_hex(16), secrets.token_hex(32))
        # Written first: a key that nobody knows the secret of would be of no use.
        _write_private(places.admin, {"key": admin.key, "secret": admin.secret})
    await _add_admin(exchange, admin, known)
    if trouble := await _trouble_of(exchange, admin):
        say(f"the admin credential of {places.admin} {trouble}")
    else:
        say(f"the admin credential is in {places.admin}")


async def _add_admin(exchange: Exchange, admin: Credential, known: Collection[str]) -> None:
    if admin.key in known:
        return
    scopes = int(Scope.READ | Scope.TRADE | Scope.ADMIN)
    command = AddKey(
        exchange.new_request_id(), 0, admin.key, admin.secret, scopes, "first admin credential"
    )
    answer = await exchange.ask_catalog(command)
    if isinstance(answer, Refused):
        raise ExcoreError(f"the admin credential was refused: {answer}")


async def _trouble_of(exchange: Exchange, admin: Credential) -> str:
    """Why an admin credential that is known is of no use, "" when it is.

    Said and not raised: who trades must not suffer for it.
    """
    names = await exchange.fresh_names()
    if isinstance(names, Refused):
        raise ExcoreError(f"the catalog does not tell its credentials: {names}")
    live = names.credential_by_key.get(admin.key)
    if live is None:
        return "is revoked"
    if live.secret != admin.secret:
        return "has another secret here, which cannot be changed: revoke it, and name another"
    return "" if live.scopes & Scope.ADMIN else "lacks the scope admin"


def _write_private(path: Path, values: dict[str, object]) -> None:
    """Write a small file that only this user can read, all of it or nothing."""
    temporary = path.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(values, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
