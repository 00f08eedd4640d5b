"""Entries: what markets emitted in their replays, held against what shards journaled as received.

Separate because it is the one thing that is written twice in full, by two actors in two journals:
a leg, a fee or a release that differs by one unit shows here, whatever sums still come out even.
It must not know states.

Entries are compared by sums of digests over blocks of entry numbers: memory is a few integers a
block, whatever came in which order.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import msgspec

from excore_ray.core import commands as c
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market

BLOCK = 1_024

Pair = tuple[int, int]  # market_no, shard
_encode = msgspec.json.Encoder().encode


class Digests:
    """Sums of the digests of numbered entries, in blocks of BLOCK numbers."""

    def __init__(self) -> None:
        self._sums: dict[int, int] = defaultdict(int)

    def add(self, number: int, entry: c.Entry) -> None:
        """Count an entry in."""
        digest = hashlib.blake2b(_encode(entry), digest_size=12, salt=number.to_bytes(8, "big"))
        self._sums[number // BLOCK] += int.from_bytes(digest.digest(), "big")

    def first_difference(self, other: Digests) -> int | None:
        """The first number of the first block in which two differ, None when none does."""
        blocks = sorted(self._sums.keys() | other._sums.keys())
        return next((b * BLOCK for b in blocks if self._sums[b] != other._sums[b]), None)


class Exchanged:
    """All pairs of a market and a shard, of which both are replayed.

    compared: entries that both had.  Shards are replayed before markets, whose last entries may
    not have arrived.
    """

    def __init__(self) -> None:
        self.compared = 0
        self._from: dict[Pair, int] = defaultdict(int)  # both replays begin at or before it
        self._received: dict[Pair, Digests] = defaultdict(Digests)
        self._emitted: dict[Pair, Digests] = defaultdict(Digests)
        self._applied: dict[Pair, int] = {}

    def begin(self, machine: Market | Ledger) -> None:
        """A replay begins in this state."""
        if type(machine) is Market:
            for shard, box in enumerate(machine.outboxes):
                self._raise_start((machine.rules.market_no, shard), box.out_seq)
        else:
            assert type(machine) is Ledger
            for market_no, link in machine.links.items():
                self._raise_start((market_no, machine.shard), link.applied)

    def listen_to_shard(self, ledger: Ledger) -> None:
        """Take note of all that this shard applies from now on."""
        settle = ledger.handlers[c.Settle]

        def listen(command: c.Settle) -> Any:
            pair = command.market_no, ledger.shard
            start, received = self._from[pair], self._received[pair]
            for number, entry in enumerate(command.entries, command.first_out_seq):
                if number > start:
                    received.add(number, entry)
            return settle(command)

        ledger.handlers[c.Settle] = listen

    def end_shard(self, ledger: Ledger) -> None:
        """The replay of a shard is over; of its markets nothing beyond this is compared."""
        for market_no, link in ledger.links.items():
            self._applied[market_no, ledger.shard] = link.applied

    def take(self, market: Market, emitted: list[int]) -> None:
        """Take note of what a market has emitted since the last time.

        emitted: the newest entry of each shard then; is brought up to now.
        """
        for shard, box in enumerate(market.outboxes):
            if shard == len(emitted):
                emitted.append(0)
            if box.out_seq == emitted[shard]:
                continue
            pair = market.rules.market_no, shard
            start, end = self._from[pair], self._applied.get(pair, 0)
            fresh, _ = box.after(emitted[shard], box.out_seq - emitted[shard])
            for number, entry in enumerate(fresh, emitted[shard] + 1):
                if start < number <= end:
                    self._emitted[pair].add(number, entry)
            emitted[shard] = box.out_seq

    def compare(self, pair: Pair) -> str:
        """What is wrong between a market and a shard, "" when nothing is."""
        start, end = self._from[pair], self._applied.get(pair, 0)
        self.compared += max(0, end - start)
        block = self._emitted[pair].first_difference(self._received[pair])
        if block is None:
            return ""
        first, last = max(block, start + 1), min(block + BLOCK - 1, end)
        return f"of the entries {first} to {last} not all are in its journal as they were emitted"

    def _raise_start(self, pair: Pair, number: int) -> None:
        self._from[pair] = max(self._from[pair], number)
