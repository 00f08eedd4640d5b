"""Reception: what one user's refusals take from others, and stamps that are ahead of the clock."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.market import Market
from excore_ray.core.reasons import Reason, Refused
from excore_ray.core.reception import REFUSALS_SHARE, Reception
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import SequencerLimits
from tests.core.machines import PLAIN, START_US

SECOND_US = 1_000_000
ROOM = 800
FLOODER, OTHER = 666, 1
NO_ORDER = 4097
_numbers: Iterator[int] = count(1)


def sequencer() -> Sequencer:
    """A market that remembers few refusals."""
    market = Market()
    desk = Sequencer(market, SequencerLimits())
    desk.open(START_US, c.CreateMarket(PLAIN, 1))
    desk.reception = Reception(market.results, ROOM)
    desk.reception.epoch = market.epoch
    return desk


def told(desk: Sequencer, asks: list[c.Cancel], now_us: int) -> list[m.Answer]:
    """What a gateway is told about these."""
    tokens = [next(_numbers) for _ in asks]
    deadlines_us = [now_us + 10 * SECOND_US] * len(asks)
    epoch = desk.market.epoch
    desk.receive("gateway-1", m.Batch(epoch, tokens, deadlines_us, asks), now_us)
    sent = [m.decode(m.encode(message)) for _, message in desk.turn(now_us).sends]
    return [answer for found in sent if type(found) is m.Replies for answer in found.answers]


def cancels(user: int, order_id: int, now_us: int, count: int = 1) -> list[c.Cancel]:
    """Stamped with this time."""
    return [
        c.Cancel(b"%016d" % next(_numbers), now_us // 1000, user, order_id) for _ in range(count)
    ]


def test_one_who_is_refused_all_the_time_leaves_room_for_others() -> None:
    desk, now_us = sequencer(), START_US
    for _ in range(2 * REFUSALS_SHARE):
        answers = told(desk, cancels(FLOODER, NO_ORDER, now_us, ROOM // REFUSALS_SHARE), now_us)
        assert len(answers) == ROOM // REFUSALS_SHARE  # told at once, whatever it is
        now_us += SECOND_US
    assert told(desk, cancels(OTHER, 0, now_us), now_us) == [m.Done()]
    [refused] = told(desk, cancels(FLOODER, NO_ORDER, now_us), now_us)
    assert type(refused) is Refused
    assert refused.reason == Reason.SERVICE_TIMEOUT
    now_us += c.RESULT_KEPT_STAMPED_US + SECOND_US
    told(desk, [], now_us)
    [refused] = told(desk, cancels(FLOODER, NO_ORDER, now_us), now_us)
    assert type(refused) is Refused
    assert refused.reason == Reason.ORDER_NOT_FOUND


def test_when_all_the_room_is_taken_that_is_told() -> None:
    desk = sequencer()
    for user in range(1, REFUSALS_SHARE + 1):
        told(desk, cancels(user, NO_ORDER, START_US, ROOM // REFUSALS_SHARE), START_US)
    [refused] = told(desk, cancels(OTHER + 100, 0, START_US), START_US)
    assert type(refused) is Refused
    assert refused.reason == Reason.SERVICE_TIMEOUT


@pytest.mark.parametrize(
    ("ahead_us", "executed"), [(59 * SECOND_US, True), (60 * SECOND_US, False)]
)
def test_a_stamp_that_would_outlive_its_result_is_refused(ahead_us: int, executed: bool) -> None:
    desk = sequencer()
    [answer] = told(desk, cancels(OTHER, 0, START_US + ahead_us), START_US)
    if executed:
        assert answer == m.Done()
    else:
        assert type(answer) is Refused
        assert answer.reason == Reason.AUTHENTICATION_FAILED


def test_nothing_is_executed_again_after_a_clock_was_set_forward() -> None:
    """The clock of an incarnation lags; that of the next is right."""
    desk, now_us = sequencer(), START_US
    step_us = 95 * SECOND_US
    cancel = cancels(OTHER, 0, now_us + step_us)
    executed = told(desk, cancel, now_us).count(m.Done())
    desk, now_us = Sequencer(desk.market, SequencerLimits()), now_us + step_us + 5 * SECOND_US
    desk.open(now_us, None)
    for _ in range(3):
        known = desk.market.results.get(cancel[0].request_id) is not None
        answers = told(desk, cancel, now_us)
        executed += 0 if known else answers.count(m.Done())
        told(desk, cancels(OTHER + 1, 0, now_us), now_us)  # time goes on for the records too
        now_us += 22 * SECOND_US
    assert executed == 1
