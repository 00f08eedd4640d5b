"""What a market refuses at once: caps on open orders, overload, and what would come too late.

The real sequencer with a shard whose every word is the test's.
"""

from __future__ import annotations

import itertools
import random
from typing import Any

import msgspec
import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.audit import check_market
from excore_ray.core.market import Market
from excore_ray.core.orders import Side
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import SequencerLimits
from excore_ray.core.snapshot import state_hash
from tests.core.machines import PLAIN, START_US, cancel, put_limit, put_market

SECOND_US = 1_000_000
DEADLINE_US = 10 * SECOND_US
CAPS = SequencerLimits(user_orders_max=3, orders_max=5)
Ask = c.PutLimit | c.PutMarket | c.Cancel


class Counter:
    """One incarnation of a market of one shard.  answers: by the number `ask` returned."""

    def __init__(
        self, limits: SequencerLimits = CAPS, journal: list[c.MarketRecord] | None = None
    ) -> None:
        self.market = Market()
        self.journal: list[c.MarketRecord] = []
        for record in journal or []:
            self.market.apply(record, state_hash)
            self.journal.append(record)
        self.desk = Sequencer(self.market, limits)
        self.now_us = START_US + self.market.epoch * SECOND_US
        self.answers: dict[int, m.Answer] = {}
        self.wanted: list[c.Hold] = []  # reserved by nobody yet
        self.aborts: list[int] = []  # asked for and not yet done
        self._tokens = itertools.count(1)
        self._obey(self.desk.open(self.now_us, None if journal else c.CreateMarket(PLAIN, 1)))

    def ask(self, *asks: Ask, deadline_us: int = DEADLINE_US) -> list[int]:
        """Send one batch and have the market take a turn."""
        tokens = [next(self._tokens) for _ in asks]
        deadlines_us = [self.now_us + deadline_us] * len(asks)
        batch = m.Batch(self.market.epoch, tokens, deadlines_us, list(asks))
        self.desk.receive("gateway", batch, self.now_us)
        self.turn()
        return tokens

    def turn(self) -> None:
        self._obey(self.desk.turn(self.now_us))

    def grant(self, count: int = 1_000) -> None:
        """The shard grants the oldest holds that are wanted."""
        granted = [hold.order_id for hold in self.wanted[:count]]
        del self.wanted[:count]
        self._say(granted=granted)

    def deny(self) -> None:
        """The shard denies the oldest hold that is wanted."""
        self._say(denied=[self.wanted.pop(0).order_id])

    def settle(self) -> None:
        """The shard has applied and given back whatever it was told to."""
        aborted, self.aborts = self.aborts, []
        self._say(aborted=aborted)

    def place(self, *asks: Ask) -> list[int]:
        """Send a batch whose holds are granted, and settle it."""
        tokens = self.ask(*asks)
        self.grant()
        self.settle()
        return tokens

    def reasons(self, tokens: list[int]) -> list[Reason | None]:
        """How each was refused, None for a success."""
        answers = [self.answers[token] for token in tokens]
        return [answer.reason if type(answer) is Refused else None for answer in answers]

    def detail(self, token: int) -> str:
        answer = self.answers[token]
        assert type(answer) is Refused
        return answer.detail

    def _say(self, **words: list[int]) -> None:
        parts = [words.get(name, []) for name in ("granted", "denied", "aborted", "inquiries")]
        applied = self.market.outboxes[0].out_seq
        message = m.ToMarket(0, applied, self.market.epoch, *parts)
        self.desk.receive("ledger-0", message, self.now_us)
        self.turn()

    def _obey(self, turn: Any) -> None:
        assert not turn.fenced
        if turn.record is not None:
            self.journal.append(turn.record)
        for _, message in turn.sends:
            if type(message) is m.Replies:
                decoded = m.decode(m.encode(message))
                assert type(decoded) is m.Replies
                self.answers.update(zip(decoded.tokens, decoded.answers, strict=True))
            elif type(message) is m.ToShard:
                known = {hold.order_id for hold in self.wanted}
                self.wanted += [hold for hold in message.reserves if hold.order_id not in known]
                self.aborts += message.aborts[::2]


def bids(user: int, count: int) -> list[c.PutLimit]:
    """Orders that rest: nobody sells."""
    return [put_limit(user, Side.BUY, 1, 9) for _ in range(count)]


