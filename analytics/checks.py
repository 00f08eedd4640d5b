"""Checks: whether a lake agrees with itself, recomputed from its rows alone.

Separate because no question needs it, and because it trusts none of them: it compares what was
written twice, by market and by ledger, and what was summed with what it was summed from.  It must
not know journals, nor repair anything.

    definitions  every market and asset that rows speak of is in the manifest
    deal_ids     the deals of a market have each id once, from the first one kept, without a gap
    deal_times   and are in the order of time
    deal_money   deal = price * amount
    orders       a finished order's sums are those of its deals; left is what was not dealt
    postings     a deal has exactly its rows in the balances, with its amounts; no row is without
    chain        each balance is the one before and the change; an account starts from 0
    sums         per asset: what the accounts hold + fees = net updates, see below
    bars         each minute is as its deals make it

Streams come into the lake one by one, so any may be ahead of any other, and old rows may be gone.
Compared is what must be there by all that is there; sql/check_begin.sql says what that is.  What
cannot be told: of a user without any row in the balances, whether rows are missing, and whether
an order is missing that may still be open.

The sums of one asset.  A row of a deal is paid, received, fee or share (of a fee, for a
referrer).  What is paid on one side of a deal is received on the other, so these cancel; fees
collected are -fee - share; what accounts gained is the sum of all rows.  So, exactly,

    held + fees collected = updates + before + open

where `before` is what accounts held when the kept rows begin, 0 for a whole lake, and `open` is
what was paid and received in deals at the ends, whose rows are not all there.

Source: ARCHITECTURE.md, invariants; excore_ray/core/settlement.py for the rows of a deal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from decimal import Context, Decimal
from importlib.resources import files
from typing import NamedTuple

import duckdb

from analytics.warehouse import ask

EXAMPLES_MAX = 5

# Where a check is in all its work: its name, parts done, parts in all.
Progress = Callable[[str, int, int], None]

_MACROS = "exact begin definitions deals orders postings chain sums bars".split()
_UNITS = 10**20  # of a QUANTITY: what its last digit counts
# Whole and fraction of a total have up to 58 digits, see history.
_EXACT = Context(prec=80)


class Finding(NamedTuple):
    """One kind of disagreement.

    check: its name, see above.  what: a clause.  times: how often.  examples: where, at most
    EXAMPLES_MAX, the first in their order.
    """

    check: str
    what: str
    times: int
    examples: tuple[str, ...]


class _Found:
    """Findings while they are gathered, piece by piece."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = defaultdict(int)
        self._examples: dict[tuple[str, str], list[str]] = defaultdict(list)

    def add(self, check: str, what: str, examples: list[str], count: int = 1) -> None:
        """So many more of a kind; examples: some of them."""
        key = check, what
        self._counts[key] += count
        self._examples[key] += examples[: EXAMPLES_MAX - len(self._examples[key])]

    def findings(self) -> list[Finding]:
        """One for each kind, in the order they were met."""
        return [
            Finding(*key, count, tuple(self._examples[key])) for key, count in self._counts.items()
        ]


class _Pieces(NamedTuple):
    """How the rows of a check are cut, so that what belongs together is in one piece.

    rows: a view, or a query in brackets.  key: a whole number of each row.  grain: how many
    neighbouring keys always stay together.  rows_max: of a piece, save for one grain that has
    more.
    """

    rows: str
    key: str
    grain: int
    rows_max: int


_ONCE = _Pieces("(SELECT 0 AS zero)", "zero", 1, 1)
_BY_DEAL = _Pieces("deals", "deal_id", 4_096, 500_000)
_BY_ORDER = _Pieces("orders", "order_id", 4_096 * 4_096, 1_000_000)
_BY_USER = _Pieces("balances", '"user"', 1, 2_000_000)
_BY_DAY = _Pieces(
    "(SELECT date FROM deals UNION ALL SELECT date FROM bars)",
    "(date - DATE '1970-01-01')",
    1,
    10_000_000,
)
# Python sees each of these deals, as integers.
_DEAL_BY_DEAL = _BY_DEAL._replace(rows_max=100_000)

Piece = tuple[int, int]


def check(connection: duckdb.DuckDBPyConnection, progress: Progress | None = None) -> list[Finding]:
    """What is wrong with the lake that a connection of `warehouse.connect` shows; empty: nothing.

    The connection must not be refreshed meanwhile.  LakeError names a file that is missing or
    cannot be read.  Cost: each table is read a few times, and once more for each piece that
    statistics cannot keep apart.  Memory: of a piece, some million rows at most unless one user
    has more, and a few dozen bytes for each user there is; DuckDB goes on in its temp_directory
    when that is more than its memory_limit.
    """
    cursor = connection.cursor()
    try:
        for name in _MACROS:
            text = files("analytics").joinpath("sql", f"check_{name}.sql").read_text("utf-8")
            ask(cursor, text)
        return _run(cursor, progress or _quiet)
    finally:
        cursor.close()


