"""Nemesis: kills, stops and continues the processes of an exchange, as a seed says.

Separate because it must not know what clients ask.  Its first faults are one of each kind; after
them kinds are drawn, those that end a whole exchange seldom.  Stops overlap with what follows.

Ray's own two processes are vital: without either nothing that ends would be restarted, so the
exchange ends by itself, with a message, and is started again here as a service manager would.
"""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import psutil

from excore_ray.actors.clock import SteadyClock
from excore_ray.core.registrar import CATALOG
from excore_ray.drill.history import KILL, STOP, Fault, History
from excore_ray.drill.served import ARCHIVE, COMPACTOR, GATEWAY, Served, ServedFailed

logger = logging.getLogger(__name__)

MARKET, LEDGER = "market", "ledger"
RAYLET, GCS = "raylet", "gcs_server"
TARGETS = (MARKET, LEDGER, CATALOG, "gateway", "archive", "compactor", RAYLET, GCS)
VITAL = (RAYLET, GCS)
KINDS = [(kind, target) for kind in (KILL, STOP) for target in TARGETS]
BACK_S = 60.0  # what is away for longer does not come back
END_S = 90.0  # how long an exchange without its Ray may take to end
_STOP_MIN_S, _STOP_MAX_S = 0.1, 5.0
_PAUSE_MIN_S, _PAUSE_MAX_S = 1.5, 3.5  # between two faults
_LOOK_S = 0.02
_TITLES = {"gateway": GATEWAY, "archive": ARCHIVE, "compactor": COMPACTOR}
_WATCHED = ("gateway", "compactor")  # clients cannot tell when these are back
_WEIGHTS = {(KILL, RAYLET): 1, (KILL, GCS): 1}
_WEIGHT = 5


