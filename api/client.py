"""Client: calls an exchange over HTTP, signs what it sends, and sends again what got lost.

Separate because it is for those who use an exchange: programs, tests, the command line.  Results
are what JSON says; quantities are decimal strings.

A signed request carries a TIMESTAMP, so the exchange executes it once however often it arrives:
the client sends the same bytes again until it has an answer or the deadline has passed.
Without a key that holds for reads alone; anything else is sent again only when certainly nothing
was done.
Source: the authentication section of the RPC reference; ARCHITECTURE.md for TIMESTAMP.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from api.auth import signature
from api.methods import METHODS
from api.replies import ERROR_KINDS, Reply
from api.rpc import Envelope
from excore_ray.core.catalog import Scope
from excore_ray.core.reasons import Reason

DEADLINE_MAX_S = 25.0  # a signature is refused once it is 30 s old, and its fate stays unknown
_UNAVAILABLE = ERROR_KINDS[Reason.SERVICE_UNAVAILABLE].code
_TIMEOUT = ERROR_KINDS[Reason.SERVICE_TIMEOUT].code
_TOO_MANY = ERROR_KINDS[Reason.TOO_MANY_REQUESTS].code
# Said of a name or a key as it is now: what an earlier attempt found under it may have been done.
_OF_NOW = {
    ERROR_KINDS[reason].code
    for reason in (
        Reason.AUTHENTICATION_FAILED,
        Reason.SCOPE_MISSING,
        Reason.ASSET_NOT_FOUND,
        Reason.ORDER_MARKET_NOT_FOUND,
    )
}
_PAUSE_FIRST_S, _PAUSE_MAX_S = 0.05, 1.0
_ATTEMPT_MIN_S = 0.01
_decode = msgspec.json.Decoder(Reply | list[Reply]).decode


class ExcoreRpcError(Exception):
    """The exchange refused.  code and message are those of the RPC reference's table."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class NoAnswer(Exception):
    """No answer came before the deadline: whether the request was executed is unknown."""


class Client:
    """A connection to an exchange.

    url: of the RPC, as in "http://127.0.0.1:8080/".  key and secret: the API credential, empty
    for an exchange that asks for none.  deadline_s: for how long to go on asking, at most 25.
    attempt_s: for how long to wait before the same bytes are sent again.  http: the connection to
    use, which is then the caller's to close.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        secret: str = "",
        *,
        deadline_s: float = 20.0,
        attempt_s: float = 5.0,
        http: httpx.Client | None = None,
    ) -> None:
        if not 0 < deadline_s <= DEADLINE_MAX_S:
            raise ValueError(f"deadline_s: {deadline_s} is not in 0..{DEADLINE_MAX_S}")
        self._url = url
        self._key = key
        self._secret = secret
        self._deadline_s = deadline_s
        self._attempt_s = attempt_s
        self._http = http if http is not None else httpx.Client()
        self._owned = http is None
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, unless it was given."""
        if self._owned:
            self._http.close()

    def call(self, method: str, *params: Any) -> Any:
        """The result of one request.

        Raises ExcoreRpcError when it is refused, NoAnswer when its fate is unknown.
        """
        envelope = Envelope(next(self._ids), method, list(params))
        [outcome] = self._ask(msgspec.json.encode(envelope), [envelope])
        if isinstance(outcome, (ExcoreRpcError, NoAnswer)):
            raise outcome
        return outcome

    def batch(self, requests: Iterable[Sequence[Any]]) -> list[Any]:
        """The results of 1 to 1000 requests (method, *params), sent as one and in their order.

        A refused request has its ExcoreRpcError as result, one of unknown fate its NoAnswer.
        When one is answered 3 or 5, all are sent again: what was done is not done twice, but what
        was answered 3 is then executed after those that followed it.  Raises as `call` does when
        the batch fails as a whole.
        """
        envelopes = [Envelope(next(self._ids), method, params) for method, *params in requests]
        if not envelopes:
            raise ValueError("requests: none given")
        return self._ask(msgspec.json.encode(envelopes), envelopes)

    def _ask(self, body: bytes, envelopes: list[Envelope]) -> list[Any]:
        """The result of each request, or the error that stands for it."""
        headers = self._headers(body)
        reads = all(_only_reads(one.method) for one in envelopes)
        repeatable = bool(self._key) or reads
        until = time.monotonic() + self._deadline_s
        pause_s = _PAUSE_FIRST_S
        unknown = False  # whether an earlier attempt may have been executed
        while True:
            # A pause may last longer than it was meant to, and no time is no time-out.
            remaining_s = max(until - time.monotonic(), _ATTEMPT_MIN_S)
            timeout_s = min(remaining_s, self._attempt_s) if repeatable else remaining_s
            outcome: list[Any] | Exception
            try:
                response = self._http.post(
                    self._url, content=body, headers=headers, timeout=timeout_s
                )
                replies = _replies_of(response.content, envelopes)
                codes = {reply.error.code for reply in replies if reply.error is not None}
                # Said of the attempt that was turned away, and nothing of the one before it.
                turned_away = unknown and _TOO_MANY in codes
                again = turned_away or _may_ask_again(codes, len(replies), repeatable)
                outcome = [_fate_of(reply, unknown and not reads) for reply in replies]
                unknown = unknown or _TIMEOUT in codes
                if turned_away:
                    outcome = NoAnswer(f"{_TOO_MANY}: too many requests, after no answer")
                elif replies[0].id is None:  # refused as a whole: each has an id of its own
                    outcome = outcome[0]
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                outcome, again = error, True
            except (httpx.TransportError, msgspec.MsgspecError, UnicodeDecodeError) as error:
                outcome, again, unknown = error, repeatable, True
            if not again or time.monotonic() + pause_s >= until:
                break
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
        if isinstance(outcome, (ExcoreRpcError, NoAnswer)):
            raise outcome
        if isinstance(outcome, Exception):
            raise NoAnswer(f"{type(outcome).__name__}: {outcome}") from outcome
        return outcome

    def _headers(self, body: bytes) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self._key:
            stamp = str(time.time_ns() // 1_000_000)
            sign = signature(self._secret, b"%b.%b" % (stamp.encode(), body))
            headers |= {"KEY": self._key, "SIGN": sign.decode(), "TIMESTAMP": stamp}
        return headers


def _only_reads(method: str) -> bool:
    known = METHODS.get(method)
    return known is not None and known.scope == Scope.READ


def _replies_of(content: bytes, envelopes: list[Envelope]) -> list[Reply]:
    """The replies in a response: one for each request, or one error for all.

    Raises MsgspecError when something else answered.
    """
    decoded = _decode(content)
    replies = decoded if isinstance(decoded, list) else [decoded]
    refused = isinstance(decoded, Reply) and decoded.id is None and decoded.error is not None
    if refused or [reply.id for reply in replies] == [one.id for one in envelopes]:
        return replies
    raise msgspec.ValidationError("the reply belongs to another request")


def _may_ask_again(codes: set[int], count: int, repeatable: bool) -> bool:
    if repeatable:
        return bool(codes & {_UNAVAILABLE, _TIMEOUT})
    # Of several, those that were done would be done a second time.
    return count == 1 and codes == {_UNAVAILABLE}


def _fate_of(reply: Reply, unknown: bool) -> Any:
    """A result, or the error it has instead.  unknown: an earlier attempt may have done it."""
    error = reply.error
    if error is None:
        return reply.result
    if unknown and error.code in _OF_NOW:
        return NoAnswer(f"{error.code}: {error.message}, after no answer")
    return ExcoreRpcError(error.code, error.message)
