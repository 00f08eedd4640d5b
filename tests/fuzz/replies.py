"""What every reply must be, whatever was asked.

Separate because the same holds in process and over HTTP.  It reads replies with a reader of its
own: nothing here is the gateway's but its table of codes, which is the promise itself.
Source: the response section of the RPC reference.
"""

from __future__ import annotations

import re

import msgspec

from api.replies import ERROR_KINDS
from tests.fuzz.cases import Case

CODES = {(kind.code, kind.text): kind.status for kind in ERROR_KINDS.values()}
INTERNAL, UNAVAILABLE, TIMEOUT, AUTHENTICATION = 2, 3, 5, 8
BATCH_STATUS = 200
MESSAGE_LENGTH_MAX = 400
_TRACE = re.compile(rb'Traceback|File \\?"|\.py\b|Error\(')


class WireError(msgspec.Struct, forbid_unknown_fields=True):
    """The error object."""

    code: int
    message: str


class WireReply(msgspec.Struct, forbid_unknown_fields=True):
    """One reply, its result unread."""

    error: WireError | None
    result: msgspec.Raw
    id: int | None


class Broken(Exception):
    """A reply is not what was promised."""


_decode = msgspec.json.Decoder(WireReply | list[WireReply]).decode
_NULL = b"null"


def check(case: Case, status: int, body: bytes, refused: frozenset[int]) -> list[WireReply]:
    """The replies in `body`.  refused: codes that must not occur here.

    Raises Broken when anything about them is not as promised.
    """
    if _TRACE.search(body) and b".py" not in case.body:
        raise Broken(f"a trace of the program: {body[:300]!r}")
    try:
        read = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
        raise Broken(f"no reply: {fault}: {body[:300]!r}") from fault
    if not isinstance(read, list):
        expected = _check_one(read, refused)
        if status != expected:
            raise Broken(f"HTTP {status} where {expected} belongs: {body[:300]!r}")
        read = [read]
        if case.batch:
            raise Broken(f"one reply to a batch: {body[:300]!r}")
    else:
        if status != BATCH_STATUS:
            raise Broken(f"HTTP {status} for a batch")
        for reply in read:
            _check_one(reply, refused)
    ids = tuple(reply.id for reply in read)
    if case.ids is not None:
        if ids != case.ids:
            raise Broken(f"ids {ids} where {case.ids} belong")
    elif any(i is not None and b"%d" % i not in case.body and i for i in ids):
        raise Broken(f"ids {ids} that nobody sent")
    return read


def _check_one(reply: WireReply, refused: frozenset[int]) -> int:
    """The HTTP status of a reply that is alone."""
    error = reply.error
    if error is None:
        return BATCH_STATUS
    if bytes(reply.result) != _NULL:
        raise Broken(f"a result beside the error {error}")
    words = error.message.partition(":")[0]
    if (error.code, words) not in CODES:
        raise Broken(f"code {error.code} with {error.message!r} is in no table")
    if len(error.message) > MESSAGE_LENGTH_MAX:
        raise Broken(f"a message of {len(error.message)} characters: {error.message[:99]!r}")
    if error.code in refused:
        raise Broken(f"code {error.code}: {error.message!r}")
    # Code 8 has two statuses: a key that may not, and nobody.
    if words == "authentication failed" and "lacks the scope" in error.message:
        return 403
    return CODES[error.code, words] if error.code != AUTHENTICATION else 401
