"""Limits of an operator's settings, in force in a running exchange."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import pytest

from api.client import Client, ExcoreRpcError
from tests.system.server import Server, serving

pytestmark = [pytest.mark.system, pytest.mark.slow]

SETTINGS = """
[limits.user]
per_s = 0.001
burst = 9
[market]
user_orders_max = 2
[http]
connections_max = 3
head_s = 60.0
"""
PUT = "order.put_limit", 2, "A_B", 1, "1", "10", "0", "0", ""


def prepare(client: Client) -> None:
    client.call("asset.add", "A", 12, 8, "")
    client.call("asset.add", "B", 12, 8, "")
    client.call("market.add", "A_B", "A", 4, "B", 4, "1", "")
    client.call("balance.update", 2, "A", "deposit", 1, "100", {})


def test_limits_of_the_settings_are_in_force(tmp_path: Path) -> None:
    config = tmp_path / "excore.toml"
    config.write_text(SETTINGS)
    with serving(tmp_path / "data", "--config", str(config)) as server, server.client() as client:
        prepare(client)
        for _ in range(2):
            client.call(*PUT)
        with pytest.raises(ExcoreRpcError, match="9: too many requests: open orders: 2 of a user"):
            client.call(*PUT)
        client.call("order.cancel", 2, "A_B")
        for _ in range(2):
            client.call(*PUT)
        assert client.call("market.summary", "A_B")[0]["ask_count"] == 2
        refused = client.batch([PUT] * 6)
        # One deposit, five orders, and three of these are nine.
        messages = [str(error) for error in refused]
        assert all("open orders: 2" in message for message in messages[:3])
        assert all("0.001 requests/s for one user" in message for message in messages[3:])
        client.call("order.cancel", 2, "A_B")  # it has an allowance of its own
        assert client.call("market.summary", "A_B")[0]["ask_count"] == 0
        slow_ones_crowd_out_each_other(server, client)
        assert server.excore("audit").endswith("exact\n")
        assert server.stop() == 0


def slow_ones_crowd_out_each_other(server: Server, client: Client) -> None:
    """However many there are, the client that is known, and new ones, go on."""
    address = "127.0.0.1", int(server.url.rpartition(":")[2])
    silent = [socket.create_connection(address) for _ in range(20)]
    try:
        assert client.call("market.list")["records"]
        with httpx.Client() as other:
            health = other.get(f"{server.url}/health")
            assert json.loads(health.content)["error"] is None
    finally:
        for line in silent:
            line.close()
