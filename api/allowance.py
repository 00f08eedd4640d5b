"""Allowance: how many requests a key may send, and how many may act for a user: token buckets.

Separate so that it is a function of the clock it is given.  It must not know HTTP, signatures or
what a method does.  It counts at one gateway only: who uses n gateways may send n times as many.

A key's bucket is drawn on only by who has signed with its secret, so that nobody can empty it
for another.  A bucket that refuses loses nothing, so that asking on does not make the wait longer;
but what a user's bucket refuses has cost the key its token, for it was asked and looked at.
Source: the generic cell rate algorithm: a bucket is the one moment at which it would be full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from api.ports import Limits, Rate
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.specs import USER_MAX

CANCELS = frozenset({"order.cancel"})
# Methods whose first parameter is the user they act for.
ACTING = CANCELS | {"order.put_limit", "order.put_market", "balance.update"}

_SECOND_NS = 1_000_000_000
_TENTH_NS = _SECOND_NS // 10


class Buckets:
    """The buckets of all keys, or of all users.  Full at first; idle ones are forgotten.

    Memory: about 150 bytes for each name that was drawn on within twice the time in which an
    empty bucket fills.  counted: the words for what one token stands for.
    """

    def __init__(self, rate: Rate, counted: str) -> None:
        self._limit = f"{rate.per_s:,.12g} {counted}"
        self._cost_ns = max(1, round(_SECOND_NS / rate.per_s))
        self._depth_ns = rate.burst * self._cost_ns
        self._full_ns: dict[Any, int] = {}  # when each will be full again
        self._older: dict[Any, int] = {}  # the same, of those not drawn on since the last swap
        self._swap_every_ns = max(self._depth_ns, _SECOND_NS)
        self._swap_ns = 0

    def __len__(self) -> int:
        return len(self._full_ns) + len(self._older)

    def draw(self, name: int | str, now_ns: int) -> int:
        """Draw one token; 0, or in how many nanoseconds there will be one.  now_ns never falls."""
        if now_ns >= self._swap_ns:
            # What was not drawn on for so long is full: a bucket that nobody knows is the same.
            self._older, self._full_ns = self._full_ns, {}
            self._swap_ns = now_ns + self._swap_every_ns
        full_ns = self._full_ns.get(name)
        if full_ns is None:
            full_ns = self._older.get(name, now_ns)
        full_ns = (now_ns if full_ns < now_ns else full_ns) + self._cost_ns
        wait_ns = full_ns - now_ns - self._depth_ns
        if wait_ns > 0:
            return wait_ns
        self._full_ns[name] = full_ns
        return 0

    def refusal(self, wait_ns: int) -> Refused:
        """What to say to whom `draw` told to wait."""
        tenths = -(-wait_ns // _TENTH_NS)
        detail = f"{self._limit}; try again in {tenths / 10} s"
        return Refused(Reason.TOO_MANY_REQUESTS, detail)


class Allowance:
    """The buckets of one gateway."""

    def __init__(self, limits: Limits, clock_ns: Callable[[], int]) -> None:
        self.clock_ns = clock_ns
        self.keys = Buckets(limits.key, "requests/s of one key")
        self.key_cancels = Buckets(limits.key_cancels, "cancels/s of one key")
        self.users = Buckets(limits.user, "requests/s for one user")
        self.user_cancels = Buckets(limits.user_cancels, "cancels/s for one user")


class Purse:
    """What the requests in one HTTP request draw from.

    wait_ns: the longest that any of them was told to wait, 0 when none was refused.
    """

    __slots__ = ("_allowance", "_clock_ns", "_key", "wait_ns")

    def __init__(self, allowance: Allowance, key: str) -> None:
        self._allowance = allowance
        self._clock_ns = allowance.clock_ns
        self._key = key
        self.wait_ns = 0

    def draw(self, method: str) -> Refused | None:
        """Pay for a request from what its key has, or say why it must wait."""
        allowance = self._allowance
        buckets = allowance.key_cancels if method in CANCELS else allowance.keys
        wait_ns = buckets.draw(self._key, self._clock_ns())
        return self._refuse(buckets, wait_ns) if wait_ns else None

    def draw_user(self, method: str, user: Any) -> Refused | None:
        """Pay for a request from what the user has whom it acts for.

        Whoever can be no user is let through, to be refused for that.
        """
        if type(user) is not int or not 0 < user <= USER_MAX:
            return None
        allowance = self._allowance
        buckets = allowance.user_cancels if method in CANCELS else allowance.users
        wait_ns = buckets.draw(user, self._clock_ns())
        return self._refuse(buckets, wait_ns) if wait_ns else None

    def _refuse(self, buckets: Buckets, wait_ns: int) -> Refused:
        self.wait_ns = max(self.wait_ns, wait_ns)
        return buckets.refusal(wait_ns)
