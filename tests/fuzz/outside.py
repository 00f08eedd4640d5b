"""A running exchange under fuzz, over HTTP: real sockets, signatures, actors, archive and logs.

Separate because nothing of its state is at hand: what a refusal has left alone is asked for, and
its logs are read when it has ended.  It starts an exchange of its own, for what it does to one
nobody would want done to theirs.

Source: the authentication and response sections of the RPC reference.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from api.auth import signature
from tests.fuzz import replies
from tests.fuzz.cases import Case, Cases
from tests.fuzz.inside import NEVER
from tests.fuzz.requests import CREATE, DEPOSITS, MARKET, USERS
from tests.system.server import serving

WATCHED = 0.02  # of the cases: everything is asked before and, when they were refused, after
STRANGERS = 0.1  # of the requests: signed wrongly, or not at all
AUDIT_EVERY = 10_000
_STRANGER = b'{"error":{"code":8,"message":"authentication failed"},"result":null,"id":null}'
_TIMEOUT_S = 60.0
_LOG_TRACE = re.compile(r"Traceback|internal error")

Headers = list[tuple[str, str]]


class Report(msgspec.Struct):
    """What came of many cases.

    times_s: of each answer, as the client saw it.  log_bytes: that were read through.
    """

    cases: int = 0
    refused: int = 0
    watched: int = 0
    strangers: int = 0
    audits: int = 0
    codes: Counter[int] = msgspec.field(default_factory=Counter)
    kinds: Counter[str] = msgspec.field(default_factory=Counter)
    times_s: list[float] = msgspec.field(default_factory=list)
    slowest: tuple[float, Case] = (0.0, Case("none", b""))
    log_bytes: int = 0
    failures: list[tuple[str, Case]] = msgspec.field(default_factory=list)


class Line:
    """One connection that is kept; a new one when the server has closed it."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        self._socket: socket.socket | None = None

    def post(self, body: bytes, headers: Headers) -> tuple[int, bytes]:
        """Status and body of the reply.  Raises OSError or ValueError when none comes."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, _TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = ["POST / HTTP/1.1", "host: fuzz", f"content-length: {len(body)}"]
        head += (f"{name}: {value}" for name, value in headers)
        self._socket.sendall("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._receive()
        told, _, rest = got.partition(b"\r\n\r\n")
        fields = told.lower().split(b"\r\n")
        length = next(int(f[15:]) for f in fields if f.startswith(b"content-length:"))
        while len(rest) < length:
            rest += self._receive()
        if b"connection: close" in fields:
            self.close()
        return int(fields[0].split()[1]), rest

    def close(self) -> None:
        """Hang up; the next post dials anew."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _receive(self) -> bytes:
        assert self._socket is not None
        part = self._socket.recv(1 << 18)
        if not part:
            self.close()
            raise ConnectionError("it hung up before its reply was whole")
        return part


