"""The turnstile: how many requests begin in a turn of the loop, by a clock moved by hand."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from api.app import create_app
from api.turnstile import BEGUN_NS, WAIT_NS, WAITING_BYTES_MAX, Turnstile
from tests.api.gateway_world import Auth, opened, run

MS = 1_000_000


class Hall:
    """Requests that each take time when they begin.  begun: their numbers, in that order."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * MS
        self.turnstile = Turnstile(lambda: self.now_ns)
        self.begun: list[int] = []
        self.refused: list[int] = []
        self.turns = 0
        self.turn_of: dict[int, int] = {}

    async def request(self, number: int, cost_ns: int, size: int = 100) -> None:
        if not self.turnstile.free() and not await self.turnstile.wait(size):
            self.refused.append(number)
            return
        self.begun.append(number)
        self.turn_of[number] = self.turns
        self.now_ns += cost_ns

    async def crowd(self, costs_ns: list[int]) -> None:
        """All at once."""
        counting = asyncio.create_task(self._count())
        await asyncio.gather(*(self.request(*pair) for pair in enumerate(costs_ns)))
        counting.cancel()

    async def _count(self) -> None:
        while True:
            self.turns += 1
            await asyncio.sleep(0)


def test_quick_requests_all_begin_at_once() -> None:
    async def body() -> None:
        hall = Hall()
        await hall.crowd([BEGUN_NS // 100] * 100)
        assert hall.begun == list(range(100))
        assert len(set(hall.turn_of.values())) == 1

    run(body())


def test_slow_ones_begin_in_their_order_with_turns_of_the_loop_between_them() -> None:
    async def body() -> None:
        hall = Hall()
        await hall.crowd([10 * MS] * 20)
        assert hall.begun == list(range(20))
        assert hall.refused == []
        assert max(Counter(hall.turn_of.values()).values()) == 1

    run(body())


def test_of_quick_ones_that_wait_more_begin_in_a_turn() -> None:
    async def body() -> None:
        hall = Hall()
        await hall.crowd([BEGUN_NS] + [MS // 100] * 1_000)
        assert hall.begun == list(range(1_001))
        assert 1_000 // 64 <= hall.turns <= 60

    run(body())


def test_who_has_waited_too_long_is_refused_and_the_others_are_not() -> None:
    async def body() -> None:
        hall = Hall()
        await hall.crowd([10 * MS] * 100)
        # The first is in at once, and one every 10 ms until the wait is over.
        assert hall.begun == list(range(len(hall.begun)))
        assert len(hall.begun) == pytest.approx(WAIT_NS // (10 * MS), abs=2)
        assert sorted(hall.begun + hall.refused) == list(range(100))

    run(body())


def test_what_waits_is_bounded_in_bytes() -> None:
    async def body() -> None:
        hall = Hall()
        first = asyncio.create_task(hall.request(0, BEGUN_NS))
        half = WAITING_BYTES_MAX // 2
        others = [asyncio.create_task(hall.request(n, 0, half)) for n in (1, 2, 3)]
        await asyncio.gather(first, *others)
        assert (hall.begun, hall.refused) == ([0, 1, 2], [3])
        hall.now_ns += BEGUN_NS
        await hall.request(4, 0, WAITING_BYTES_MAX + 1)  # it need not wait
        assert hall.begun[-1] == 4

    run(body())


def test_it_comes_to_rest_and_bears_clients_that_leave() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def body() -> None:
        hall = Hall()
        for _ in range(20):
            costs = [chance.choice((0, MS, 20 * MS)) for _ in range(chance.randint(1, 60))]
            before = len(hall.begun) + len(hall.refused)
            tasks = [asyncio.create_task(hall.request(*pair)) for pair in enumerate(costs)]
            await asyncio.sleep(0)
            left = [task for task in tasks if chance.random() < 0.2 and task.cancel()]
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(one, asyncio.CancelledError) for one in done) == len(left)
            assert len(hall.begun) + len(hall.refused) - before == len(costs) - len(left)
            for _ in range(5):
                await asyncio.sleep(0)
            assert len(hall.turnstile) == 0
            assert hall.turnstile.free()
            await asyncio.sleep(0)

    run(body())


def test_a_gateway_refuses_unread_what_has_waited_too_long() -> None:
    async def body() -> None:
        gateway = await opened()
        moment = 0

        def clock_ns() -> int:
            nonlocal moment
            moment += 100 * MS  # whatever is done takes long
            return moment

        gateway.app = create_app(gateway.exchange, Auth(False), clock_ns)
        responses = await asyncio.gather(*(gateway.post(b"nonsense") for _ in range(12)))
        found = Counter((one.status_code, one.json()["error"]["code"]) for one in responses)
        assert set(found) == {(400, 1), (503, 3)}
        assert found[503, 3] >= 6
        refused = next(one for one in responses if one.status_code == 503)
        words = "service unavailable: too many requests at this gateway"
        assert refused.json()["error"]["message"] == words

    run(body())
