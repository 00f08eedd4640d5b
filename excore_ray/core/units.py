"""Units: decimal text to scaled integers and back, exactly.

Separate because every quantity enters and leaves here, and nowhere else.  It must not know what
a number stands for.  A quantity `value` at `scale` means value * 10**-scale.

Source: the decimal strings of the RPC reference.
"""

from __future__ import annotations

import re
from functools import lru_cache

from excore_ray.core.specs import MAGNITUDE_MAX

TEXT_LENGTH_MAX = 64
_CACHED_MAX = 16_384  # prices, rates and amounts repeat; a cached answer costs a tenth

_DECIMAL = re.compile(r"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]{1,3}))?")


def parse(text: object, scale: int) -> int | None:
    """The decimal `text` at `scale` (at least 0), digits beyond it cut off toward zero.

    None when it is no `str`, is longer than 64 characters, does not read
    `[+-]?(digits[.digits] | .digits)[e[+-]1 to 3 digits]` in ASCII, or reaches 10**18 in
    magnitude.  Cost: bounded whatever the text, since its form is checked before its value.
    """
    if type(text) is not str or len(text) > TEXT_LENGTH_MAX:
        return None
    return _parse(text, scale)


@lru_cache(maxsize=_CACHED_MAX)
def _parse(text: str, scale: int) -> int | None:
    found = _DECIMAL.fullmatch(text)
    if found is None:
        return None
    sign, whole, fraction, only_fraction, exponent = found.groups()
    fraction = fraction or only_fraction or ""
    digits = int((whole or "") + fraction)
    shift = scale - len(fraction) + (int(exponent) if exponent else 0)
    power: int = 10 ** abs(shift)
    value = digits * power if shift >= 0 else digits // power
    if value >= MAGNITUDE_MAX * 10**scale:
        return None
    return -value if sign == "-" else value


def format_plain(value: int, scale: int) -> str:
    """`value` at `scale` as a plain decimal: no exponent, no trailing zeros, "0" for zero."""
    if not value:
        return "0"
    if not scale:
        return str(value)
    padded = format_padded(value, scale)
    return padded.rstrip("0").rstrip(".")


# For what repeats, as prices and rates do: a hit costs a tenth, but a miss the double.
format_often = lru_cache(maxsize=_CACHED_MAX)(format_plain)


def format_padded(value: int, scale: int) -> str:
    """`value` at `scale` as a plain decimal with exactly `scale` digits after the point."""
    if not scale:
        return str(value)
    sign = "-" if value < 0 else ""
    digits = str(abs(value)).zfill(scale + 1)
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def rescale(value: int, scale: int, to_scale: int) -> int:
    """`value` at `scale` as an integer at `to_scale`, digits beyond it cut off toward zero."""
    power: int = 10 ** abs(to_scale - scale)
    if to_scale >= scale:
        return value * power
    return value // power if value >= 0 else -(-value // power)