class Fuzz:
    """Cases against one exchange."""

    def __init__(self, seed: str, url: str, credential: tuple[str, str], report: Report) -> None:
        self.report = report
        self.cases = Cases(seed)
        self.secrets = {credential[1]}
        self._key, self._secret = credential
        self._line = Line(url)
        self._signing = Random(f"{seed} signing")

    def run(self, count: int) -> None:
        """So many cases, with audits between them and after the last."""
        for method, params in (*CREATE, *DEPOSITS):
            self.ask(f'{{"id":0,"method":"{method}","params":{params}}}')
        for number in range(1, count + 1):
            self.step(self.cases.draw())
            if number % AUDIT_EVERY == 0 or number == count:
                self.audit()
        self._line.close()

    def ask(self, text: str) -> Any:
        """What must be answered, as the signer of all."""
        body = text.encode()
        status, reply = self._line.post(body, self._signed(body, stamped=True))
        assert status == 200, (status, reply)
        return json.loads(reply)

    def audit(self) -> None:
        """The exchange finds nothing wrong with itself, and every actor answers."""
        self.report.audits += 1
        found = self.ask('{"id":0,"method":"exchange.audit","params":[]}')["result"]
        if found["findings"] or found["behind"]:
            self._fail(f"the audit found {found}", Case("audit", b""))
        status = self.ask('{"id":0,"method":"exchange.status","params":[]}')["result"]
        actors = [status["catalog"], status["archive"], *status["markets"], *status["shards"]]
        epochs = {a["stream"]: a.get("epoch", -1) for a in actors}
        if any(epoch not in (0, 1) for epoch in epochs.values()):
            self._fail(f"an actor has ended: epochs {epochs}", Case("status", b""))
        if any(a["texts"].get("trouble") for a in actors if "texts" in a):
            self._fail(f"an actor has trouble: {actors}", Case("status", b""))

    def step(self, case: Case) -> None:
        """One case, and judge what comes of it."""
        report = self.report
        report.cases += 1
        report.kinds[case.kind] += 1
        stranger = self._signing.random() < STRANGERS
        headers = self._strange(case.body) if stranger else self._signed(case.body)
        watched = self._signing.random() < WATCHED
        before = self._everything() if watched else None
        began_s = time.perf_counter()
        try:
            status, reply = self._line.post(case.body, headers)
        except (OSError, ValueError, StopIteration) as fault:
            self._line.close()
            self._fail(f"no reply: {fault!r}", case)
            return
        took_s = time.perf_counter() - began_s
        report.times_s.append(took_s)
        if took_s > report.slowest[0]:
            report.slowest = (took_s, case)
        if stranger:
            report.strangers += 1
            if (status, reply) != (401, _STRANGER):
                self._fail(f"a stranger was told {status} {reply[:200]!r}", case)
            refused = True
        else:
            refused = self._judge(case, status, reply)
        if watched and refused:
            report.watched += 1
            if self._everything() != before:
                self._fail("refused, and yet it has changed something", case)

    def _judge(self, case: Case, status: int, reply: bytes) -> bool:
        """Whether everything in `case` was refused, once its reply was judged."""
        try:
            read = replies.check(case, status, reply, NEVER | {replies.AUTHENTICATION})
            if any(secret.encode() in reply for secret in self.secrets):
                raise replies.Broken("a secret was told to a client")
        except replies.Broken as broken:
            self._fail(str(broken), case)
            return False
        for one in read:
            result = bytes(one.result)
            if one.error is not None:
                self.report.codes[one.error.code] += 1
            elif result.startswith(b'{"id":') and b'"ctime"' in result:
                self.cases.requests.orders.append(json.loads(result)["id"])
            elif result.startswith(b'{"key":') and b'"secret"' in result:
                self.secrets.add(json.loads(result)["secret"])
        refused = all(one.error is not None for one in read)
        self.report.refused += refused
        return refused

    def _everything(self) -> Any:
        """What clients can see: balances, totals, books, names and keys."""
        asked = [("asset.summary", ""), ("asset.fees", ""), ("asset.list", ""), ("keys.list", "")]
        asked += [("market.list", ""), ("market.summary", "")]
        asked += [("balance.query", f"{user}") for user in range(1, USERS + 2)]
        asked += [("order.book", f'"{MARKET}",{side},0,100') for side in (1, 2)]
        items = (f'{{"id":0,"method":"{name}","params":[{given}]}}' for name, given in asked)
        return self.ask(f"[{','.join(items)}]")

    def _signed(self, body: bytes, stamped: bool | None = None) -> Headers:
        if stamped is None:
            stamped = self._signing.random() < 0.5
        if not stamped:
            return [("KEY", self._key), ("SIGN", signature(self._secret, body).decode())]
        stamp = str(time.time_ns() // 1_000_000)
        sign = signature(self._secret, b"%b.%b" % (stamp.encode(), body)).decode()
        return [("KEY", self._key), ("SIGN", sign), ("TIMESTAMP", stamp)]

    def _strange(self, body: bytes) -> Headers:
        """The headers of somebody who does not have the secret."""
        key, right = self._key, signature(self._secret, body).decode()
        stamp = str(time.time_ns() // 1_000_000)
        wrong = signature("guessed", body).decode()
        signs = (wrong, right[:-1], right.upper(), right[::-1], "", "\xff" * 128, right + "0")
        sign = self._signing.choice([one for one in signs if one != right])
        return self._signing.choice(
            (
                [],
                [("KEY", key)],
                [("SIGN", right)],
                [("KEY", key), ("SIGN", sign)],
                [("KEY", key[:-1]), ("SIGN", right)],
                [("KEY", "nobody"), ("SIGN", wrong)],
                [("KEY", "\xe9" * 2000), ("SIGN", right)],
                [("KEY", key), ("SIGN", right), ("TIMESTAMP", stamp)],
                [("KEY", key), ("SIGN", right), ("TIMESTAMP", "x")],
                [("KEY", key), ("SIGN", right), ("KEY", "nobody")],
            )
        )

    def _fail(self, what: str, case: Case) -> None:
        self.report.failures.append((what, case))


def check_logs(files: list[Path], secrets: set[str], report: Report) -> None:
    """Nothing that was logged shows a trace of the program or a secret."""
    for path in files:
        text = path.read_text(errors="replace")
        report.log_bytes += len(text)
        if trace := _LOG_TRACE.search(text):
            around = text[max(0, trace.start() - 200) : trace.start() + 1500]
            report.failures.append((f"{path.name}: {around}", Case("log", b"")))
        if any(secret in text for secret in secrets):
            report.failures.append((f"{path.name} shows a secret", Case("log", b"")))


def run(seed: int, cases: int, directory: Path) -> Report:
    """So many cases against an exchange of its own below `directory`."""
    report = Report()
    data = directory / "data"
    with serving(data) as server:
        fuzz = Fuzz(f"{seed}-http", server.url, server.credential(), report)
        fuzz.secrets.add(server.places.secret.read_text().strip())
        fuzz.run(cases)
        server.stop()
        files = [path for path in server.places.logs.rglob("*") if path.is_file()]
        files += [path for path in directory.iterdir() if path.suffix in {".out", ".err"}]
        check_logs(files, fuzz.secrets, report)
    return report
