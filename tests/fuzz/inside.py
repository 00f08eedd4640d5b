"""The dispatcher under fuzz, in process: bodies in, replies and the state of the machines judged.

Separate from the cases, and from how many of them are run.  An episode is one exchange from its
first record on; what it does follows from its seed, so a case that falls is found again by its
episode.

Source: the response section of the RPC reference; ARCHITECTURE.md, invariants.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from random import Random
from typing import Any

import msgspec

from api.allowance import Allowance, Purse
from api.auth import ALL_SCOPES
from api.calls import Caller
from api.rpc import respond
from excore_ray.actors.plan import Rate, RequestLimits
from excore_ray.core.catalog import Scope
from excore_ray.core.commands import AddKey
from excore_ray.core.messages import Done
from tests.fuzz import replies
from tests.fuzz.cases import Case, Cases
from tests.fuzz.exchange import Town
from tests.fuzz.requests import CREATE, DEPOSITS

EPISODE_CASES = 4_000
# What one body may cost, and each further request of a batch: the dearest is exchange.audit, of
# which each waits for the one before it, and others are served meanwhile.
CPU_MAX_S, CPU_EACH_S = 0.05, 0.001
SENT_BYTES_MAX = 6_144  # a detail has at most 4096
SECRET = "a secret that nobody may be told 0123456789"
ADMIN = Caller(ALL_SCOPES)
NEVER = frozenset({replies.INTERNAL, replies.UNAVAILABLE, replies.TIMEOUT})
# keys.add is told only once what it has made.
_WRITES = [b"order.put_limit", b"order.put_market", b"order.cancel", b"balance.update"]
_WRITES += [b"asset.add", b"asset.rename", b"market.add", b"market.rename", b"keys.revoke"]
_READER = Caller(int(Scope.READ))
_MUCH = Rate(1e9, 10**9)
# A case is judged by what it says, and not by how many came before.
_PURSE = Purse(Allowance(RequestLimits(_MUCH, _MUCH, _MUCH, _MUCH), time.monotonic_ns), "")


class Failure(msgspec.Struct):
    """A case that broke a promise.  seed: of its episode; number: its place there."""

    seed: str
    number: int
    what: str
    case: Case


class Report(msgspec.Struct):
    """What came of many cases.  slowest: CPU seconds of the gateway alone, by kind of case."""

    cases: int = 0
    refused: int = 0
    resent: int = 0
    cpu_s: float = 0.0
    codes: Counter[int] = msgspec.field(default_factory=Counter)
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    slowest: dict[str, tuple[float, Case]] = msgspec.field(default_factory=dict)
    slow: list[Failure] = msgspec.field(default_factory=list)
    failures: list[Failure] = msgspec.field(default_factory=list)


class _Log(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Episode:
    """One exchange, and the cases that it is given."""

    def __init__(self, seed: str, report: Report) -> None:
        self.seed = seed
        self.report = report
        self.town = Town()
        self.cases = Cases(seed)
        self.number = 0
        self._callers = Random(f"{seed} callers")
        self._log = _Log()
        self._faults: list[str] = []

    async def run(self, count: int) -> None:
        """So many cases; then the whole exchange must still be right."""
        asyncio.get_running_loop().set_exception_handler(self._fault)
        root = logging.getLogger()
        root.addHandler(self._log)
        try:
            await self.open()
            for self.number in range(count):
                await self.step(self.cases.draw())
                if self.town.death is not None:
                    return
            try:
                self.town.check()
            except AssertionError as wrong:
                self._fail(f"the exchange is not right: {wrong}", Case("end", b""))
        finally:
            root.removeHandler(self._log)
            await self.town.exchange.close(0.1)

    async def open(self) -> None:
        """Assets, markets, money, and a credential with a secret."""
        self.town.exchange.start()
        exchange = self.town.exchange
        await exchange.fresh_names()
        add = AddKey(exchange.new_request_id(), 0, "fuzz admin", SECRET, ALL_SCOPES, "")
        assert type(await exchange.ask_catalog(add)) is Done
        for method, params in (*CREATE, *DEPOSITS):
            body = f'{{"id":0,"method":"{method}","params":{params}}}'.encode()
            status, reply = await respond(exchange, ADMIN, _PURSE, body)
            assert status == 200, reply

    async def step(self, case: Case) -> None:
        """Give one case to the dispatcher and judge what comes of it."""
        town, report = self.town, self.report
        caller = self._caller()
        before_seqs, before = town.seqs(), town.visible()
        town.sent_max = 0
        actors_s, began_s = town.cpu_s, time.process_time()
        status, reply = await respond(town.exchange, caller, _PURSE, case.body)
        if town.death is not None:
            self._fail(f"an actor has ended: {town.death!r}", case)
            return
        used_s = time.process_time() - began_s - (town.cpu_s - actors_s)
        never = NEVER if caller is _READER else NEVER | {replies.AUTHENTICATION}
        try:
            read = replies.check(case, status, reply, never)
            self._check_quiet(reply)
            if len(read) == 1 and town.sent_max > SENT_BYTES_MAX:
                raise replies.Broken(f"{town.sent_max} bytes were sent for one request")
        except replies.Broken as broken:
            self._fail(str(broken), case)
            return
        self._measure(case, used_s, len(read))
        errors = [one.error for one in read if one.error is not None]
        report.codes.update(error.code for error in errors)
        if len(errors) == len(read):
            report.refused += 1
            if town.seqs() != before_seqs and town.visible() != before:
                self._fail("refused, and yet it has changed something", case)
        else:
            self._learn(read)
        if caller.origin and case.kind == "right":
            await self._send_again(case, caller, (status, reply))

    async def _send_again(self, case: Case, caller: Caller, first: tuple[int, bytes]) -> None:
        """A stamped write is executed once: sent again it changes nothing and is told the same."""
        if not any(b'"%b"' % name in case.body for name in _WRITES):
            return
        self.report.resent += 1
        before = self.town.visible()
        again = await respond(self.town.exchange, caller, _PURSE, case.body)
        if again != first:
            self._fail(f"sent again, it is told {again} and not {first}", case)
        if self.town.visible() != before:
            self._fail("sent again, it has changed something again", case)

    def _caller(self) -> Caller:
        chance = self._callers.random()
        if chance < 0.9:
            return ADMIN
        if chance < 0.93:
            return _READER
        return Caller(ALL_SCOPES, self._callers.randbytes(16), time.time_ns() // 1_000_000)

    def _measure(self, case: Case, used_s: float, replies_count: int) -> None:
        report = self.report
        report.cases += 1
        report.cpu_s += used_s
        report.kinds[case.kind] += 1
        if used_s > report.slowest.get(case.kind, (0.0, case))[0]:
            report.slowest[case.kind] = (used_s, case)
        if used_s > CPU_MAX_S + (replies_count - 1) * CPU_EACH_S:
            what = f"{used_s * 1000:.0f} ms of CPU"
            report.slow.append(Failure(self.seed, self.number, what, case))

    def _learn(self, read: list[replies.WireReply]) -> None:
        """Remember the orders that were placed, so that cases can speak of them."""
        for reply in read:
            result = bytes(reply.result)
            if result.startswith(b'{"id":') and b'"ctime"' in result:
                number, _, _ = result[6:].partition(b",")
                self.cases.requests.orders.append(int(number))

    def _check_quiet(self, reply: bytes) -> None:
        if SECRET.encode() in reply:
            raise replies.Broken("a secret was told to a client")
        if self._faults or self._log.lines:
            told, self._faults = self._faults + self._log.lines, []
            self._log.lines = []
            raise replies.Broken(f"it was logged: {told}")

    def _fail(self, what: str, case: Case) -> None:
        self.report.failures.append(Failure(self.seed, self.number, what, case))

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._faults.append(f"{context.get('message')} {context.get('exception')!r}")


def run(seed: int, cases: int, first: int = 0, failures_max: int = 50) -> Report:
    """So many cases, in episodes from `first` on: episode n has the seed "seed-n".

    Ends with the episode in which failures_max is reached.
    """
    report = Report()
    # The garbage here is mostly the machines', and its collection no case's own cost.  No body has
    # enough parts to start one in a gateway, which collects after 100,000 objects.
    gc.disable()
    try:
        while report.cases < cases and len(report.failures) < failures_max:
            episode = Episode(f"{seed}-{first}", report)
            asyncio.run(episode.run(min(EPISODE_CASES, cases - report.cases)))
            gc.collect()
            first += 1
    finally:
        gc.enable()
    return report
