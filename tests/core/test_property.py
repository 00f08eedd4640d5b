"""A market and its shards against an exchange of naive lists, over random lives.

Users trade, with themselves too, cancel, move money and go into debt; entries arrive in pieces,
late and twice; the market comes back in new epochs, and machines come out of snapshots.  Both
exchanges must agree on every answer, deal and order at every step, and on every balance of each
shard that has caught up.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal, localcontext

import msgspec
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.audit import audit_assets, audit_holds, check_holds
from excore_ray.core.orders import Order, Side
from excore_ray.core.reads import answer_ledger_query
from excore_ray.core.reasons import Refused
from excore_ray.core.sharding import shard_of
from tests.core.courier import Courier
from tests.core.machines import MONEY, STOCK, cancel, put_limit, put_market, update, with_fees
from tests.core.oracle import EXACT, ZERO, Oracle, Scales

SEED = int(os.environ.get("SEED") or random.randrange(2**32))
USERS = 5
EXAMPLES, STEPS_MAX = 300, 80
NOBODYS_ORDER = 4_097 + 4_096 * 500_000

SCALES = [
    Scales(0, 0, 0, 0, 1),  # every fee is truncated
    Scales(1, 2, 5, 6, 3),  # as the catalog would have it
    Scales(2, 1, 6, 3, 5),
    Scales(2, 0, 2, 2, 10),
]


class Put(msgspec.Struct, frozen=True):
    user: int
    side: Side
    price: int
    amount: int
    taker_fee: int
    maker_fee: int
    ref_user: int
    ref_rate: int
    chunk: int

    def command(self) -> c.PutLimit:
        put = put_limit(self.user, self.side, self.amount, self.price)
        return with_fees(put, self.taker_fee, self.maker_fee, (self.ref_user, self.ref_rate))


class PutMarket(msgspec.Struct, frozen=True):
    user: int
    side: Side
    amount: int
    taker_fee: int
    chunk: int


class Cancel(msgspec.Struct, frozen=True):
    """nth: which of the user's open orders, newest first; beyond them, one of nobody."""

    user: int
    nth: int


class CancelAll(msgspec.Struct, frozen=True):
    user: int


class Update(msgspec.Struct, frozen=True):
    user: int
    asset: int
    change: int
    force: bool
    chunk: int


class Deliver(msgspec.Struct, frozen=True):
    shard: int
    count: int
    again: int


class Forget(msgspec.Struct, frozen=True):
    shard: int


class Wait(msgspec.Struct, frozen=True):
    seconds: int


class NewEpoch(msgspec.Struct, frozen=True):
    """orphan: an order that was reserved for and never placed."""

    orphan: Put | None


class Reload(msgspec.Struct, frozen=True):
    pass


Step = Put | PutMarket | Cancel | CancelAll | Update | Deliver | Forget | Wait | NewEpoch | Reload

users = st.integers(1, USERS)
sides = st.sampled_from(Side)
rates = st.sampled_from((0, 0, 1, 20, 333, 2_500, 9_999))
chunks = st.integers(1, 4)
shards = st.integers(0, 2)
puts = st.builds(
    Put,
    users,
    sides,
    st.integers(98, 102),
    st.integers(1, 30) | st.integers(1, 3_000),
    rates,
    rates,
    st.integers(0, USERS + 2),
    st.sampled_from((0, 5_000, 10_000, 3_333)),
    chunks,
)
steps: st.SearchStrategy[Step] = st.one_of(
    *[puts] * 8,
    st.builds(PutMarket, users, sides, st.integers(1, 50) | st.integers(1, 9_999), rates, chunks),
    st.builds(Cancel, users, st.integers(0, 3)),
    st.builds(CancelAll, users),
    st.builds(
        Update,
        users,
        st.sampled_from((STOCK, MONEY)),
        st.integers(-500, 500),
        st.booleans(),
        chunks,
    ),
    st.builds(Deliver, shards, chunks, st.integers(0, 3)),
    st.builds(Forget, shards),
    st.builds(Wait, st.integers(1, 30)),
    st.builds(NewEpoch, st.none() | puts),
    st.builds(Reload),
)
# Without a length of their own, lists stay too short for anybody to meet.
lives = st.integers(1, STEPS_MAX).flatmap(lambda n: st.lists(steps, min_size=n, max_size=n))


