"""Story: what happened in a run, kept cheaply, and told only when a promise was broken.

Separate because thousands of lines are kept for every run and hardly any run is told of: a line
is a tuple of what was at hand, and becomes text when it is printed.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable

from excore_ray.core import messages as m

LINES_MAX = 60
_TEXT_MAX = 400
_KEPT = 6_000
# What a violation may name, the most telling first: requests, orders, users.
_TOPICS = (
    re.compile(r"request_id=(b'[^']*')"),
    re.compile(r"(?:order_id=|order |orphan |hold of |order_ids? )(\d{4,})"),
    re.compile(r"\buser[ =](\d+)"),
)

# When, who, to whom, and what: an encoded message, the JSON of a record, or a text.
Line = tuple[int, str, str, bytes | str]


class Story:
    """The newest lines of a run.  To whom is "" for what somebody journals or says to itself."""

    def __init__(self) -> None:
        self._lines: collections.deque[Line] = collections.deque(maxlen=_KEPT)
        self.add = self._lines.append  # keeps one line

    def tell(self, violation: str) -> list[str]:
        """The newest lines that touch what the violation names; the newest of all otherwise."""
        for topic in _TOPICS:
            named = topic.findall(violation)
            if named:
                found = self._select(_touches(named[0], is_user=topic is _TOPICS[-1]))
                if found:
                    return found
        return self._select(lambda text: True)

    def _select(self, fits: Callable[[str], bool]) -> list[str]:
        told: list[str] = []
        for now_us, who, to, what in reversed(self._lines):
            text = _text_of(to, what)
            if not fits(text):
                continue
            where = f"{who} -> {to}" if to else who
            told.append(f"{now_us % 10**9 / 1000:10.1f} ms  {where}  {text[:_TEXT_MAX]}")
            if len(told) == LINES_MAX:
                break
        told.reverse()
        return told


def _touches(name: str, is_user: bool) -> Callable[[str], bool]:
    if name.startswith("b'"):
        return lambda text: name in text
    pattern = re.compile(rf"\buser=?{name}\b" if is_user else rf"\b{name}\b")
    return lambda text: pattern.search(text) is not None


def _text_of(to: str, what: bytes | str) -> str:
    if isinstance(what, str):
        return what
    return repr(m.decode(what)) if to else what.decode()