def begins_late(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """What `check` leaves out because older rows are gone, as sentences; empty for a whole lake."""
    markets = ask(
        connection,
        "SELECT coalesce(any_value(market), market_no::VARCHAR), min(deal_id) FROM deals"
        " GROUP BY market_no HAVING min(deal_id) > 1 ORDER BY market_no",
    )
    shards = ask(
        connection,
        "SELECT part, min(first_seq) FROM lake_files WHERE \"table\" = 'balances'"
        " GROUP BY part HAVING min(first_seq) > 1 ORDER BY part",
    )
    said = [
        f"the deals of {name} begin with {first}: older ones are gone" for name, first in markets
    ]
    said += [f"the balances of shard {part} begin with entry {first}" for part, first in shards]
    if said:
        said.append("where accounts started is taken from the first row of each")
    return said


def _run(cursor: duckdb.DuckDBPyConnection, progress: Progress) -> list[Finding]:
    """All checks, one after the other, piece by piece."""
    found = _Found()
    deals, sums = _DealByDeal(cursor, found), _Sums(cursor, found)
    steps: list[tuple[str, _Pieces, Callable[[Piece], None]]] = [
        ("definitions", _ONCE, lambda _: _ask(cursor, found, "definitions", "()")),
        ("deals", _DEAL_BY_DEAL, deals.look),
        ("orders", _BY_ORDER, lambda piece: _ask(cursor, found, "orders", "(?, ?)", *piece)),
        ("postings", _BY_DEAL, lambda piece: _ask(cursor, found, "postings", "(?, ?)", *piece)),
        ("chain", _BY_USER, lambda piece: _ask(cursor, found, "chain", "(?, ?)", *piece)),
        ("sums", _BY_USER, sums.look),
        ("bars", _BY_DAY, lambda piece: _ask(cursor, found, "bars", "(?, ?)", *piece)),
    ]
    pieces = {cut: _pieces(cursor, cut) for _, cut, _ in steps}
    plan = [(name, piece, look) for name, cut, look in steps for piece in pieces[cut]]
    for done, (name, piece, look) in enumerate(plan):
        progress(name, done, len(plan))
        look(piece)
    sums.conclude()
    progress("", len(plan), len(plan))
    return found.findings()


def _pieces(cursor: duckdb.DuckDBPyConnection, cut: _Pieces) -> list[Piece]:
    """The first and the last key of each piece; they follow each other without a gap."""
    grains = f"SELECT {cut.key} // ? AS grain, count(*) AS n FROM {cut.rows} GROUP BY grain"
    numbered = f"SELECT grain, (sum(n) OVER (ORDER BY grain) - 1) // ? AS piece FROM ({grains})"
    rows = ask(
        cursor,
        f"SELECT min(grain), max(grain) FROM ({numbered}) GROUP BY piece ORDER BY 1",
        *[cut.rows_max, cut.grain],
    )
    starts = [first * cut.grain for first, _ in rows]
    ends = [(last + 1) * cut.grain - 1 for _, last in rows]
    return list(zip(starts, [start - 1 for start in starts[1:]] + ends[-1:], strict=True))


def _ask(
    cursor: duckdb.DuckDBPyConnection, found: _Found, name: str, places: str, *values: int
) -> None:
    """Gather what the macro of a check answers: what, example, place."""
    rows = ask(
        cursor,
        "SELECT what, count(*), arg_min(example, (place, example), ?)"
        f" FROM check_{name}{places} GROUP BY what ORDER BY what",
        *[EXAMPLES_MAX, *values],
    )
    for what, count, examples in rows:
        found.add(name, what, examples, count)


class _DealByDeal:
    """The checks that look at one deal after the other, in the order of each market."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, found: _Found) -> None:
        self._cursor = cursor
        self._found = found
        self._before: dict[int, tuple[int, int]] = {}  # market_no -> deal_id, time_us

    def look(self, piece: Piece) -> None:
        """Go through the deals of a piece, which follows the last one."""
        add = self._found.add
        for market_no, market, deal_id, time_us, price, amount, deal in ask(
            self._cursor, "FROM check_deals(?, ?)", *piece
        ):
            where = f"{market} deal {deal_id}"
            before_id, before_us = self._before.get(market_no, (deal_id - 1, time_us))
            if deal_id == before_id:
                add("deal_ids", "a deal is there more than once", [where])
            elif deal_id != before_id + 1:
                missing = f"{market} deals {before_id + 1} to {deal_id - 1}"
                add("deal_ids", "deals are missing", [missing], deal_id - before_id - 1)
            if time_us < before_us:
                add("deal_times", "a deal is older than the one before", [where])
            if price * amount != deal * _UNITS:
                add("deal_money", "deal is not price * amount", [where])
            self._before[market_no] = deal_id, time_us


class _Sums:
    """The sums of each asset, over all pieces."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, found: _Found) -> None:
        self._cursor = cursor
        self._found = found
        self._totals: dict[tuple[int, str], Decimal] = defaultdict(Decimal)

    def look(self, piece: Piece) -> None:
        """Add what the users of a piece have."""
        for asset_id, origin, whole, fraction in ask(self._cursor, "FROM check_sums(?, ?)", *piece):
            total = _EXACT.add(whole, fraction)
            self._totals[asset_id, origin] = _EXACT.add(self._totals[asset_id, origin], total)

    def conclude(self) -> None:
        """Compare, when all pieces were looked at."""
        names = dict(ask(self._cursor, "SELECT asset_id, asset FROM assets"))
        for asset_id in sorted({asset_id for asset_id, _ in self._totals}):
            held, before, updates, fee, share, opened, settled = (
                self._totals[asset_id, origin]
                for origin in ("held", "before", "update", "fee", "share", "open", "settled")
            )
            name = names.get(asset_id) or f"asset {asset_id}"
            fees = _EXACT.minus(_EXACT.add(fee, share))
            has = _EXACT.add(held, fees)
            given = _EXACT.add(_EXACT.add(updates, before), opened)
            if has != given:
                what = "held + fees is not updates + before + open"
                numbers = f"{held:f} + {fees:f}, {updates:f} + {before:f} + {opened:f}"
                self._found.add("sums", what, [f"{name}: {numbers}"])
            if settled:
                what = "what was paid is not what was received"
                self._found.add("sums", what, [f"{name}: {settled:f} is left"])


def _quiet(name: str, done: int, count: int) -> None:
    """Progress that nobody wants to see."""
