"""Sender: one request at a time to a running exchange, and what its client may claim to know.

Separate because the judgement rests on it: what counts as done, as certainly not done, and as
unknown is decided here, from what came over the wire alone.  It must not know what the methods
mean.

Source: codes 3 and 5 of the RPC reference; ARCHITECTURE.md for TIMESTAMP.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import httpx
import msgspec

from api.auth import signature
from api.client import Client, ExcoreRpcError, NoAnswer
from api.replies import ERROR_KINDS, Reply
from api.rpc import Envelope
from excore_ray.actors.clock import SteadyClock
from excore_ray.core.commands import REQUEST_ID_BYTES
from excore_ray.core.reasons import Reason
from excore_ray.drill.history import DONE, REFUSED, UNKNOWN, History, Operation
from excore_ray.serving import Credential

DEADLINE_S, ATTEMPT_S = 20.0, 5.0
ONCE_S = 12.0  # a gateway gives a request up after 10
_INTERNAL = ERROR_KINDS[Reason.INTERNAL_ERROR].code
_UNAVAILABLE = ERROR_KINDS[Reason.SERVICE_UNAVAILABLE]
_TIMEOUT = ERROR_KINDS[Reason.SERVICE_TIMEOUT].code
_TOO_MANY = ERROR_KINDS[Reason.TOO_MANY_REQUESTS]
# One attempt was turned away with these; another one may not have been.
_TURNED_AWAY = {_UNAVAILABLE.code, _TOO_MANY.code}
_TURNED_AWAY_STATUS = {_UNAVAILABLE.status, _TOO_MANY.status}
_decode = msgspec.json.Decoder(Reply).decode


class Sender:
    """The connections of one client.  Each request it sends becomes part of the history."""

    def __init__(self, number: int, url: str, credential: Credential, history: History) -> None:
        self._number = number
        self._url = url
        self._credential = credential
        self._history = history
        self._clock = SteadyClock()
        self._sent: list[httpx.Request] = []  # attempts at the stamped request under way
        self._turned_away = 0  # how many of them were answered with "nothing was done"
        hooks: dict[str, list[Any]] = {"request": [self._notice], "response": [self._judge]}
        self._http = httpx.Client(event_hooks=hooks)
        self._once = httpx.Client(timeout=ONCE_S)
        self._client = Client(
            url, *credential, deadline_s=DEADLINE_S, attempt_s=ATTEMPT_S, http=self._http
        )

    def close(self) -> None:
        """Hang up."""
        self._http.close()
        self._once.close()

    def stamped(self, method: str, *params: Any, number: int = 0) -> Operation:
        """A request that is sent until it is answered, for DEADLINE_S; it is executed once."""
        operation = self._begin(method, params, number)
        self._sent.clear()
        self._turned_away = 0
        try:
            operation.result = self._client.call(method, *params)
            operation.outcome = DONE
        except ExcoreRpcError as refusal:
            operation.code = refusal.code
            sure = self._turned_away == len(self._sent)
            operation.outcome = _outcome_of(refusal.code, sure)
        except NoAnswer:
            operation.outcome = UNKNOWN
        return self._end(self._identified(operation, 0))

    def batch(self, asks: list[tuple[int, str, tuple[Any, ...]]]) -> list[Operation]:
        """Stamped requests (number, method, params), sent as one, executed in their order."""
        operations = [self._begin(method, params, number) for number, method, params in asks]
        self._sent.clear()
        results: list[Any] = [None] * len(operations)
        try:
            results = self._client.batch((o.method, *o.params) for o in operations)
            known = True
        except (ExcoreRpcError, NoAnswer):
            known = False
        for index, (operation, result) in enumerate(zip(operations, results, strict=True)):
            if not known or isinstance(result, NoAnswer):
                operation.outcome = UNKNOWN
            elif isinstance(result, ExcoreRpcError):
                operation.code = result.code
                operation.outcome = _outcome_of(result.code, sure=len(self._sent) == 1)
            else:
                operation.outcome, operation.result = DONE, result
            self._end(self._identified(operation, index))
        return operations

    def next_number(self) -> int:
        """A number for an operation whose parameters name it."""
        return self._history.number()

    def once(self, method: str, *params: Any, number: int = 0) -> Operation:
        """A request without a stamp, sent once; unanswered, its fate stays unknown."""
        operation = self._begin(method, params, number)
        body = msgspec.json.encode(Envelope(operation.number, method, list(params)))
        key, secret = self._credential
        headers = {
            "content-type": "application/json",
            "KEY": key,
            "SIGN": signature(secret, body).decode(),
        }
        operation.sends = 1
        try:
            reply = _decode(self._once.post(self._url, content=body, headers=headers).content)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            operation.outcome = REFUSED  # nothing has left
        except (httpx.TransportError, msgspec.MsgspecError, UnicodeDecodeError):
            operation.outcome = UNKNOWN
        else:
            if reply.error is None:
                operation.outcome, operation.result = DONE, reply.result
            else:
                operation.code = reply.error.code
                operation.outcome = _outcome_of(reply.error.code, sure=True)
        return self._end(operation)

    def _begin(self, method: str, params: tuple[Any, ...], number: int) -> Operation:
        number = number or self._history.number()
        return Operation(number, self._number, method, list(params), self._clock.now_us())

    def _end(self, operation: Operation) -> Operation:
        operation.ended_us = self._clock.now_us()
        self._history.add(operation)
        return operation

    def _identified(self, operation: Operation, index: int) -> Operation:
        """With the id under which the exchange executes the request at `index` of what was sent."""
        operation.sends = len(self._sent)
        if self._sent:
            headers = self._sent[0].headers
            origin = f"{headers['KEY']}\n{headers['SIGN']}\n{index}".encode()
            operation.request_id = sha256(origin).digest()[:REQUEST_ID_BYTES].hex()
        return operation

    def _notice(self, request: httpx.Request) -> None:
        self._sent.append(request)

    def _judge(self, response: httpx.Response) -> None:
        if response.status_code in _TURNED_AWAY_STATUS:
            self._turned_away += 1


def _outcome_of(code: int, sure: bool) -> str:
    """sure: whether every attempt was answered with a code that says nothing was done."""
    if code in (_TIMEOUT, _INTERNAL):
        return UNKNOWN
    if code in _TURNED_AWAY:
        return REFUSED if sure else UNKNOWN
    return REFUSED
