"""Params: the positional parameters of a method, checked for number and type, and single values.

Separate so that every method refuses in the same words.  A refusal names the parameter and the
value.  It must not know methods or markets.

Source: the parameter tables of the RPC reference.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from excore_ray.core.names import bad_asset_name
from excore_ray.core.orders import FEE_SCALE
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import NOTES_BYTES_MAX, PREC_MAX, RATE_PREC, USER_MAX
from excore_ray.core.units import format_plain, parse

OFFSET_MAX = 2**63 - 1
ORDER_ID_MAX = 2**53 - 1
LIST_LIMIT_MAX = 1000
LIST_LIMIT_DEFAULT = 100
PAGE_LIMIT_MAX = 100
NESTING_MAX = 32
_SHOWN_MAX = 40
_SHOWN_BITS_MAX = 1024


class Kind(enum.Enum):
    """Type of a parameter: the Python type its JSON decodes to, and how a refusal calls it."""

    INTEGER = (int, "an integer")
    STRING = (str, "a string")
    OBJECT = (dict, "an object")
    ARRAY = (list, "an array")
    USER = (int, "a user_id")  # a value of another type is invalid user_id, which comes later


class Param(msgspec.Struct, frozen=True):
    """One positional parameter.  A required one may be neither absent nor null."""

    name: str
    kind: Kind
    required: bool = True


class Positional:
    """The parameters of a method in their order.

    longer: the form that holds when there are more parameters than this one has.
    """

    __slots__ = ("_longer", "_params", "_types")

    def __init__(self, *params: Param, longer: Positional | None = None) -> None:
        self._params = params
        self._types: list[type] = [param.kind.value[0] for param in params]
        self._longer = longer

    def check(self, given: list[Any]) -> list[Any] | Refused:
        """`given` with null for what is absent and optional, or why it does not fit."""
        if list(map(type, given)) == self._types:
            return given
        if len(given) > len(self._params):
            if self._longer is not None:
                return self._longer.check(given)
            detail = f"params: at most {len(self._params)} expected, {len(given)} given"
            return Refused(Reason.INVALID_ARGUMENT, detail)
        full = given + [None] * (len(self._params) - len(given))
        for position, param in enumerate(self._params):
            refused = _mismatch(param, full[position], position < len(given))
            if refused is not None:
                return refused
        return full


class NameList:
    """The parameters of a method that takes names one by one, or one array of them, or none."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def check(self, given: list[Any]) -> list[Any] | Refused:
        """The names, each once, none for all; or why they are not names."""
        if len(given) == 1 and (type(given[0]) is list or given[0] is None):
            given = given[0] or []
        for name in given:
            if type(name) is not str:
                return invalid(self._name, name, "is not a string")
        return list(dict.fromkeys(given))


Signature = Positional | NameList


def _mismatch(param: Param, value: Any, present: bool) -> Refused | None:
    python_type, called = param.kind.value
    if type(value) is python_type:
        return None
    if not present or value is None:
        if not param.required:
            return None
        if not present:
            return Refused(Reason.INVALID_ARGUMENT, f"{param.name}: missing")
    if param.kind is Kind.USER:
        return None
    return invalid(param.name, value, f"is not {called}")


def shown(value: Any) -> str:
    """A caller's value as a refusal quotes it: JSON, and short."""
    if type(value) is list:
        return "an array"
    if type(value) is dict:
        return "an object"
    if type(value) is str:
        clipped = value if len(value) <= _SHOWN_MAX else value[:_SHOWN_MAX] + "..."
        return msgspec.json.encode(clipped).decode()
    if type(value) is int and value.bit_length() > _SHOWN_BITS_MAX:
        # To write thousands of digits takes as long as hundreds of requests.
        return "a huge integer"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def invalid(name: str, value: Any, fault: str) -> Refused:
    """The refusal of parameter `name`, whose `value` has a `fault`."""
    return Refused(Reason.INVALID_ARGUMENT, f"{name}: {shown(value)} {fault}")


def bad_user(user: Any, name: str = "user_id") -> Refused | None:
    """Why `user` is no user id, or None."""
    if type(user) is int and 1 <= user <= USER_MAX:
        return None
    return Refused(Reason.INVALID_USER, f"{name}: {shown(user)} is not in 1..{USER_MAX}")


def bad_side(side: Any) -> Refused | None:
    """Why `side` is no side, or None."""
    if side in {1, 2}:
        return None
    return Refused(Reason.INVALID_SIDE, f"side: {shown(side)} is neither 1 nor 2")


def bad_page(offset: int, limit: int, limit_max: int = PAGE_LIMIT_MAX) -> Refused | None:
    """Why a page of `limit` records from `offset` on cannot be asked for, or None."""
    if not 0 <= offset <= OFFSET_MAX:
        return invalid("offset", offset, "is not in 0..2^63-1")
    return bad_limit(limit, limit_max)


def bad_limit(limit: int, limit_max: int) -> Refused | None:
    """Why at most `limit` records cannot be asked for, or None."""
    if limit < 1:
        return invalid("limit", limit, "is below 1")
    if limit > limit_max:
        return Refused(Reason.LIMIT_TOO_BIG, f"limit: {shown(limit)} is above {limit_max}")
    return None


def bad_order_id(order_id: int) -> Refused | None:
    """Why `order_id` can be no order's id, or None."""
    if 1 <= order_id <= ORDER_ID_MAX:
        return None
    return invalid("order_id", order_id, "is not in 1..2^53-1")


def bad_notes(notes: str) -> Refused | None:
    """Why `notes` cannot be kept, or None."""
    if bytes_of(notes) <= NOTES_BYTES_MAX:
        return None
    return invalid("notes", notes, f"is over {NOTES_BYTES_MAX} bytes")


def bad_asset(name: str) -> Refused | None:
    """Why no asset can be called `name`, saying the name, or None."""
    refused = bad_asset_name(name)
    return refused and Refused(refused.reason, f"{refused.detail}: {shown(name)}")


def bad_precision(prec_save: int, prec_show: int) -> Refused | None:
    """Why no asset can have these digits, or None."""
    if 0 <= prec_show <= prec_save <= PREC_MAX:
        return None
    digits = f"prec_show {shown(prec_show)} <= prec_save {shown(prec_save)}"
    return Refused(Reason.INVALID_PRECISION, f"0 <= {digits} <= {PREC_MAX} does not hold")


def nests_deeper(value: dict[str, Any] | list[Any], levels: int) -> bool:
    """Whether arrays and objects stand in each other more than `levels` deep."""
    layer: list[Any] = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
    return bool(layer)


def bytes_of(text: str) -> int:
    """How many bytes `text` has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def decimal(name: str, text: Any, scale: int) -> int | Refused:
    """The decimal string `text` at `scale`, cut off toward zero."""
    value = parse(text, scale)
    if value is None:
        return invalid(name, text, "is not a decimal string below 10^18")
    return value


def above_zero(name: str, text: Any, scale: int) -> int | Refused:
    """The decimal string `text` at `scale`, which must leave it above 0."""
    value = parse(text, scale)
    if value is not None and value > 0:
        return value
    if value is None:
        return decimal(name, text, scale)
    return invalid(name, text, f"is not above 0 with {scale} decimals")


def rate(name: str, text: Any, most: int = FEE_SCALE - 1) -> int | Refused:
    """The decimal string `text` in ten-thousandths, from 0 to `most`."""
    value = parse(text, RATE_PREC)
    if value is not None and 0 <= value <= most:
        return value
    if value is None:
        return decimal(name, text, RATE_PREC)
    return invalid(name, text, f"is not in 0..{format_plain(most, RATE_PREC)}")
