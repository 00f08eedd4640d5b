"""Strangers: whoever has no secret is told the same, for the same work, whatever they send."""

from __future__ import annotations

import random

import pytest

from api import auth
from api.keys import SECRET_BYTES
from tests.api.fake_exchange import KEYS
from tests.api.gateway_world import Gateway, now_ms, opened, run, signed

BODY = b'{"id": 5, "method": "keys.list", "params": []}'
TOLD = b'{"error":{"code":8,"message":"authentication failed"},"result":null,"id":null}'


def strangers(chance: random.Random) -> list[list[tuple[str, str]]]:
    """Headers without the secret: of known and of unknown keys, in pairs that differ in no more."""
    sign = signed(BODY)[1][1]
    wrong = f"{chance.getrandbits(512):0128x}"
    broken = "".join(chance.sample(sign, len(sign)))
    signs = [wrong, broken, sign[:-1], sign.upper(), "", "\xff" * chance.randrange(1, 300)]
    stamps = [None, str(now_ms()), "0", "x", "9" * 400, "\xff", "-1", ""]
    found = []
    for name in ("all", "read", "nobody", "", "\xff", "all\t", "x" * 3000):
        given, stamp = chance.choice(signs), chance.choice(stamps)
        headers = [("KEY", name), ("SIGN", given)]
        found.append(headers if stamp is None else [*headers, ("TIMESTAMP", stamp)])
    return found


def test_known_and_unknown_keys_are_told_the_same() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def body(gateway: Gateway) -> None:
        for raw in (BODY, b"", b"\xff", b"[" * 1000):
            for headers in strangers(chance):
                response = await gateway.http("POST", "/", raw, headers)
                assert (response.status_code, response.content) == (401, TOLD)
                told = dict(response.headers.items())
                assert told == {"content-type": "application/json", "content-length": "78"}
        assert gateway.exchange.asked == []

    async def whole() -> None:
        await body(await opened(auth=True))

    run(whole())


def test_an_unknown_key_is_as_much_work_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same digest of the same bytes, and one comparison; only the secret is nobody's."""
    work: list[tuple[int, bytes]] = []
    real = auth.signature

    def signature(secret: str, covered: bytes) -> bytes:
        work.append((len(secret), covered))
        return real(secret, covered)

    monkeypatch.setattr(auth, "signature", signature)

    async def body() -> None:
        gateway = await opened(auth=True)
        for stamp in (None, str(now_ms())):
            for key in ("nobody", "all"):
                await gateway.http("POST", "/", BODY, signed(BODY, key, stamp, secret="wrong"))
            (nobody, unknown), (_, known) = work[-2:]
            assert unknown == known
            assert nobody == 2 * SECRET_BYTES  # as long as the secrets that keys.add makes

    assert "nobody" not in KEYS
    run(body())
    assert len(work) == 4
