"""Real trades as files of a lake, through market.kline over HTTP, before and after a merge."""

from __future__ import annotations

import csv
import gzip
import json
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from analytics.lake import Lake
from tests.analytics.filled_lake import deal, lake_of_deals
from tests.system.server import Server, serving

pytestmark = pytest.mark.system

VECTORS = Path(__file__).parents[1] / "vectors" / "kline"
INTERVALS = (10, 60, 300)
MERGED_S = 60.0


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """The trades, in as many files as flushes leave."""
    with gzip.open(VECTORS / "btcusdt_deals.csv.gz", "rt") as lines:
        deals = [
            deal(n, int(Decimal(row["time"]) * 1_000_000), row["price"], row["amount"])
            for n, row in enumerate(csv.DictReader(lines), 1)
        ]
    root = tmp_path_factory.mktemp("kline") / "data" / "lake"
    return lake_of_deals(root, deals, cuts=range(0, len(deals), 777))


@pytest.fixture(scope="module")
def server(lake: Lake) -> Iterator[Server]:
    data = Path(lake.url).parent
    config = data.parent / "excore.toml"
    config.write_text("[lake]\nupkeep_s = 5.0\n")
    with serving(data, "--config", str(config)) as running:
        with running.client() as client:
            for asset in ("BTC", "USDT"):
                client.call("asset.add", asset, 20, 8, "")
            client.call("market.add", "BTC_USDT", "BTC", 8, "USDT", 8, "0.00001", "")
        yield running
        assert running.stop() == 0


def test_klines_of_real_trades_over_http(server: Server, lake: Lake) -> None:
    known = json.loads((VECTORS / "btcusdt_expected.json").read_text())["klines"]
    files = lake.manifest().files
    check(server, known)
    until = time.monotonic() + MERGED_S
    places = {(entry.table, entry.part, entry.date) for entry in files}
    while len(merged := lake.manifest().files) > len(places):
        assert time.monotonic() < until, f"{len(merged)} files are left of {len(files)}"
        time.sleep(0.2)
    assert len(files) > 4 * len(places)
    check(server, known)


def check(server: Server, known: dict[str, Any]) -> None:
    with server.client() as client:
        for interval_s in INTERVALS:
            expected = [(row[0], *map(Decimal, row[1:7])) for row in known[str(interval_s)]]
            for market in ("BTC_USDT", None):
                span = expected[0][0], expected[-1][0]
                rows = client.call("market.kline", market, *span, interval_s)
                assert {row[7] for row in rows} == {"BTC_USDT"}
                assert [(row[0], *map(Decimal, row[1:7])) for row in rows] == expected
