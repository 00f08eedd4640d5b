"""The lake: its making, what questions to it take, and what keeping it costs the exchange.

`python -m tests.bench.lake [--deals N] [--keep DIR]`: makes a lake, starts an exchange on it, and
prints tables.  Writes nothing but a temporary directory, or DIR, whose lake is used again when it
is there.  Trust ratios within one run, not figures of different runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from analytics.lake import Lake
from api.client import Client
from tests.bench import http, lake_asked, lake_fed, lake_made

DEALS = 1_000_000
PARTS = ("asked", "alone", "slowdown")
MIB = 1 << 20


def made_lake(folder: Path, deals: int) -> Lake:
    """The lake in `folder`, made unless it is there; prints what it took and what it holds."""
    lake = Lake(str(folder / "lake"))
    if not lake_made.is_made(lake.manifest()):
        made = lake_made.make(lake, deals)
        rows = sum(made.rows.values())
        print(
            f"made {rows:,} rows: {rows / made.write_s:,.0f} rows/s flushed,"
            f" {rows / made.compact_s:,.0f} rows/s compacted"
        )
    print(
        f"{'after compaction':16}{'files':>8}{'rows':>14}{'smallest':>12}{'largest':>12}{'MiB':>10}"
    )
    files = lake.manifest().files
    for table in dict.fromkeys(entry.table for entry in files):
        of_table = [entry for entry in files if entry.table == table]
        sizes = [entry.bytes / MIB for entry in of_table]
        rows = sum(entry.rows for entry in of_table)
        figures = f"{len(sizes):8,}{rows:14,}{min(sizes):12.2f}{max(sizes):12.2f}"
        print(f"{table:16}{figures}{sum(sizes):10,.0f}", flush=True)
    return lake


def lend(lake: Lake, data: Path) -> None:
    """Give a data directory the lake: the same files under other names, to be let go of."""
    target = data / "lake"
    for entry in lake.manifest().files:
        place = target / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        # A file of a lake is never written again, only removed.
        os.link(f"{lake.url}/{entry.path}", place)
    shutil.copy(f"{lake.url}/manifest.json", target)


def define(client: Client) -> None:
    """Assets and markets with the numbers that the made lake has for them, and one to trade in."""
    client.call("asset.add", "BTC", 20, 8, "")
    client.call("asset.add", "USDT", 20, 8, "")
    for number in range(1, lake_made.MARKETS + 1):
        client.call("market.add", f"M{number}", "BTC", 8, "USDT", 8, "0.001", "")
    client.call("market.add", "M0", "BTC", 8, "USDT", 8, "0.001", "")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.lake", description=__doc__)
    parser.add_argument("--deals", type=int, default=DEALS, help="of the made lake")
    parser.add_argument("--keep", type=Path, help="where to make it, and to leave it")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--requests", type=int, default=100, help="of each kind of question")
    parser.add_argument("--pairs", type=int, default=4, help="of runs with and without archive")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="excore-bench-") as temporary:
        folder = told.keep.absolute() if told.keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        lake = made_lake(folder, told.deals)
        if "alone" in told.parts:
            lake_fed.archive_alone(Path(temporary) / "alone", min(300_000, told.deals // 10))
        if {"asked", "slowdown"}.isdisjoint(told.parts):
            return
        # Beside the lake, because links do not reach into other file systems.
        with tempfile.TemporaryDirectory(prefix="exchange-", dir=folder) as beside:
            data = Path(beside) / "data"
            lend(lake, data)
            with http.exchange_on(data, []) as server, server.client() as client:
                define(client)
                if "asked" in told.parts:
                    lake_asked.compare(server, lake_asked.look(lake), told.requests)
                if "slowdown" in told.parts:
                    http.pay_in(client)
                    lake_fed.slowdown(server, told.pairs, 60_000)


if __name__ == "__main__":
    main()
