"""Allowances: what a key and a user may send, by a clock that stands still unless it is moved."""

from __future__ import annotations

import random
from typing import Any

import pytest

from api.allowance import ACTING, CANCELS, Buckets
from api.app import create_app
from api.methods import METHODS
from excore_ray.actors.plan import Rate, RequestLimits
from excore_ray.core import commands as c
from excore_ray.core.catalog import Scope
from excore_ray.core.reasons import Refused
from tests.api.gateway_world import MARKET, Auth, Gateway, opened, run, signed

SECOND_NS = 1_000_000_000
MUCH = Rate(1_000_000, 1_000_000)


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_ns = 5 * SECOND_NS

    def __call__(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)


def limits(**changed: Rate) -> RequestLimits:
    """Plenty of everything but what is named."""
    plenty = dict.fromkeys(("key", "key_cancels", "user", "user_cancels"), MUCH)
    return RequestLimits(**(plenty | changed))


async def limited(auth: bool = False, **changed: Rate) -> tuple[Gateway, Hand]:
    """A gateway whose clock is moved by hand."""
    gateway, hand = await opened(), Hand()
    gateway.app = create_app(gateway.exchange, Auth(auth, limits(**changed)), hand)
    return gateway, hand


def put(user: int = 1, number: int = 7) -> dict[str, Any]:
    params = [user, MARKET, 1, "0.01", "8000", "0", "0", ""]
    return {"id": number, "method": "order.put_limit", "params": params}


def cancel(user: int = 1) -> dict[str, Any]:
    return {"id": 7, "method": "order.cancel", "params": [user, MARKET]}


def codes(replies: list[dict[str, Any]]) -> list[int]:
    """The code of each reply of a batch, 0 for a success."""
    return [reply["error"]["code"] if reply["error"] else 0 for reply in replies]


