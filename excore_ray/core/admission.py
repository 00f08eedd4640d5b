"""Admission: what a market refuses at once, before funds are asked for or anything is queued.

Separate because it bounds what a market keeps of its own time, not of its journal: the caps on
open orders are a setting of today, while a replay executes whatever was executed.  It must not
know shards.

A cancel is taken where an order is refused: a full market is a reason to get out of it.
"""

from __future__ import annotations

from excore_ray.core.commands import PutLimit, PutMarket
from excore_ray.core.market import Market
from excore_ray.core.orders import Side
from excore_ray.core.reasons import OVERLOADED, Reason, Refused
from excore_ray.core.shardlink import SequencerLimits
from excore_ray.core.undecided import Undecided

SILENT = Refused(Reason.SERVICE_UNAVAILABLE, "the user's accounts do not answer")
TOO_LATE = Refused(Reason.SERVICE_UNAVAILABLE, "the market could not execute it in time")
_RESULTS_FULL = Refused(Reason.SERVICE_UNAVAILABLE, "too many fresh results")

_SIDES = frozenset(Side)


class Admission:
    """Judges requests by the market's state and what is on its way into it.

    results: how many results the market remembers, told once a turn.
    """

    def __init__(self, market: Market, undecided: Undecided, limits: SequencerLimits) -> None:
        self.results = 0
        self._market = market
        self._undecided = undecided
        self._limits = limits

    def refusal_of_cancel(self, queued: int) -> Refused | None:
        """Why a cancel is refused now.  queued: what waits before it."""
        return self._crowded(queued, self._limits.cancels_spare)

    def refusal_of_put(self, ask: PutLimit | PutMarket, queued: int) -> Refused | None:
        """Why an order is refused now, in the order it is checked.  queued: what waits before."""
        refused = self._crowded(queued, 0)
        if refused is not None:
            return refused
        if ask.side not in _SIDES:
            return Refused(Reason.INVALID_SIDE, f"side {ask.side}")
        if ask.amount <= 0:
            return Refused(Reason.INVALID_ARGUMENT, "amount: not above 0")
        if type(ask) is PutLimit:
            if ask.price <= 0:
                return Refused(Reason.INVALID_ARGUMENT, "price: not above 0")
            if ask.amount < self._market.rules.min_amount:
                return Refused(Reason.AMOUNT_TOO_SMALL, "amount: below the market's minimum")
            return self._capped(ask.user)
        return None

    def _crowded(self, queued: int, spare: int) -> Refused | None:
        if queued >= self._limits.queue_max + spare:
            return OVERLOADED
        if self.results >= self._limits.results_max + spare:
            return _RESULTS_FULL
        return None

    def _capped(self, user: int) -> Refused | None:
        """Whether one more limit order might be one too many; it is not asked if it would rest."""
        market, undecided, limits = self._market, self._undecided, self._limits
        of_user = market.open_count_of(user) + undecided.limits_of.get(user, 0)
        if of_user >= limits.user_orders_max:
            detail = f"open orders: {limits.user_orders_max} of a user in a market are the most"
            return Refused(Reason.TOO_MANY_REQUESTS, detail)
        if len(market.orders) + undecided.limits >= limits.orders_max:
            detail = f"open orders: {limits.orders_max} in a market are the most"
            return Refused(Reason.TOO_MANY_REQUESTS, detail)
        return None
