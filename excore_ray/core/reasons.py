"""Refusals: why a command or a request was turned away, as values.

Separate so that machines, gateways and tests name a refusal alike.  It must not know the codes
and texts of the RPC; `api/replies.py` maps each reason to them.

Source: the error table of the RPC reference; the order below is the order of checking.
"""

from __future__ import annotations

import enum

import msgspec


class Reason(enum.IntEnum):
    """Why something was refused.  The numbers are internal and permanent (they are journaled)."""

    SERVICE_UNAVAILABLE = 1  # nothing was done and nothing will be; send again freely
    SERVICE_TIMEOUT = 2  # unknown whether it was done
    INTERNAL_ERROR = 3
    METHOD_NOT_FOUND = 4
    AUTHENTICATION_FAILED = 5
    SCOPE_MISSING = 6
    TOO_MANY_REQUESTS = 7
    INVALID_ARGUMENT = 10
    INVALID_USER = 11
    ASSET_NOT_FOUND = 12  # balance.* and asset.*
    INVALID_ASSET = 13
    ORDER_MARKET_NOT_FOUND = 14  # order.*
    MARKET_NOT_FOUND = 15  # market.*
    MARKET_ASSET_NOT_FOUND = 16  # market.add
    INVALID_PRECISION = 17
    EXISTS_YET = 18
    INVALID_SIDE = 19
    SOURCE_TOO_LONG = 20
    LIMIT_TOO_BIG = 21
    AMOUNT_TOO_SMALL = 22
    REPEAT_UPDATE = 23
    BALANCE_NOT_ENOUGH = 24
    NO_ENOUGH_TRADER = 25
    ORDER_NOT_FOUND = 26
    USER_NOT_MATCH = 27


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="no", gc=False):
    """A refusal: `reason`, and `detail` saying what was wrong and with which value, or ""."""

    reason: Reason
    detail: str = ""


# Said by an actor that takes in no more; a gateway that hears it sends less.
OVERLOADED = Refused(Reason.SERVICE_UNAVAILABLE, "the market is overloaded")
