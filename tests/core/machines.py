"""Machines for tests, made the way a fresh journal makes them, and the commands they are fed.

Separate because every test of the core starts here.  It must not know what any test expects.
"""

from __future__ import annotations

import gc
import itertools

import msgspec

from excore_ray.core import commands as c
from excore_ray.core.catalog import Catalog
from excore_ray.core.ledger import Ledger
from excore_ray.core.market import Market
from excore_ray.core.orders import ORDER_NUMBER_MAX, Level, Side
from excore_ray.core.specs import MarketRules

START_US = 1_500_000_000_000_000
STOCK, MONEY = 1, 2

# One tick is one unit of the ledger: the arithmetic of a test can be done in the head.
PLAIN = MarketRules(
    market_no=1,
    stock_id=STOCK,
    money_id=MONEY,
    stock_prec=0,
    money_prec=0,
    stock_unit=1,
    money_unit=1,
    min_amount=1,
)

_request_numbers = itertools.count(1)


def request_id() -> bytes:
    """A request id that no other command of this process has."""
    return next(_request_numbers).to_bytes(c.REQUEST_ID_BYTES, "big")


def new_market(rules: MarketRules = PLAIN, shards: int = 2) -> Market:
    """A market in its first epoch, with ids for all orders there may ever be."""
    market = Market()
    market.begin(START_US)
    market.execute(c.CreateMarket(rules, shards))
    market.execute(c.OpenEpoch(1))
    market.execute(c.ReserveIds(ORDER_NUMBER_MAX))
    return market


def new_ledger(shard: int = 0, shards: int = 1) -> Ledger:
    """A shard in its first epoch, without accounts."""
    ledger = Ledger()
    ledger.begin(START_US)
    ledger.execute(c.CreateShard(shard, shards))
    ledger.execute(c.OpenEpoch(1))
    return ledger


def new_catalog(shards: int = 2) -> Catalog:
    """A catalog in its first epoch, without assets."""
    catalog = Catalog()
    catalog.begin(START_US)
    catalog.execute(c.CreateCatalog(shards))
    catalog.execute(c.OpenEpoch(1))
    return catalog


def stray_levels(*markets: Market) -> int:
    """How many levels of books this process keeps besides those of `markets`."""
    gc.collect()
    theirs = sum(len(list(side.levels())) for market in markets for side in market.sides.values())
    return sum(type(found) is Level for found in gc.get_objects()) - theirs


def put_limit(user: int, side: Side, amount: int, price: int) -> c.PutLimit:
    """A limit order without fees or referrer; `with_fees` adds them."""
    return c.PutLimit(request_id(), 0, user, side, amount, price, 0, 0, 0, 0, "")


def put_market(user: int, side: Side, amount: int, taker_fee: int = 0) -> c.PutMarket:
    """A market order; `amount` is money when it buys."""
    return c.PutMarket(request_id(), 0, user, side, amount, taker_fee, "")


def with_fees(
    put: c.PutLimit, taker: int = 0, maker: int = 0, referral: tuple[int, int] = (0, 0)
) -> c.PutLimit:
    """`put` with fee rates in ten-thousandths.  referral: (ref_user, ref_rate)."""
    ref_user, ref_rate = referral
    return msgspec.structs.replace(
        put, taker_fee=taker, maker_fee=maker, ref_user=ref_user, ref_rate=ref_rate
    )


def cancel(user: int, order_id: int = 0) -> c.Cancel:
    """Cancel one order, or with order_id 0 all of the user's."""
    return c.Cancel(request_id(), 0, user, order_id)


def update(user: int, asset: int, change: int, force: bool = False) -> c.Update:
    """A balance.update under a key of its own, with room for any amount."""
    number = next(_request_numbers)
    return c.Update(request_id(), 0, user, asset, "test", number, change, "{}", force, 10**40)
