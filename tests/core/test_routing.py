"""Routing at overload: what cannot be answered in time is refused when it is asked.

An actor of a certain speed answers in the order of asking; time passes in steps of 10 ms.
"""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest

from excore_ray.core import messages as m
from excore_ray.core.reasons import OVERLOADED, Reason, Refused
from excore_ray.core.routing import Router, RouterLimits
from tests.core.machines import cancel

STEP_US = 10_000
SECOND_US = 1_000_000
STEPS_A_SECOND = SECOND_US // STEP_US
DEADLINE_US = 10 * SECOND_US
LIMITS = RouterLimits()
QUESTION = m.AskCounts()
DONE = m.Done()


class Line:
    """A router, and an actor that answers `speed` requests a second, oldest first.

    waited_us: how long each answered request took.  at_once: refused when it was asked.
    late: refused after a wait, by the reason.
    """

    def __init__(self, speed: int, limits: RouterLimits = LIMITS) -> None:
        self.router = Router(limits)
        self.router.connected("market-1")
        self.speed = speed
        self.queue_max = 10**9
        self.now_us = SECOND_US
        self.waited_us: list[int] = []
        self.at_once = 0
        self.late: Counter[Reason] = Counter()
        self._inbox: deque[int] = deque()
        self._known: set[int] = set()
        self._credit = 0

    @property
    def waiting(self) -> int:
        return len(self.router.route("market-1").unanswered)

    def ask(self, count: int, ask: m.Ask = QUESTION) -> int:
        """Ask so often; how many were taken in."""
        before = self.waiting
        for _ in range(count):
            self.router.ask("market-1", ask, self._deliver, self.now_us, self.now_us)
        return self.waiting - before

    def run(self, seconds: float, arrivals_a_second: int) -> None:
        """Let time pass while requests arrive evenly."""
        arrived = 0
        for step in range(round(seconds * STEPS_A_SECOND)):
            due = (step + 1) * arrivals_a_second // STEPS_A_SECOND
            self.ask(due - arrived)
            arrived = due
            self.step()

    def step(self) -> None:
        """10 ms of both sides."""
        tokens: list[int] = []
        answers: list[m.Answer] = []
        taken = 0
        for _, message in self.router.flush(self.now_us):
            assert type(message) is m.Batch
            taken += 1
            # One that is sent again is known.
            fresh = [token for token in message.tokens if token not in self._known]
            room = self.queue_max - len(self._inbox)
            self._inbox.extend(fresh[:room])
            self._known.update(fresh[:room])
            tokens += fresh[room:]
            answers += [OVERLOADED] * len(fresh[room:])
        self._credit = min(self._credit + self.speed, max(self.speed, STEPS_A_SECOND))
        while self._inbox and self._credit >= STEPS_A_SECOND:
            self._credit -= STEPS_A_SECOND
            tokens.append(self._inbox.popleft())
            answers.append(DONE)
        self.router.receive("market-1", m.Replies(1, tokens, answers, taken))
        self.now_us += STEP_US
        self.router.tick(self.now_us)

    def _deliver(self, asked_us: int, answer: m.Answer) -> None:
        if type(answer) is not Refused:
            self.waited_us.append(self.now_us - asked_us)
        elif asked_us == self.now_us:
            assert answer.reason == Reason.SERVICE_UNAVAILABLE
            self.at_once += 1
        else:
            self.late[answer.reason] += 1


@pytest.mark.parametrize("speed", [25, 100, 1_000, 2_000])
def test_at_three_times_capacity_all_that_is_taken_in_is_answered_in_time(speed: int) -> None:
    line = Line(speed)
    line.run(30, 3 * speed)
    line.waited_us.clear()
    line.at_once, line.late = 0, Counter()
    line.run(60, 3 * speed)
    assert not line.late
    assert max(line.waited_us) <= 3 * SECOND_US
    assert len(line.waited_us) == pytest.approx(60 * speed, rel=0.02)
    assert line.at_once == pytest.approx(120 * speed, rel=0.05)


def test_afterwards_everything_is_as_before() -> None:
    line = Line(1_000)
    line.run(20, 5_000)
    line.run(20, 0)
    assert line.waiting == 0
    line.waited_us.clear()
    line.at_once, line.late = 0, Counter()
    line.run(10, 900)
    assert (line.at_once, line.late) == (0, Counter())
    assert max(line.waited_us) <= 2 * STEP_US
    assert line.ask(9_000) == 9_000


@pytest.mark.parametrize("quiet", [1, 10, 100])
def test_a_burst_after_quiet_is_not_taken_for_overload(quiet: int) -> None:
    line = Line(10_000)
    for _ in range(20):
        line.run(1.3, quiet)
        assert line.ask(9_000) == 9_000
        line.run(2, quiet)
    assert (line.at_once, line.late) == (0, Counter())


def test_a_slow_answer_is_not_taken_for_overload() -> None:
    line = Line(0)  # a shard that does not answer holds up the one who asked, and nobody else
    line.run(5, 9)
    assert line.ask(9_000) == 9_000


def test_what_waits_for_an_actor_that_is_away_is_not_judged() -> None:
    line = Line(10_000)
    line.run(2, 1_000)
    line.router.disconnected("market-1")
    for _ in range(3 * STEPS_A_SECOND):
        line.ask(30)
        line.step()
    assert line.waiting == 9_000
    line.router.connected("market-1")
    line.run(2, 1_000)
    assert (line.at_once, line.late) == (0, Counter())


def test_one_that_does_nothing_is_found_out() -> None:
    line = Line(0)
    line.run(4, 500)
    taken = line.ask(1_000)
    assert taken == 0
    line.speed = 10_000
    line.run(10, 500)
    assert line.ask(9_000) == 9_000


def test_the_number_is_bounded_too_and_cancels_are_taken_beyond() -> None:
    line = Line(0, RouterLimits(waiting_max=100))
    assert line.ask(500) == 100
    assert line.ask(500, cancel(1)) == 50
    assert line.at_once == 850


def test_less_is_sent_to_one_that_says_it_is_overloaded() -> None:
    line = Line(4_000)
    line.queue_max = 2_000
    line.run(5, 12_000)
    refused_before, answered = line.late[Reason.SERVICE_UNAVAILABLE], len(line.waited_us)
    line.run(10, 12_000)
    assert len(line.waited_us) - answered == pytest.approx(40_000, rel=0.05)
    # Most are refused here, and do not travel to be refused there.
    assert line.late[Reason.SERVICE_UNAVAILABLE] - refused_before < line.at_once // 3


def test_whatever_happens_each_is_answered_once_and_in_time() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    limits = RouterLimits(deadline_us=SECOND_US, resend_us=200_000, waiting_max=400)
    line, asked = Line(100, limits), 0
    for _ in range(300):
        match chance.randrange(5):
            case 0:
                line.router.disconnected("market-1")
            case 1:
                line.router.connected("market-1")
            case 2:
                line.speed = chance.choice((0, 50, 1_000, 20_000))
            case _:
                count = chance.randint(0, 300)
                line.ask(count)
                asked += count
        for _ in range(chance.randint(0, 60)):
            line.step()
        assert line.waiting <= 400
    line.router.tick(line.now_us + limits.deadline_us)
    assert line.waiting == 0
    assert len(line.waited_us) + line.at_once + line.late.total() == asked
    assert max(line.waited_us) <= limits.deadline_us
