"""Public order flow over HTTP while markets, shards, the catalog and the gateway are killed.

The client signs with TIMESTAMP and sends the same bytes again whenever an answer is lost, so that
every answer and every balance must come out as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from excore_ray.drill.served import GATEWAY
from tests.api.test_vectors import NAMES
from tests.system.flows import Flow
from tests.system.server import Server, serving

pytestmark = pytest.mark.system

REQUESTS = 12_199  # of all flows
VICTIMS = {
    "market": ["market-1", "market-2", "market-3"],
    "ledger": ["ledger-0", "ledger-1", "ledger-2"],
    "gateway": [GATEWAY],
    "catalog": ["catalog"],
}
DURING = {"market": 4, "ledger": 4, "gateway": 4, "catalog": 2}
BETWEEN = 2  # kills of each flow's own market, and of the gateway, between two of its requests
AWAY_S = 20.0
SETTINGS = """
[compactor]
compact_s = 2.0
records_min = 200
[shell]
checkpoint_records = 50
checkpoint_spacing = 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("kills")
    # Often enough for some recoveries to begin with a snapshot, and to compare a state_hash.
    (place / "excore.toml").write_text(SETTINGS)
    config = str(place / "excore.toml")
    with serving(place / "data", "--shards", "3", "--config", config) as running:
        yield running
        assert running.stop() == 0


class Nemesis(threading.Thread):
    """Kills at certain points of the flows' progress, one or two processes at a time."""

    def __init__(self, server: Server, flows: list[Flow], seed: int) -> None:
        super().__init__(name="nemesis", daemon=True)
        self.killed: Counter[str] = Counter()
        self.error: Exception | None = None
        self.ended = threading.Event()
        self._server = server
        self._flows = flows
        self._random = random.Random(seed)

    def run(self) -> None:
        chosen = [kind for kind, count in DURING.items() for _ in range(count)]
        self._random.shuffle(chosen)
        points = sorted(self._random.sample(range(50, REQUESTS * 9 // 10), len(chosen)))
        try:
            for point, kind in zip(points, chosen, strict=True):
                while sum(flow.sent for flow in self._flows) < point:
                    if self.ended.wait(0.005):
                        return
                time.sleep(self._random.uniform(0.0, 0.02))
                self.kill(self._random.choice(VICTIMS[kind]), kind)
        except Exception as error:
            self.error = error

    def kill(self, victim: str, kind: str) -> None:
        """Kill one process, which may have to come back first."""
        until = time.monotonic() + AWAY_S
        while (pid := self._server.strike(victim)) is None:
            assert time.monotonic() < until, f"{victim} does not come back"
            time.sleep(0.02)
        self.killed[kind] += 1
        print(f"after {[flow.sent for flow in self._flows]}: {victim}, process {pid}")

    def between(self, flow: Flow, moments: dict[int, str]) -> None:
        """Have a victim killed when so many of a flow's requests are answered and none is sent."""

        async def strike() -> None:
            victim = moments.pop(flow.sent, None)
            if victim is not None:
                await asyncio.to_thread(self.kill, victim, f"{victim} between requests")

        flow.before = strike


def test_kills_change_no_answer(server: Server) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in NAMES]
        flows = [Flow(n, client, single=True) for n, client in enumerate(clients, 1)]
        for flow in flows:
            flow.prepare()
        nemesis = Nemesis(server, flows, seed)
        for flow in flows:
            victims = [f"market-{flow.market_no}"] * BETWEEN + [GATEWAY]
            nemesis.between(flow, dict(zip(rng.sample(range(1, 3000), 3), victims, strict=True)))

        async def body() -> None:
            await asyncio.gather(*(flow.play() for flow in flows))

        began = time.monotonic()
        nemesis.start()
        try:
            asyncio.run(body())
        finally:
            nemesis.ended.set()
            nemesis.join(AWAY_S)
        print(f"{dict(nemesis.killed)} killed in {time.monotonic() - began:.1f} s")
        assert nemesis.error is None
        assert sum(flow.sent for flow in flows) == REQUESTS
        assert {kind: nemesis.killed[kind] for kind in DURING} == DURING
        for flow in flows:
            flow.check_end()
    assert server.excore("audit").endswith("exact\n")
