"""RPC: the body of one HTTP request to the body of its reply: envelope, batch, dispatch.

Separate from HTTP and from the methods: it knows the shape of a request and nothing else.

Each request of a batch draws on the caller's allowance by itself, before it is looked at.
A body is refused as a whole when it is no JSON, has a key twice in one object or too many parts,
or is a batch of none or too many.  An item of a batch that is no request is refused by itself.
The id of what is refused is echoed when it is an integer of 64 bits, and null otherwise.
Source: the request and response sections of the RPC reference.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import Annotated, Any

import msgspec

from api.allowance import ACTING, Purse
from api.auth import AUTHENTICATION_FAILED
from api.calls import Call, Caller, Issue, Result
from api.keys import names_of
from api.methods import METHODS, Barrier, InOrder, Method
from api.params import shown
from api.ports import Exchange
from api.replies import ERROR_KINDS, reply_of
from excore_ray.core.reasons import Reason, Refused

log = logging.getLogger(__name__)

BATCH_COUNT_MAX = 1000
PARTS_MAX = 50_000  # objects, arrays and keys: fifty for each request of a full batch
_ID_MIN, _ID_MAX = -(2**63), 2**63 - 1
_PARTS = (b"{", b"[", b":")
_OK = 200


class Envelope(msgspec.Struct, frozen=True):
    """One request."""

    id: Annotated[int, msgspec.Meta(ge=_ID_MIN, le=_ID_MAX)]
    method: str
    params: list[Any]


class Broken(msgspec.Struct, frozen=True):
    """What stands where a request should.  id: its own when it can be read."""

    id: int | None
    refused: Refused


class _DuplicateKey(ValueError):
    """One object has a key twice, so that two readers may take it differently."""


_KEYS = Envelope.__struct_fields__
_decode = msgspec.json.Decoder(Envelope | list[Envelope]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def parse(body: bytes) -> Envelope | Broken | list[Envelope | Broken]:
    """What a body asks for: one request, or a batch of 1 to 1000; `Broken` when it is neither."""
    # They are what costs time to read; those inside of strings are counted too, to no harm.
    if len(body) > PARTS_MAX and sum(map(body.count, _PARTS)) > PARTS_MAX:
        return _broken(None, f"body: over {PARTS_MAX} objects, arrays and keys")
    try:
        parsed = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _parse_any(body)
    count = len(parsed) if type(parsed) is list else 1
    # All keys were found in every request: with as many colons as keys, none is there twice.
    if body.count(b":") != len(_KEYS) * count and (fault := _fault_of(body)):
        return _broken(None, fault)
    return _batch(parsed) if type(parsed) is list else parsed


def _parse_any(body: bytes) -> Envelope | Broken | list[Envelope | Broken]:
    try:
        value = _decode_any(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _broken(None, "body: not JSON")
    except RecursionError:
        return _broken(None, "body: nests too deep")
    if type(value) is list and not 1 <= len(value) <= BATCH_COUNT_MAX:
        return _batch(value)
    if fault := _fault_of(body):
        return _broken(None, fault)
    return _batch([_item(v) for v in value]) if type(value) is list else _item(value)


def _fault_of(body: bytes) -> str | None:
    """What the fast decoder does not see: a key that stands twice, and what it skipped unread."""
    try:
        json.loads(body.decode(), object_pairs_hook=_refuse_duplicates)
    except _DuplicateKey:
        return "body: a key stands twice in one object"
    except RecursionError:
        return "body: nests too deep"
    except ValueError:
        return "body: not JSON"
    return None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateKey
    return found


def _batch(items: list[Any]) -> Broken | list[Envelope | Broken]:
    if 1 <= len(items) <= BATCH_COUNT_MAX:
        return items
    return _broken(None, f"batch: 1..{BATCH_COUNT_MAX} requests expected, {len(items)} given")


def _item(value: Any) -> Envelope | Broken:
    if type(value) is not dict:
        return _broken(None, f"request: {shown(value)} is not an object")
    request_id = value.get("id")
    if type(request_id) is not int or not _ID_MIN <= request_id <= _ID_MAX:
        request_id = None
    for key in _KEYS:
        if key not in value:
            return _broken(request_id, f"{key}: missing")
    if request_id is None:
        return _broken(None, f"id: {shown(value['id'])} is not an integer of 64 bits")
    if type(value["method"]) is not str:
        return _broken(request_id, f"method: {shown(value['method'])} is not a string")
    if type(value["params"]) is not list:
        return _broken(request_id, f"params: {shown(value['params'])} is not an array")
    return Envelope(request_id, value["method"], value["params"])


def _broken(request_id: int | None, detail: str) -> Broken:
    return Broken(request_id, Refused(Reason.INVALID_ARGUMENT, detail))


async def respond(
    exchange: Exchange, caller: Caller, purse: Purse, body: bytes
) -> tuple[int, bytes]:
    """HTTP status and body of the reply to `body`, which `caller` sent and `purse` pays for."""
    parsed = parse(body)
    if not isinstance(parsed, list):
        [result] = await _run(exchange, caller, purse, [parsed])
        return encode_single(result, parsed.id)
    ids = [item.id for item in parsed]
    results = await _run(exchange, caller, purse, parsed)
    pairs = zip(results, ids, strict=True)
    return _OK, _encode([reply_of(result, request_id) for result, request_id in pairs])


def encode_single(result: Result, request_id: int | None) -> tuple[int, bytes]:
    """HTTP status and body of the reply to one request, or to none that could be read."""
    status = ERROR_KINDS[result.reason].status if type(result) is Refused else _OK
    return status, _encode(reply_of(result, request_id))


def internal_error(doing: str) -> Refused:
    """Log the exception being handled; the refusal names no more than where to find it."""
    reference = secrets.token_hex(4)
    log.exception("internal error %s in %s", reference, doing)
    return Refused(Reason.INTERNAL_ERROR, f"reference {reference}")


async def _run(
    exchange: Exchange, caller: Caller, purse: Purse, items: list[Envelope | Broken]
) -> list[Result]:
    """The results of a batch, in its order.  `items` is used up.

    Puts and cancels that follow each other are asked together, so that they reach a market in
    this order, and awaited together.
    """
    results: list[Result] = [None] * len(items)
    issued: list[tuple[int, InOrder, Issue]] = []
    call: Call | Refused | None = None
    # Thousands wait for their answers at once: each item is let go when it is checked, so that
    # its memory, still in the processor's caches, serves the next.
    items.reverse()
    for index in range(len(items)):
        checked = _checked(caller, purse, items.pop())
        if isinstance(checked, Refused):
            results[index] = checked
            continue
        method, params = checked
        if issued and type(method) is Barrier:
            await _finish(exchange, issued, results)
            issued.clear()
            call = None
        # A name may be used only while the copy it was found in is valid: look after each await.
        if call is None:
            call = await _open(exchange, caller)
        if isinstance(call, Refused):
            results[index] = call
        elif type(method) is InOrder:
            one = _check(method, call, index, params)
            if type(one) is Issue:
                issued.append((index, method, one))
            else:
                results[index] = one
        else:
            assert type(method) is Barrier
            results[index] = await _answer(method, call, index, params)
            call = None
    if issued:
        await _finish(exchange, issued, results)
    return results


def _checked(
    caller: Caller, purse: Purse, item: Envelope | Broken
) -> tuple[Method, list[Any]] | Refused:
    if type(item) is Broken:
        return purse.draw("") or item.refused
    assert type(item) is Envelope
    if refused := purse.draw(item.method):
        return refused
    method = METHODS.get(item.method)
    if method is None:
        return Refused(Reason.METHOD_NOT_FOUND, shown(item.method))
    if not method.scope & caller.scopes:
        detail = f"the key lacks the scope {names_of(method.scope)[0]}"
        return Refused(Reason.SCOPE_MISSING, detail)
    params = method.signature.check(item.params)
    if isinstance(params, Refused):
        return params
    if item.method in ACTING and (refused := purse.draw_user(item.method, params[0])):
        return refused
    return method, params


async def _open(exchange: Exchange, caller: Caller) -> Call | Refused:
    names = exchange.names
    if names is None:
        fresh = await exchange.fresh_names()
        if isinstance(fresh, Refused):
            return fresh
        names = fresh
    # A batch may take longer than its key lives.
    if caller.key and caller.key not in names.credential_by_key:
        return AUTHENTICATION_FAILED
    return Call(exchange, caller, names)


def _check(method: InOrder, call: Call, index: int, params: list[Any]) -> Issue | Refused:
    try:
        return method.check(call, index, params)
    except Exception:
        return internal_error(method.check.__name__)


async def _finish(
    exchange: Exchange, issued: list[tuple[int, InOrder, Issue]], results: list[Result]
) -> None:
    asks = [(one.listing.market_no, one.command) for _, _, one in issued]
    answers = await exchange.ask_markets(asks)
    for (index, method, one), answer in zip(issued, answers, strict=True):
        try:
            results[index] = method.finish(one, answer)
        except Exception:
            results[index] = internal_error(method.finish.__name__)


async def _answer(method: Barrier, call: Call, index: int, params: list[Any]) -> Result:
    try:
        return await method.answer(call, index, params)
    except Exception:
        return internal_error(method.answer.__name__)