def refused(count: int, reason: Reason = Reason.TOO_MANY_REQUESTS) -> list[Reason]:
    return [reason] * count


# Caps.


def test_a_user_has_so_many_open_orders_and_no_more() -> None:
    counter = Counter()
    tokens = counter.place(*bids(1, 2))
    assert counter.reasons(tokens) == [None, None]
    tokens = counter.place(*bids(1, 3), *bids(2, 1))
    assert counter.reasons(tokens) == [None, *refused(2), None]
    assert counter.detail(tokens[1]) == "open orders: 3 of a user in a market are the most"
    assert counter.market.open_count_of(1) == 3
    counter.place(cancel(1, next(counter.market.open_orders_of(1)).order_id))
    tokens = counter.place(*bids(1, 2))
    assert counter.reasons(tokens) == [None, *refused(1)]


def test_a_market_has_so_many_open_orders_and_no_more() -> None:
    counter = Counter()
    tokens = counter.place(*bids(1, 3), *bids(2, 1), *bids(3, 2))
    assert counter.reasons(tokens) == [None] * 5 + refused(1)
    assert counter.detail(tokens[-1]) == "open orders: 5 in a market are the most"
    counter.place(cancel(1))
    assert counter.reasons(counter.place(*bids(3, 3))) == [None, None, *refused(1)]


def test_orders_on_their_way_count_and_those_that_fail_do_not() -> None:
    counter = Counter()
    first = counter.ask(*bids(1, 5))
    assert counter.reasons(first[3:]) == refused(2)
    assert len(counter.wanted) == 3, "funds were asked for an order that was refused"
    counter.deny()  # the first is denied, and makes room
    assert counter.reasons(first[:1]) == [Reason.BALANCE_NOT_ENOUGH]
    second = counter.ask(*bids(1, 2))
    assert counter.reasons(second[1:]) == refused(1)
    counter.now_us += CAPS.reserve_timeout_us + 1
    counter.turn()  # the others are given up
    assert counter.reasons([*first[1:3], second[0]]) == refused(3, Reason.SERVICE_UNAVAILABLE)
    counter.settle()
    assert counter.reasons(counter.place(*bids(1, 4))) == [None] * 3 + refused(1)


def test_what_cannot_rest_is_not_capped() -> None:
    counter = Counter()
    counter.place(*bids(1, 3), put_limit(2, Side.SELL, 1, 20))
    tokens = counter.place(put_market(1, Side.SELL, 1), cancel(1, 99), cancel(1))
    assert counter.reasons(tokens) == [None, Reason.ORDER_NOT_FOUND, None]


def test_a_refusal_for_the_cap_is_told_again_and_never_executed() -> None:
    counter = Counter()
    counter.place(*bids(1, 3))
    one = bids(1, 1)
    assert counter.reasons(counter.place(*one)) == refused(1)
    counter.place(cancel(1))
    assert counter.reasons(counter.place(*one)) == refused(1)
    assert counter.market.open_count_of(1) == 0


def test_a_replay_knows_no_cap_and_a_lower_one_holds_for_new_orders_only() -> None:
    counter = Counter(SequencerLimits())
    counter.place(*bids(1, 20), *bids(2, 20))
    later = Counter(CAPS, counter.journal)
    assert later.market.open_count_of(1) == 20
    assert later.reasons(later.place(*bids(1, 1), *bids(3, 1))) == refused(2)
    live = later.place(cancel(1), cancel(2), *bids(3, 4))
    assert later.reasons(live) == [None] * 5 + refused(1)
    again = Market()
    for record in msgspec.json.decode(
        msgspec.json.encode(later.journal), type=list[c.MarketRecord]
    ):
        again.apply(record, state_hash)
    again.begin(later.market.time_us)
    assert state_hash(again) == state_hash(later.market)