class Nemesis(threading.Thread):
    """Does its work from start() until `ended` is set and every kind of fault has happened.

    restarts: how often the exchange had to be started again; surprises: those of them that no
    fault explains, in sentences.  error: what ended it before its time.
    """

    def __init__(
        self,
        served: Served,
        streams: Sequence[str],
        history: History,
        seed: int,
        ended: threading.Event,
    ) -> None:
        super().__init__(name="nemesis", daemon=True)
        self.error: Exception | None = None
        self.restarts = 0
        self.surprises: list[str] = []
        self._served = served
        self._victims = {kind: [s for s in streams if s.startswith(kind)] for kind in TARGETS}
        self._history = history
        self._chance = random.Random(seed)
        self._ended = ended
        self._clock = SteadyClock()
        self._beside: list[threading.Thread] = []  # stops and watches under way
        self._planned = list(KINDS)
        self._chance.shuffle(self._planned)

    def run(self) -> None:
        """Part of being a thread."""
        try:
            while self._planned or not self._ended.is_set():
                self._strike(*self._next_kind())
                self._wait(self._chance.uniform(_PAUSE_MIN_S, _PAUSE_MAX_S))
                self._look_after()
        except Exception as error:
            self.error = error
        finally:
            self._finish()

    def _finish(self) -> None:
        for thread in self._beside:
            thread.join(BACK_S + _STOP_MAX_S)
        try:
            self._look_after()
        except ServedFailed as fault:
            self.error = self.error or fault

    def _wait(self, wait_s: float) -> None:
        if self._planned:
            time.sleep(wait_s)
        else:
            self._ended.wait(wait_s)

    def _next_kind(self) -> tuple[str, str]:
        if self._planned:
            return self._planned.pop()
        return self._chance.choices(KINDS, [_WEIGHTS.get(kind, _WEIGHT) for kind in KINDS])[0]

    def _strike(self, kind: str, target: str) -> None:
        victim, process = self._found(target)
        fault = Fault(kind, target, victim, process.pid, self._clock.now_us())
        before = self._pids(target)
        try:
            if kind == KILL:
                process.kill()
            else:
                process.suspend()
        except psutil.NoSuchProcess:
            logger.info("%s, process %d, has ended before it was hit", victim, process.pid)
            self._planned.append((kind, target))
            return
        if kind == STOP:
            stop_s = self._chance.uniform(_STOP_MIN_S, _STOP_MAX_S)
            self._begin(lambda: self._continue(fault, process, stop_s))
            return
        fault.ended_us = fault.began_us
        if target in VITAL:
            self._restart()
            fault.back_us = self._clock.now_us()
            self._history.add(fault)
        elif target in _WATCHED:
            self._begin(lambda: self._watch(fault, before))
        else:
            self._history.add(fault)

    def _begin(self, doing: Callable[[], None]) -> None:
        thread = threading.Thread(target=doing, daemon=True)
        self._beside = [each for each in self._beside if each.is_alive()]
        self._beside.append(thread)
        thread.start()

    def _continue(self, fault: Fault, process: psutil.Process, stop_s: float) -> None:
        """Let a stopped process go on, unless its successor has ended it meanwhile."""
        time.sleep(stop_s)
        try:
            process.resume()
        except psutil.NoSuchProcess:
            logger.info("%s was ended while it was stopped", fault.victim)
        fault.ended_us = self._clock.now_us()
        if fault.target == "compactor":
            fault.back_us = fault.ended_us  # it works for itself: it was never missed
        elif fault.target == "gateway":
            self._watch_gateway(fault, [fault.pid])
        self._history.add(fault)

    def _watch(self, fault: Fault, before: list[int]) -> None:
        """Note when a process that clients cannot tell from others is back."""
        until = time.monotonic() + BACK_S
        while time.monotonic() < until:
            fresh = [pid for pid in self._pids(fault.target) if pid not in before]
            if fault.target == "gateway":
                if fresh and self._watch_gateway(fault, fresh):
                    break
            elif fresh:
                fault.back_us = self._clock.now_us()
                break
            time.sleep(_LOOK_S)
        self._history.add(fault)

    def _watch_gateway(self, fault: Fault, pids: list[int]) -> bool:
        """Ask over new connections until one of these processes answers; whether one did."""
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            if _is_answered_by(self._served.url, pids):
                fault.back_us = self._clock.now_us()
                return True
            time.sleep(_LOOK_S)
        return False

    def _found(self, target: str) -> tuple[str, psutil.Process]:
        """A process of this kind, which may have to come back first.  Raises ServedFailed."""
        until = time.monotonic() + BACK_S
        while time.monotonic() < until:
            self._look_after()
            victim, pid = target, 0
            if self._victims[target]:
                victim = self._chance.choice(self._victims[target])
                pid = self._served.owner(victim) or 0
            elif pids := self._pids(target):
                pid = self._chance.choice(pids)
            if pid:
                try:
                    return victim, psutil.Process(pid)
                except psutil.NoSuchProcess:
                    logger.info("%s has just ended", victim)
            time.sleep(_LOOK_S)
        raise ServedFailed(f"no {target} comes back within {BACK_S:.0f} s")

    def _pids(self, target: str) -> list[int]:
        if target in _TITLES:
            return self._served.actors(_TITLES[target])
        return self._served.named(target) if target in VITAL else []

    def _look_after(self) -> None:
        """Start the exchange again when it has ended though nothing vital was killed."""
        process = self._served.process
        if process is not None and process.poll() is not None:
            last = (self._served.err.strip().splitlines() or ["without a word"])[-1]
            self.surprises.append(f"the exchange ended by itself: {last}")
            self._restart()

    def _restart(self) -> None:
        """Wait until the exchange has ended, and start it again."""
        try:
            self._served.ended(END_S)
        except ServedFailed as fault:
            # As a service manager does with what is left of a service.
            self.surprises.append(str(fault).splitlines()[0])
            self._served.kill()
        self._served.start()
        self.restarts += 1


def _is_answered_by(url: str, pids: list[int]) -> bool:
    """Whether one of these processes answers a request on a connection of its own."""
    place = urlsplit(url)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=1.0)
    try:
        connection.connect()
        port = connection.sock.getsockname()[1]
        connection.request("GET", "/")
        connection.getresponse().read()
        return any(port in _peer_ports(pid) for pid in pids)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _peer_ports(pid: int) -> set[int]:
    """The ports of those who are connected to a process."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return set()
    # Who listens has nobody at the other end, which is said by an empty tuple.
    return {each.raddr.port for each in found if each.status == psutil.CONN_ESTABLISHED}
