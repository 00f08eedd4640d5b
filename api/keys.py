"""Keys: the handlers of keys.*: API credentials for services.

Separate because secrets are made here, and nowhere else.  It must not know how requests are
signed.

Source: an extension of the RPC reference.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from api.calls import Call, Result, expect, success
from api.params import bad_notes, invalid
from excore_ray.core.catalog import Scope
from excore_ray.core.commands import AddKey, RevokeKey
from excore_ray.core.messages import AskKeys, Done, Keys
from excore_ray.core.reasons import Reason, Refused

KEY_BYTES = 16
SECRET_BYTES = 32
KEY_LENGTH_MAX = 1024  # of any key, however it came into the catalog
SCOPES = {scope.name.lower(): scope.value for scope in Scope if scope.name}


class NewKey(msgspec.Struct, frozen=True):
    """The result of keys.add, the only time that the secret is shown."""

    key: str
    secret: str


class KeyReply(msgspec.Struct, frozen=True):
    """One key of keys.list."""

    key: str
    scopes: list[str]
    notes: str
    revoked: bool


async def keys_add(call: Call, index: int, params: list[Any]) -> Result:
    """Answer keys.add [scopes, notes?] with a new key and its secret."""
    names, notes = params[0], params[1] or ""
    scopes = 0
    for name in names:
        if type(name) is not str or name not in SCOPES:
            return invalid("scopes", name, f"is none of {', '.join(SCOPES)}")
        scopes |= SCOPES[name]
    if not scopes:
        return Refused(Reason.INVALID_ARGUMENT, f"scopes: none of {', '.join(SCOPES)}")
    if refused := bad_notes(notes):
        return refused
    new = NewKey(secrets.token_hex(KEY_BYTES), secrets.token_hex(SECRET_BYTES))
    command = AddKey(
        call.request_id(index), call.caller.stamp_ms, new.key, new.secret, scopes, notes
    )
    done = expect(await call.exchange.ask_catalog(command), Done)
    if isinstance(done, Refused):
        return done
    if call.caller.stamp_ms:
        return await _if_added(call, new)
    return new


async def _if_added(call: Call, new: NewKey) -> Result:
    # A request sent again gets its first success, but the secret of that time is known to nobody
    # here: what was made just now is no key then, and must not be handed out as one.
    keys = expect(await call.exchange.ask_catalog(AskKeys()), Keys)
    if isinstance(keys, Refused):
        # Whatever this refusal says of itself, the key may be there.
        return Refused(Reason.SERVICE_TIMEOUT, keys.detail)
    if any(view.key == new.key for view in keys.keys):
        return new
    detail = "this request has made its key before; find it in keys.list, revoke it and add another"
    return Refused(Reason.EXISTS_YET, detail)


async def keys_list(call: Call, index: int, params: list[Any]) -> Result:
    """Answer keys.list [] with all keys, revoked ones too, without their secrets."""
    keys = expect(await call.exchange.ask_catalog(AskKeys()), Keys)
    if isinstance(keys, Refused):
        return keys
    return [
        KeyReply(view.key, names_of(view.scopes), view.notes, view.revoked) for view in keys.keys
    ]


async def keys_revoke(call: Call, index: int, params: list[Any]) -> Result:
    """Answer keys.revoke [key]."""
    [key] = params
    if len(key) > KEY_LENGTH_MAX:
        return invalid("key", key, f"has over {KEY_LENGTH_MAX} characters")
    command = RevokeKey(call.request_id(index), call.caller.stamp_ms, key)
    return success(await call.exchange.ask_catalog(command))


def names_of(scopes: int) -> list[str]:
    """The names of scopes given as bits."""
    return [name for name, bit in SCOPES.items() if scopes & bit]
