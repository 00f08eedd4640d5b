"""Values as JSON text: plain ones, and those that parsers, types and arithmetic trip over.

Separate because requests and envelopes are damaged with the same.  They are text and not Python
values, since much of what a client may send no Python value stands for: a key twice, NaN, a
leading zero, half a surrogate pair.
"""

from __future__ import annotations

import json
from random import Random

LONG_DIGITS = "9" * 400
INTEGERS = (
    *("0", "-0", "1", "-1", "2", "3", "8", "20", "21", "100", "101", "1000", "1001", "4096"),
    *(str(2**n + d) for n in (31, 32, 53, 63, 64, 128) for d in (-1, 0, 1)),
    *(str(-(2**n) + d) for n in (31, 53, 63, 64) for d in (-1, 0, 1)),
    *("253402300799", "253402300800", "604800", "604801", "2592000", LONG_DIGITS),
    *("-" + LONG_DIGITS, "1" * 4300, "1" * 4301, "1" + "0" * 400),
)
NO_INTEGERS = (
    *("1.0", "1e0", "-0.0", "0.1", "1e2", "1E2", "1e-400", "1e308", "1e309", "-1e400", "1.7e300"),
    *("01", "+1", ".5", "1.", "0x10", "1_0", "NaN", "Infinity", "-Infinity", "١", "1e", "--1"),
)
DECIMALS = (
    *("0", "-0", "+0", "1", "+1", "-1", "0.001", "0.0009999999", "1.", ".5", "-.5", "1e3", "1E+3"),
    *("1e-3", "1e017", "1e18", "999999999999999999", "999999999999999999.99999999", "1e17"),
    *("1e-999", "1e999", "0e999", "0.00000000000000000001", "1" + "0" * 63, "0" * 63 + "1"),
    *("0" * 64 + "1", "9" * 18 + "." + "9" * 45, "1." + "0" * 62, "1000000000", "123456.789"),
)
NO_DECIMALS = (
    *("", " ", " 1", "1 ", "1_0", "NaN", "nan", "Infinity", "-inf", "1e1000", "1e", "e1", ".", "+"),
    *("-", "1.2.3", "1,2", "0x1", "1e+", "--1", "+-1", "١", "\uff11", "1\u0000", "\u00001", "1\n"),
    *("½", "−1", "1e٣", "1d", "1f", "1j", "1/2", "1" * 65, "1" * 5000, "9" * 18 + "e1", "1e1e1"),
)
STRINGS = (
    *("", " ", "\u0000", "a\u0000b", "\n", "\x7f", "\x1b[31m", "\u202egnp", "\u200b", "\ufeff"),
    *(
        "e\u0301",
        "\u00e9",
        "😀",
        "\U0010ffff",
        "𝔹TC",
        "ВТС",
        "btcbch",
        "BTCBCH ",
        " BTCBCH",
        "BTC\t",
    ),
    *("\ud800", "\udc00", "\ud83d", "a\udfffb", "'; --", '"', "\\", "%s%n", "{}", "${x}", "../.."),
    *("null", "true", "0", "None", "force", "Force", "admin", "read", "x" * 15, "x" * 16, "x" * 30),
    *("x" * 31, "x" * 32, "é" * 15, "é" * 16, "😀" * 8, "x" * 1024, "x" * 1025, "x" * 9000),
)
OTHERS = ("null", "true", "false", "{}", "[]", "[[]]", '{"a":1}', "[null]", '{"":{}}', '["BTC"]')
DETAILS = (
    *("{}", '{"id":5}', '{"id":"x","a":{"b":[1,2,{"c":null}]}}', '{"a":' + LONG_DIGITS + "}"),
    *('{"a":1e308}', '{"a":"😀"}', '{"\\u0000":"\\u0000"}', '{"a":-0.0,"b":1e-5}', '{"a":1,"a":2}'),
    *('{"":' * 31 + "{}" + "}" * 31, '{"":' * 32 + "{}" + "}" * 32, '{"":' * 33 + "1" + "}" * 33),
    *('{"a":"' + "x" * 4088 + '"}', '{"a":"' + "x" * 4089 + '"}', '{"a":"\\ud800"}', '{"a":NaN}'),
    *('{"a":"' + "é" * 2044 + '"}', '{"a":"' + "\\u0001" * 700 + '"}'),
)


def text(value: str, random: Random) -> str:
    """A string as JSON, its characters escaped or as they are."""
    return json.dumps(value, ensure_ascii=random.random() < 0.5)


def odd_text(random: Random) -> str:
    """A string nobody would send in earnest, as JSON."""
    kind = random.random()
    if kind < 0.7:
        return text(random.choice(STRINGS), random)
    if kind < 0.95:
        some = [chr(random.choice((random.randrange(128), random.randrange(0x110000))))]
        return text("".join(some * random.choice((1, 2, 15, 31))), random)
    return '"' + random.choice(("\\x", "\\u12", "\\ud800\\u0041", "\t", "\\", "\\u")) + '"'


def decimal(random: Random) -> str:
    """A decimal of any form the grammar knows, as JSON."""
    if random.random() < 0.4:
        return f'"{random.choice(DECIMALS)}"'
    whole = str(random.randrange(10 ** random.choice((1, 3, 9, 18, 19))))
    fraction = random.choice(("", ".", f".{random.randrange(10 ** random.choice((1, 8, 21)))}"))
    exponent = random.choice(("", "", f"e{random.randrange(-30, 30)}", f"E+{random.randrange(20)}"))
    return f'"{random.choice(("", "", "+", "-"))}{whole}{fraction}{exponent}"'


def odd(random: Random) -> str:
    """Any JSON text, or what looks like it."""
    kind = random.random()
    if kind < 0.25:
        return random.choice(INTEGERS)
    if kind < 0.35:
        return random.choice(NO_INTEGERS)
    if kind < 0.45:
        return decimal(random)
    if kind < 0.55:
        return text(random.choice(NO_DECIMALS), random)
    if kind < 0.75:
        return odd_text(random)
    if kind < 0.95:
        return random.choice(OTHERS)
    return random.choice(DETAILS)