class Life:
    """Both exchanges, led through the same steps."""

    def __init__(self, scales: Scales, shard_count: int) -> None:
        self.scales = scales
        self.courier = Courier(scales.rules(), shard_count)
        self.oracle = Oracle(scales)
        self.order_ids: dict[int, int] = {}  # arrival at the oracle -> order id
        self._steps: dict[type, Callable[..., None]] = {
            Put: self._put,
            PutMarket: self._put_market,
            Cancel: self._cancel,
            CancelAll: self._cancel_all,
            Update: self._update,
            Deliver: self._deliver,
            Forget: self._forget,
            Wait: lambda step: self.courier.wait(step.seconds * 1_000_000),
            NewEpoch: self._new_epoch,
            Reload: lambda step: self.courier.reload(),
        }

    def go(self, step: Step) -> None:
        """Take one step in both, and compare."""
        self._steps[type(step)](step)
        self.compare()

    def give(self, user: int, asset: int, change: int) -> None:
        self._both_update(update(user, asset, change))

    def compare(self) -> None:
        """Assert that both agree on all that is comparable now."""
        courier = self.courier
        courier.check()
        market = courier.market
        for side in Side:
            real = [(o.order_id, *self._progress(o, side)) for o in market.sides[side]]
            naive = [
                (self.order_ids[o.arrival], o.left, *o.dealt) for o in self.oracle.sorted_book(side)
            ]
            assert real == naive
        self._compare_deals()
        totals: list[m.AssetTotals] = []
        for shard, ledger in enumerate(courier.ledgers):
            if courier.settled(shard):
                self._compare_accounts(shard)
            answer = answer_ledger_query(ledger, m.AskAssets([]))
            assert isinstance(answer, m.AssetTotals)
            totals.append(answer)
            holds = courier.market_holds(shard)
            assert audit_holds(shard, holds, courier.shard_holds(shard), holds) == []
        assert audit_assets(totals) == []
        if all(courier.settled(shard) for shard in range(len(courier.ledgers))):
            check_holds(market, courier.ledgers)
            self._compare_fees()

    def finish(self) -> None:
        """Let everything arrive, and compare all there is."""
        for shard in range(len(self.courier.ledgers)):
            self.courier.settle(shard)
        self.compare()
        self.courier.check_replay()
        balances: dict[tuple[int, int], int] = defaultdict(int)
        for row in self.courier.postings:
            balances[row.user, row.asset] += row.change
            assert row.balance == balances[row.user, row.asset], "rows do not add up"
        for ledger in self.courier.ledgers:
            for user, accounts in ledger.accounts.items():
                for asset, account in accounts.items():
                    assert balances[user, asset] == account.available + account.frozen

    # Steps.

    def _put(self, step: Put) -> None:
        self._both_put(step.command(), step.chunk)

    def _put_market(self, step: PutMarket) -> None:
        amount = step.amount * (100 if step.side == Side.BUY else 1)
        self._both_put(put_market(step.user, step.side, amount, step.taker_fee), step.chunk)

    def _both_put(self, put: c.PutLimit | c.PutMarket, chunk: int) -> None:
        self.courier.settle(self._shard(put.user), chunk)
        answer = self.courier.put(put)
        assert self.oracle.put(put) == word_of(answer)
        if isinstance(answer, m.Placed):
            self.order_ids[self.oracle.arrivals] = answer.order_id
            newest = self.oracle.newest
            assert newest is not None
            spends = isinstance(put, c.PutMarket) and put.side == Side.BUY
            progress = self._progress(answer, put.side, spends)
            assert progress == (newest.left, *newest.dealt)

    def _cancel(self, step: Cancel) -> None:
        mine = [o.order_id for o in self.courier.market.open_orders_of(step.user)]
        order_id = mine[step.nth] if step.nth < len(mine) else NOBODYS_ORDER
        answer = self.courier.cancel(cancel(step.user, order_id))
        assert word_of(answer) == ("ok" if order_id != NOBODYS_ORDER else "ORDER_NOT_FOUND")
        self.oracle.cancel(step.user, [a for a, i in self.order_ids.items() if i == order_id])

    def _cancel_all(self, step: CancelAll) -> None:
        assert word_of(self.courier.cancel(cancel(step.user))) == "ok"
        self.oracle.cancel(step.user, [*self.order_ids])

    def _update(self, step: Update) -> None:
        self.courier.settle(self._shard(step.user), step.chunk)
        self._both_update(update(step.user, step.asset, step.change, step.force))

    def _both_update(self, command: c.Update) -> None:
        assert word_of(self.courier.update(command)) == self.oracle.update(command)

    def _deliver(self, step: Deliver) -> None:
        shard = step.shard % len(self.courier.ledgers)
        self.courier.deliver(shard, step.count, step.again)

    def _forget(self, step: Forget) -> None:
        self.courier.forget(step.shard % len(self.courier.ledgers))

    def _new_epoch(self, step: NewEpoch) -> None:
        if step.orphan is not None:
            self.courier.reserve(step.orphan.command())
        self.courier.new_epoch()

    # Comparisons.

    def _compare_deals(self) -> None:
        stock, money = self.scales.stock_save, self.scales.money_save
        real = [
            (
                Decimal(deal.price).scaleb(-self.scales.money_prec),
                Decimal(deal.amount).scaleb(-self.scales.stock_prec),
                deal.taker_order_id,
                deal.maker_order_id,
                Decimal(deal.taker_fee).scaleb(-(money if deal.side == Side.SELL else stock)),
                Decimal(deal.maker_fee).scaleb(-(stock if deal.side == Side.SELL else money)),
            )
            for deal in self.courier.deals
        ]
        ids = self.order_ids
        naive = [(p, a, ids[taker], ids[maker], *f) for p, a, taker, maker, *f in self.oracle.deals]
        assert real == naive
        numbers = [deal.deal_id for deal in self.courier.deals]
        assert numbers == list(range(1, len(numbers) + 1))

    def _compare_accounts(self, shard: int) -> None:
        real = {
            (user, "stock" if asset == STOCK else "money"): [
                self._decimal(account.available, asset),
                self._decimal(account.frozen, asset),
            ]
            for user, accounts in self.courier.ledgers[shard].accounts.items()
            for asset, account in accounts.items()
            if account.available or account.frozen
        }
        naive = {
            key: account
            for key, account in self.oracle.accounts.items()
            if self._shard(key[0]) == shard and account != [ZERO, ZERO]
        }
        assert real == naive

    def _compare_fees(self) -> None:
        for asset, name in ((STOCK, "stock"), (MONEY, "money")):
            fees = sum(ledger.fees.get(asset, 0) for ledger in self.courier.ledgers)
            assert self._decimal(fees, asset) == self.oracle.fees[name]

    def _progress(
        self, order: Order | m.Placed, side: int, spends: bool = False
    ) -> tuple[Decimal, ...]:
        """left, deal_stock, deal_money and deal_fee of an order; `left` is money when it spends."""
        scales = self.scales
        stock, both = scales.stock_prec, scales.stock_prec + scales.money_prec
        fee_scale = scales.money_save if side == Side.SELL else scales.stock_save
        return (
            Decimal(order.left).scaleb(-(both if spends else stock)),
            Decimal(order.deal_stock).scaleb(-stock),
            Decimal(order.deal_money).scaleb(-both),
            Decimal(order.deal_fee).scaleb(-fee_scale),
        )

    def _decimal(self, value: int, asset: int) -> Decimal:
        scales = self.scales
        return Decimal(value).scaleb(-(scales.stock_save if asset == STOCK else scales.money_save))

    def _shard(self, user: int) -> int:
        return shard_of(user, len(self.courier.ledgers))


def word_of(answer: m.Placed | m.Done | Refused) -> str:
    return answer.reason.name if isinstance(answer, Refused) else "ok"


@pytest.fixture(autouse=True, scope="module")
def _printed_seed() -> None:
    """The seed, beside a failure of this module."""
    print(f"SEED={SEED}")


def agree(scales: Scales, shard_count: int, life: list[Step]) -> None:
    """Lead both exchanges through `life`; assert that they agree."""
    with localcontext(EXACT):
        exchange = Life(scales, shard_count)
        for user in range(1, USERS + 1):
            exchange.give(user, STOCK, 40 * 10**scales.stock_save)
            exchange.give(user, MONEY, 4_000 * 10**scales.money_save)
        for step in life:
            exchange.go(step)
        exchange.finish()


any_life = given(st.sampled_from(SCALES), st.integers(1, 3), lives)
patient = settings(
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_both_exchanges_agree = seed(SEED)(settings(patient, max_examples=EXAMPLES)(any_life(agree)))
test_both_exchanges_agree_for_long = pytest.mark.slow(
    seed(SEED)(settings(patient, max_examples=EXAMPLES * 15)(any_life(agree)))
)
