"""The dispatcher under fuzz, and what fuzzing has found: `python -m tests.fuzz` runs millions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from api.assets import balance_update
from api.methods import METHODS, Barrier
from api.params import shown
from api.replies import SUCCESS
from excore_ray.core import messages as m
from excore_ray.core.reads import answer_market_query
from excore_ray.core.reasons import Reason, Refused
from tests.fuzz import inside, replies
from tests.fuzz.cases import Case, Cases

KINDS = {"right", "params", "envelope", "bytes", "batch", "nested", "large", "thousand"}


def assert_kept(report: inside.Report) -> None:
    told = [(f.seed, f.number, f.what, f.case.body[:300]) for f in report.failures]
    assert told == []


def test_every_body_gets_its_reply_and_a_refused_one_changes_nothing() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    report = inside.run(seed, 5_000)
    assert_kept(report)
    assert report.cases == 5_000
    assert 2_000 < report.refused < 4_800
    assert set(report.kinds) >= KINDS - {"large", "thousand"}
    assert set(report.codes) >= {1, 4, 6, 7, 11, 12, 13, 21, 22, 23, 25, 26, 27, 41, 42, 43}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_fifty_thousand_bodies(seed: int) -> None:
    report = inside.run(seed, 50_000)
    assert_kept(report)
    assert set(report.kinds) == KINDS


def test_every_method_is_fuzzed_and_most_are_answered() -> None:
    """What is called right is: else only the first check of each method would be fuzzed."""
    cases = Cases("right")
    assert cases.requests.makers.keys() == METHODS.keys()
    answered: set[str] = set()

    async def body() -> None:
        episode = inside.Episode("right", inside.Report())
        await episode.open()
        for method in [*METHODS] * 20:
            params = ",".join(cases.requests.params(method))
            case = Case("right", f'{{"id":7,"method":"{method}","params":[{params}]}}'.encode())
            before = episode.report.refused
            await episode.step(case)
            if episode.report.refused == before:
                answered.add(method)
        assert_kept(episode.report)
        await episode.town.exchange.close(0.1)

    asyncio.run(body())
    assert answered >= METHODS.keys() - {"keys.revoke"}


# Each has fallen once.
FALLEN = [
    b'{"id":1,"method":"order.pending","params":[6,"BTCBCH",9223372036854775807,100]}',
    b'{"id":1,"method":"order.book","params":["BTCBCH",1,9223372036854775807,100]}',
    b'{"id":1,"method":"asset.add","params":["A",8,%b,""]}' % (b"1" * 4300),
    b'{"id":1,"method":"market.add","params":["M","BTC",-%b,"BCH",8,"1",""]}' % (b"9" * 400),
    b'{"id":1,"method":"market.add","params":["M","BTC",8,"BCH",%b,"1",""]}' % (b"9" * 4300),
    b'{"id":1,"method":"market.add","params":["M","%b",8,"BCH",8,"1",""]}' % (b"x" * 9000),
    b'{"id":1,"method":"market.rename","params":["%b","M"]}' % (b"x" * 9000),
    b'{"id":1,"method":"keys.revoke","params":["%b"]}' % (b"x" * 9000),
    b'{"id":1,"method":"balance.history","params":[1,"","%b",0,0,0,1]}' % (b"x" * 9000),
]


@pytest.mark.parametrize("raw", FALLEN, ids=lambda raw: raw[:60].decode())
def test_what_fell_stands(raw: bytes) -> None:
    async def body() -> None:
        episode = inside.Episode("fallen", inside.Report())
        await episode.open()
        await episode.step(Case("fallen", raw))
        assert episode.town.death is None
        episode.town.check()
        assert_kept(episode.report)
        await episode.town.exchange.close(0.1)

    asyncio.run(body())


def test_a_number_of_thousands_of_digits_is_not_written_out() -> None:
    assert shown(10**4000) == "a huge integer"
    assert shown(-(10**4000)) == "a huge integer"
    assert shown(10**50) == "1" + "0" * 39 + "..."


# The judge, judged: each of these must be found.


def planted(monkeypatch: pytest.MonkeyPatch, method: str, answer: Callable[..., Any]) -> None:
    """Have `method` answered by `answer`."""

    async def answering(call: Any, index: int, params: list[Any]) -> Any:
        return answer(call, params)

    planned = METHODS[method]
    changed = Barrier(planned.scope, planned.signature, answering)
    monkeypatch.setitem(METHODS, method, changed)


def found() -> str:
    report = inside.run(1, 2_000, failures_max=1)
    assert report.failures, "the defect was not found"
    return report.failures[0].what


def test_an_internal_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "market.list", lambda call, params: params[5])
    assert "code 2" in found()


def test_a_secret_in_a_reply_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "keys.list", lambda call, params: [*call.names.credential_by_key.values()])
    assert "secret" in found()


def test_a_trace_in_a_reply_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = 'Traceback (most recent call last):\n  File "x", line 1'
    wrong = Refused(Reason.INVALID_ARGUMENT, trace)
    planted(monkeypatch, "market.list", lambda call, params: wrong)
    assert "trace" in found()


def test_an_actor_that_ends_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(market: Any, ask: Any) -> m.Answer:
        assert type(ask) is not m.AskDepth
        return answer_market_query(market, ask)

    monkeypatch.setattr("excore_ray.core.sequencer.answer_market_query", answer)
    assert "an actor has ended" in found()


def test_a_refusal_that_changes_something_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    update = METHODS["balance.update"]

    async def answering(call: Any, index: int, params: list[Any]) -> Any:
        result = await balance_update(call, index, params)
        done = result is SUCCESS
        return Refused(Reason.BALANCE_NOT_ENOUGH) if done else result

    monkeypatch.setattr(inside, "DEPOSITS", ())
    changed = Barrier(update.scope, update.signature, answering)
    monkeypatch.setitem(METHODS, "balance.update", changed)
    assert "has changed something" in found()


@pytest.mark.parametrize(
    ("status", "reply", "what"),
    [
        (200, b"", "no reply"),
        (200, b"<html>", "no reply"),
        (200, b'{"error":null,"result":1}', "no reply"),
        (200, b'{"error":null,"result":1,"id":7,"more":1}', "no reply"),
        (200, b'{"error":null,"result":1,"id":8}', "ids"),
        (200, b'{"error":null,"result":1,"id":null}', "ids"),
        (500, b'{"error":null,"result":1,"id":7}', "HTTP 500"),
        (200, b'{"error":{"code":1,"message":"invalid argument"},"result":null,"id":7}', "HTTP"),
        (400, b'{"error":{"code":1,"message":"invalid argument"},"result":1,"id":7}', "beside"),
        (400, b'{"error":{"code":99,"message":"invalid argument"},"result":null,"id":7}', "table"),
        (400, b'{"error":{"code":1,"message":"oh no"},"result":null,"id":7}', "table"),
        (500, b'{"error":{"code":2,"message":"internal error"},"result":null,"id":7}', "code 2"),
        (200, b'[{"error":null,"result":1,"id":7},{"error":null,"result":1,"id":7}]', "ids"),
    ],
)
def test_a_reply_that_is_none_is_found(status: int, reply: bytes, what: str) -> None:
    with pytest.raises(replies.Broken, match=what):
        replies.check(Case("right", b"7", (7,)), status, reply, inside.NEVER)
