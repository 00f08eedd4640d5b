"""Public order flow over HTTP, three markets at a time, against three shards and two gateways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.api.test_vectors import NAMES
from tests.system.flows import Flow
from tests.system.server import Server, serving

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("vectors") / "data"
    with serving(data, "--shards", "3", "--gateways", "2") as running:
        yield running
        assert running.stop() == 0


def test_public_order_flow_is_answered_as_known(server: Server) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in NAMES]
        # The first goes one request at a time, the others as many in a batch as can be.
        flows = [Flow(n, client, single=n == 1) for n, client in enumerate(clients, 1)]
        for flow in flows:
            flow.prepare()

        async def body() -> None:
            await asyncio.gather(*(flow.play() for flow in flows))

        began = time.monotonic()
        asyncio.run(body())
        sent = {flow.name: flow.sent for flow in flows}
        print(f"{sent} answered in {time.monotonic() - began:.1f} s")
        for flow in flows:
            flow.check_end()
    assert server.excore("audit").endswith("exact\n")
