"""Calls: one authenticated HTTP request as the handlers see it, and what a put or cancel leaves.

Separate so that handlers share it without knowing the envelope, the headers or each other.

Source: ARCHITECTURE.md, request ids.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from api.ports import Exchange
from api.replies import SUCCESS
from excore_ray.core.commands import REQUEST_ID_BYTES, Cancel, PutLimit, PutMarket
from excore_ray.core.messages import Answer, Done
from excore_ray.core.names import Listing, Names
from excore_ray.core.reasons import Reason, Refused

AnswerType = TypeVar("AnswerType", bound=Answer)
Result = Any  # what a handler returns: what JSON can be made of, or a Refused


class Caller(msgspec.Struct, frozen=True):
    """Who sent an HTTP request.

    scopes: bits of `catalog.Scope`.  origin: what all request ids of this HTTP request are made
    from, empty when it had no TIMESTAMP.  stamp_ms: the TIMESTAMP, 0 when it had none.
    key: the API key, empty where requests are not signed.
    """

    scopes: int
    origin: bytes = b""
    stamp_ms: int = 0
    key: str = ""


class Call(msgspec.Struct):
    """One HTTP request while it is handled.  names: valid when a handler is entered."""

    exchange: Exchange
    caller: Caller
    names: Names

    def request_id(self, index: int) -> bytes:
        """The id of the request at `index` of the batch: when stamped, the same on any resend."""
        origin = self.caller.origin
        if not origin:
            return self.exchange.new_request_id()
        return sha256(b"%b%d" % (origin, index)).digest()[:REQUEST_ID_BYTES]


class Issue(msgspec.Struct, frozen=True):
    """A put or cancel that was checked, and the market it goes to."""

    listing: Listing
    command: PutLimit | PutMarket | Cancel


def expect(answer: Answer, kind: type[AnswerType]) -> AnswerType | Refused:
    """`answer` as the `kind` its question has, or the refusal it is.

    Raises TypeError on any other answer, which would be our own mistake.
    """
    if isinstance(answer, kind) or type(answer) is Refused:
        return answer
    raise TypeError(f"{type(answer).__name__} answered where {kind.__name__} belongs")


def success(answer: Answer) -> Result:
    """The result of a command that has none of its own."""
    done = expect(answer, Done)
    return done if isinstance(done, Refused) else SUCCESS


def catalog_behind(what: str) -> Refused:
    """The refusal of a read whose answer speaks of something newer than the names at hand."""
    return Refused(Reason.SERVICE_UNAVAILABLE, f"{what} is newer than this copy of the catalog")