def test_the_caps_hold_whatever_happens() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    counter = Counter(SequencerLimits(user_orders_max=4, orders_max=9))
    for _ in range(2_000):
        user, side = chance.randint(1, 4), chance.choice(tuple(Side))
        counter.ask(
            *(put_limit(user, side, chance.randint(1, 5), chance.randint(8, 12)) for _ in range(2)),
            *([cancel(user)] if chance.random() < 0.1 else []),
        )
        match chance.randrange(4):
            case 0 if counter.wanted:
                counter.deny()
            case 1:
                counter.now_us += chance.choice((1, SECOND_US + 1))
            case 2:
                counter.settle()
            case _:
                counter.grant(chance.randint(1, 3))
        assert len(counter.market.orders) <= 9
        assert all(counter.market.open_count_of(user) <= 4 for user in range(1, 5))
    counter.now_us += 2 * SECOND_US
    counter.turn()
    counter.settle()
    check_market(counter.market)
    # Nothing is left behind that would count for ever.
    counter.place(*(cancel(user) for user in range(1, 5)))
    assert counter.reasons(counter.place(*bids(1, 5))) == [None] * 4 + refused(1)
    assert counter.reasons(counter.place(*bids(2, 5))) == [None] * 4 + refused(1)


# Overload.


def test_a_full_queue_refuses_orders_and_takes_so_many_more_cancels() -> None:
    counter = Counter(SequencerLimits(queue_max=3, cancels_spare=2))
    tokens = counter.ask(*bids(1, 5), cancel(1), cancel(1), cancel(1), *bids(2, 1))
    unavailable = refused(1, Reason.SERVICE_UNAVAILABLE)
    assert counter.reasons([*tokens[3:5], *tokens[7:]]) == unavailable * 4
    assert counter.detail(tokens[3]) == "the market is overloaded"
    counter.grant()
    counter.settle()
    assert counter.reasons(tokens[:3] + tokens[5:7]) == [None] * 5
    assert not counter.market.orders


def test_too_many_results_refuse_orders_and_take_so_many_more_cancels() -> None:
    counter = Counter(SequencerLimits(results_max=2, cancels_spare=1))
    counter.place(*bids(1, 2))
    tokens = counter.place(*bids(1, 1), cancel(1))
    assert counter.reasons(tokens) == [Reason.SERVICE_UNAVAILABLE, None]
    assert counter.reasons(counter.place(cancel(1))) == refused(1, Reason.SERVICE_UNAVAILABLE)


@pytest.mark.parametrize("left_us", [250_000, 1, 0, -1])
def test_what_cannot_be_answered_in_time_is_not_executed(left_us: int) -> None:
    counter = Counter(SequencerLimits(late_us=250_000, reserve_timeout_us=60 * SECOND_US))
    tokens = counter.ask(*bids(1, 1), cancel(2), put_market(1, Side.SELL, 1))
    counter.now_us += DEADLINE_US - left_us
    counter.grant()
    assert counter.reasons(tokens[1:2]) == refused(1, Reason.SERVICE_UNAVAILABLE)
    assert tokens[0] not in counter.answers, "the hold is not given back yet"
    counter.settle()
    assert counter.reasons(tokens) == refused(3, Reason.SERVICE_UNAVAILABLE)
    assert counter.detail(tokens[0]) == "the market could not execute it in time"
    assert not counter.market.orders
    assert not counter.desk.busy


def test_what_has_a_moment_left_is_executed() -> None:
    counter = Counter(SequencerLimits(late_us=250_000, reserve_timeout_us=60 * SECOND_US))
    tokens = counter.ask(*bids(1, 1))
    counter.now_us += DEADLINE_US - 250_001
    counter.grant()
    counter.settle()
    assert counter.reasons(tokens) == [None]


# Clocks.


def test_what_was_forgotten_while_a_clock_was_ahead_is_not_executed_again() -> None:
    first = Counter(SequencerLimits())
    [plain, stamped] = bids(1, 2)
    stamped = msgspec.structs.replace(stamped, stamp_ms=first.now_us // 1000)
    given_up_us = first.now_us + DEADLINE_US
    assert first.reasons(first.place(plain, stamped)) == [None, None]
    ahead = Counter(SequencerLimits(), first.journal)
    ahead.now_us += c.RESULT_KEPT_STAMPED_US
    ahead.place(*bids(2, 1))
    assert not ahead.market.results.get(stamped.request_id)
    # Its successor's clock is right again: both were asked a moment ago.
    right = Counter(SequencerLimits(), ahead.journal)
    right.ask(plain, stamped, deadline_us=given_up_us - right.now_us)
    # Nobody can say any more what became of them.
    assert not right.answers
    assert not right.wanted
    assert right.market.open_count_of(1) == 2