# Buckets.


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets, now_ns = Buckets(Rate(10, 3), ""), SECOND_NS
    assert [buckets.draw("a", now_ns) for _ in range(3)] == [0, 0, 0]
    assert buckets.draw("a", now_ns) == SECOND_NS // 10
    assert buckets.draw("a", now_ns) == SECOND_NS // 10, "asking made the wait longer"
    assert buckets.draw("b", now_ns) == 0
    assert buckets.draw("a", now_ns + SECOND_NS // 10 - 1) == 1
    assert buckets.draw("a", now_ns + SECOND_NS // 10) == 0
    assert buckets.draw("a", now_ns + SECOND_NS // 10) == SECOND_NS // 10
    later_ns = now_ns + 60 * SECOND_NS  # it holds no more than its burst
    assert [buckets.draw("a", later_ns) > 0 for _ in range(4)] == [False, False, False, True]


def test_buckets_give_what_a_naive_count_of_tokens_gives() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(30):
        per_s, burst = chance.choice((0.5, 1, 4, 1000)), chance.randint(1, 20)
        buckets, now_ns = Buckets(Rate(per_s, burst), ""), SECOND_NS
        tokens: dict[int, tuple[float, int]] = {}
        for _ in range(500):
            now_ns += chance.choice((0, 0, 1, 3, 1000)) * round(SECOND_NS / per_s / 4)
            name = chance.randint(1, 3)
            held, since_ns = tokens.get(name, (float(burst), now_ns))
            held = min(burst, held + (now_ns - since_ns) * per_s / SECOND_NS)
            granted = held > 1 - 1e-6
            tokens[name] = (held - granted, now_ns)
            assert (buckets.draw(name, now_ns) == 0) == granted


def test_who_waits_as_told_is_served() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(200):
        buckets = Buckets(Rate(chance.uniform(0.01, 1e9), chance.randint(1, 5)), "")
        now_ns = chance.randrange(10**15)
        for _ in range(20):
            wait_ns = buckets.draw(1, now_ns)
            if wait_ns:
                now_ns += wait_ns
                assert buckets.draw(1, now_ns) == 0


def test_idle_buckets_are_forgotten_and_none_that_is_not_full() -> None:
    buckets, now_ns = Buckets(Rate(100, 200), ""), 0
    assert [buckets.draw(0, now_ns) for _ in range(200)] == [0] * 200
    longest = 0
    for user in range(1, 100_000):
        now_ns += SECOND_NS // 1000
        buckets.draw(user, now_ns)
        longest = max(longest, len(buckets))
        if user == 1500:  # three quarters of the way back to full
            assert sum(buckets.draw(0, now_ns) == 0 for _ in range(200)) == 150
    assert longest <= 2 * 2_000 + 2


# What they are drawn for.


def test_all_methods_that_change_something_for_a_user_draw_on_him() -> None:
    changing = {name for name, method in METHODS.items() if method.scope != Scope.READ}
    of_a_user = {name for name in changing if "user_id" in first_parameter(name)}
    assert of_a_user == ACTING
    assert CANCELS < ACTING


def first_parameter(name: str) -> str:
    """What a method says when it is given nothing."""
    missing = METHODS[name].signature.check([])
    return missing.detail if isinstance(missing, Refused) else ""


def test_a_batch_is_refused_from_where_the_tokens_end_and_says_when_to_come_again() -> None:
    async def body() -> None:
        gateway, hand = await limited(user=Rate(2, 3))
        replies = (await gateway.post([put(number=n) for n in range(5)])).json()
        assert codes(replies) == [0, 0, 0, 9, 9]
        assert [reply["id"] for reply in replies] == [0, 1, 2, 3, 4]
        words = "too many requests: 2 requests/s for one user; try again in 0.5 s"
        assert replies[3]["error"]["message"] == words
        assert len(gateway.exchange.asked) == 3
        hand.wait(0.5)
        assert codes((await gateway.post([put(), put()])).json()) == [0, 9]

    run(body())


def test_one_user_takes_nothing_from_another() -> None:
    async def body() -> None:
        gateway, _ = await limited(user=Rate(1, 2))
        replies = (await gateway.post([put(1), put(1), put(1), put(2), put(1), put(2)])).json()
        assert codes(replies) == [0, 0, 9, 0, 9, 0]

    run(body())


def test_who_is_out_of_tokens_can_still_cancel() -> None:
    async def body() -> None:
        gateway, _ = await limited(
            key=Rate(1, 4), user=Rate(1, 2), key_cancels=Rate(1, 3), user_cancels=Rate(1, 2)
        )
        batch = [put(), put(), put(), put(), put(), cancel(), cancel(), cancel(), cancel(2)]
        replies = (await gateway.post(batch)).json()
        # Two for the user, two more of the key's that met an empty bucket of the user's.
        assert codes(replies) == [0, 0, 9, 9, 9, 0, 0, 9, 9]
        messages = [reply["error"]["message"] for reply in replies if reply["error"]]
        assert [message.partition(";")[0] for message in messages] == [
            "too many requests: 1 requests/s for one user",
            "too many requests: 1 requests/s for one user",
            "too many requests: 1 requests/s of one key",
            "too many requests: 1 cancels/s for one user",
            "too many requests: 1 cancels/s of one key",
        ]

    run(body())


def test_a_single_request_is_429_and_says_so_in_a_header() -> None:
    async def body() -> None:
        gateway, hand = await limited(key=Rate(0.4, 1))
        assert (await gateway.post(put())).status_code == 200
        for waited, seconds in ((0.0, "3"), (1.0, "2"), (1.0, "1")):
            hand.wait(waited)
            response = await gateway.post(put())
            assert response.status_code == 429
            assert response.headers["retry-after"] == seconds
            assert (response.json()["error"]["code"], response.json()["id"]) == (9, 7)
        hand.wait(0.5)
        response = await gateway.post(put())
        assert response.status_code == 200
        assert "retry-after" not in response.headers

    run(body())


NONSENSE = [b"{", b"[1]", b'{"id": 1, "method": "no.such", "params": []}', b"[]"]


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_draws_on_the_key_too(nonsense: bytes) -> None:
    async def body() -> None:
        gateway, _ = await limited(key=Rate(1, 2))
        for expected in (False, False, True):
            reply = (await gateway.post(nonsense)).json()
            error = (reply[0] if isinstance(reply, list) else reply)["error"]
            assert (error["code"] == 9) == expected

    run(body())


@pytest.mark.parametrize("user", [0, -1, 2**32, 2**70, "1", 1.5, True, None, [], {}])
def test_who_can_be_no_user_has_no_bucket(user: Any) -> None:
    async def body() -> None:
        gateway, _ = await limited(user=Rate(1, 1))
        for _ in range(3):
            reply = (await gateway.post(put(user))).json()
            assert reply["error"]["code"] in (1, 6)

    run(body())


def test_each_key_has_its_own_and_only_its_owner_draws_on_it() -> None:
    async def body() -> None:
        gateway, _ = await limited(auth=True, key=Rate(1, 2))
        request = b'{"id": 5, "method": "market.list", "params": []}'
        for _ in range(5):
            stranger = signed(request, "all", secret="not the secret of all")
            assert (await gateway.post(request, stranger)).status_code == 401
        statuses = [(await gateway.post(request, signed(request, "all"))).status_code]
        for key in ("all", "all", "read"):
            statuses.append((await gateway.post(request, signed(request, key))).status_code)
        assert statuses == [200, 200, 429, 200]

    run(body())


def test_reads_draw_on_the_key_alone_and_updates_on_the_user_too() -> None:
    async def body() -> None:
        gateway, _ = await limited(user=Rate(1, 1))
        update = ["balance.update", 1, "BTC", "deposit"]
        for _ in range(3):
            await gateway.ask("balance.query", 1)
        await gateway.ask(*update, 2, "1", {})
        assert (await gateway.refusal(*update, 3, "1", {}))[:2] == (429, 9)
        assert [type(ask) for _, ask in gateway.exchange.asked].count(c.Update) == 1
        await gateway.ask("balance.query", 1)

    run(body())


def test_the_defaults_let_through_what_a_gateway_can_carry() -> None:
    async def body() -> None:
        gateway = await opened()
        hand = Hand()
        gateway.app = create_app(gateway.exchange, Auth(False), hand)
        for _ in range(10):
            assert not any(codes((await gateway.post([put(1)] * 1000)).json()))
            hand.wait(0.02)  # 50,000/s

    run(body())
