"""An exchange in memory behind the gateway's port: the real catalog, naive books and balances.

It answers every question the handlers ask, later than asked but in order, as the real one does;
it keeps recorded results, so that a request sent again executes nothing.  Tests may make it
refuse, answer nonsense, or lose its lease.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.catalog import Catalog, Scope
from excore_ray.core.names import Names
from excore_ray.core.orders import ORDER_ID_STRIDE
from excore_ray.core.reasons import Reason, Refused
from tests.api.naive_archive import NaiveArchive
from tests.api.naive_market import EXACT, ZERO, Cause, Money, NaiveMarket, NaiveOrder

SHARDS = 3
START_US = 1_515_760_692_847_215
KEYS = {
    "all": ("secret of all", Scope.READ | Scope.TRADE | Scope.ADMIN),
    "read": ("secret of read", Scope.READ),
    "trade": ("secret of trade", Scope.TRADE),
    "admin": ("secret of admin", Scope.ADMIN),
}


def real(value: int, scale: int) -> Decimal:
    """A scaled integer as the number it stands for."""
    return Decimal(value).scaleb(-scale)


def scaled(value: Decimal, scale: int) -> int:
    """A number, which must fit, as a scaled integer."""
    whole = value.scaleb(scale)
    assert whole == whole.to_integral_value()
    return int(whole)


class FakeExchange:
    """asked: all asks in order, each with the turn of the loop it came in."""

    def __init__(self) -> None:
        self.time_us = START_US
        self.catalog = Catalog()
        self.catalog.execute(c.CreateCatalog(SHARDS))
        self.accounts: dict[tuple[int, int], Money] = {}
        self.fees: dict[int, Decimal] = {}
        self.net: Counter[tuple[int, int]] = Counter()
        self.updates: set[tuple[int, int, str, int]] = set()
        self.books: dict[int, NaiveMarket] = {}
        self.archive = NaiveArchive(self.books)
        self.results: dict[bytes, m.Answer] = {}
        self.asked: list[tuple[int, m.Ask]] = []
        self.turn = 0
        self.requests = 0
        self.orders = 0
        self.lease = True  # whether there are names without waiting
        self.catalog_reachable = True  # whether waiting brings them
        self.answer_with: dict[type, m.Answer] = {}
        for key, (secret, scopes) in KEYS.items():
            self.catalog.execute(
                c.AddKey(self.new_request_id(), 0, key, secret, int(scopes), f"notes of {key}")
            )

    @property
    def names(self) -> Names | None:
        return Names(self.catalog.copy()) if self.lease else None

    async def fresh_names(self) -> Names | Refused:
        await asyncio.sleep(0)
        if not self.catalog_reachable:
            return Refused(Reason.SERVICE_UNAVAILABLE, "the catalog does not answer")
        return Names(self.catalog.copy())

    def ask_market(self, market_no: int, ask: m.Ask) -> asyncio.Future[m.Answer]:
        return self._later(ask, lambda: self._market(market_no, ask))

    def ask_markets(self, asks: Sequence[tuple[int, m.Ask]]) -> asyncio.Future[list[m.Answer]]:
        return asyncio.gather(*(self.ask_market(market_no, ask) for market_no, ask in asks))

    def ask_shard(self, user: int, ask: m.Ask) -> asyncio.Future[m.Answer]:
        return self._later(ask, lambda: self._shard(user % SHARDS, ask))

    async def ask_shards(self, ask: m.Ask) -> list[m.Answer]:
        return [await self.ask_shard(shard, ask) for shard in range(SHARDS)]

    def ask_archive(self, ask: m.Ask) -> asyncio.Future[m.Answer]:
        return self._later(ask, lambda: self.archive.answer(ask, self.time_us))

    def ask_catalog(self, ask: m.Ask) -> asyncio.Future[m.Answer]:
        return self._later(ask, lambda: self._catalog(ask))

    def new_request_id(self) -> bytes:
        self.requests += 1
        return self.requests.to_bytes(16, "big")

    def _later(self, ask: m.Ask, work: Callable[[], m.Answer]) -> asyncio.Future[m.Answer]:
        self.asked.append((self.turn, ask))
        self.time_us += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[m.Answer] = loop.create_future()
        with localcontext(EXACT):
            answer = self._once(ask, work)
        loop.call_soon(self._deliver, future, answer)
        return future

    def _deliver(self, future: asyncio.Future[m.Answer], answer: m.Answer) -> None:
        self.turn += 1
        future.set_result(answer)

    def _once(self, ask: m.Ask, work: Callable[[], m.Answer]) -> m.Answer:
        if type(ask) in self.answer_with:
            return self.answer_with[type(ask)]
        request_id: bytes | None = getattr(ask, "request_id", None)
        if request_id is None:
            return work()
        if request_id not in self.results:
            answer = work()
            if isinstance(answer, Refused):
                return answer
            self.results[request_id] = answer
        return self.results[request_id]

    # The catalog

    def _catalog(self, ask: m.Ask) -> m.Answer:
        if isinstance(ask, m.AskKeys):
            return m.Keys(self.catalog.key_views())
        if isinstance(ask, m.AskStatus):
            return m.Status("catalog", 1, 7, {"assets": len(self.catalog.assets)})
        assert isinstance(
            ask,
            c.AddAsset | c.RenameAsset | c.AddMarket | c.RenameMarket | c.AddKey | c.RevokeKey,
        )
        return self.catalog.execute(ask)

    # Shards

    def account(self, user: int, asset: int) -> Money:
        return self.accounts.setdefault((user, asset), Money())

    def _save(self, asset: int) -> int:
        return self.catalog.assets[asset - 1].prec_save

    def _shard(self, shard: int, ask: m.Ask) -> m.Answer:
        if isinstance(ask, c.Update):
            return self._update(shard, ask)
        if isinstance(ask, m.AskAccounts):
            return m.Accounts(
                [
                    m.Account(
                        asset,
                        scaled(money.available, self._save(asset)),
                        scaled(money.frozen, self._save(asset)),
                    )
                    for (user, asset), money in self.accounts.items()
                    if user == ask.user and (not ask.assets or asset in ask.assets)
                ]
            )
        if isinstance(ask, m.AskAssets):
            wanted = ask.assets or [asset.asset_id for asset in self.catalog.assets]
            return m.AssetTotals([self._total(shard, asset) for asset in wanted])
        if isinstance(ask, m.AskPendingList):
            open_in = {no: book.of_user(ask.user) for no, book in self.books.items()}
            return m.PendingCounts([n for no, o in open_in.items() if o for n in (no, len(o))])
        assert isinstance(ask, m.AskStatus)
        return m.Status(f"ledger-{shard}", 1, 9, {"accounts": len(self.accounts)})

    def _update(self, shard: int, ask: c.Update) -> m.Answer:
        key = (ask.user, ask.asset, ask.business, ask.business_id)
        if key in self.updates:
            return Refused(Reason.REPEAT_UPDATE, f"business_id {ask.business_id}")
        if not -ask.net_max < self.net[shard, ask.asset] + ask.change < ask.net_max:
            return Refused(Reason.INVALID_ARGUMENT, "change: net updates would pass 10^18")
        account = self.account(ask.user, ask.asset)
        change = real(ask.change, self._save(ask.asset))
        if change < 0 and not ask.force and account.available + change < 0:
            return Refused(Reason.BALANCE_NOT_ENOUGH, "change: more than is available")
        self.updates.add(key)
        self.net[shard, ask.asset] += ask.change
        account.available += change
        cause = Cause(self.time_us, ask.business, ask.business_id, ask.detail)
        self._booked(ask.user, ask.asset, change, cause)
        return m.Done()

    def _total(self, shard: int, asset: int) -> m.AssetTotal:
        here = [
            money
            for (user, kept), money in self.accounts.items()
            if kept == asset and user % SHARDS == shard
        ]
        save = self._save(asset)
        return m.AssetTotal(
            asset,
            scaled(sum((money.available for money in here), ZERO), save),
            sum(money.available != 0 for money in here),
            scaled(sum((money.frozen for money in here), ZERO), save),
            sum(money.frozen != 0 for money in here),
            scaled(self.fees.get(asset, ZERO), save) if shard == 0 else 0,
            self.net[shard, asset],
            0,
        )

    # Markets

    def book(self, market_no: int) -> NaiveMarket:
        if market_no not in self.books:
            rules = self.catalog.markets[market_no - 1].rules
            self.books[market_no] = NaiveMarket(
                market_no,
                rules.stock_id,
                rules.money_id,
                {i: self._save(i) for i in (rules.stock_id, rules.money_id)},
                rules.stock_prec,
                real(rules.min_amount, rules.stock_prec),
                self.account,
                self._collect_fee,
                self._booked,
            )
        return self.books[market_no]

    def _collect_fee(self, asset: int, fee: Decimal) -> None:
        self.fees[asset] = self.fees.get(asset, ZERO) + fee

    def _booked(self, user: int, asset: int, change: Decimal, cause: Cause) -> None:
        account = self.account(user, asset)
        self.archive.book(user, asset, change, account.available + account.frozen, cause)

    def _market(self, market_no: int, ask: m.Ask) -> m.Answer:
        book = self.book(market_no)
        if isinstance(ask, c.PutLimit | c.PutMarket):
            return self._put(market_no, ask)
        if isinstance(ask, c.Cancel):
            return book.cancel(ask.user, ask.order_id, self.time_us) or m.Done()
        if isinstance(ask, m.AskBook):
            return self._page(market_no, book.side(ask.side), ask.offset, ask.limit)
        if isinstance(ask, m.AskPending):
            newest_first = book.of_user(ask.user)[::-1]
            return self._page(market_no, newest_first, ask.offset, ask.limit)
        if isinstance(ask, m.AskOrder):
            found = [order for order in book.open if order.order_id == ask.order_id]
            if not found:
                return Refused(Reason.ORDER_NOT_FOUND, f"order_id {ask.order_id}")
            return self._view(market_no, found[0])
        if isinstance(ask, m.AskDepth):
            return m.Depth(*(self._depth(market_no, side, ask) for side in (1, 2)))
        if isinstance(ask, m.AskCounts):
            return m.Counts(len(book.side(1)), len(book.side(2)))
        assert isinstance(ask, m.AskStatus)
        return m.Status(f"market-{market_no}", 1, 8, {"orders": len(book.open)})

    def _scales(self, market_no: int) -> tuple[int, int]:
        rules = self.catalog.markets[market_no - 1].rules
        return rules.stock_prec, rules.money_prec

    def _put(self, market_no: int, ask: c.PutLimit | c.PutMarket) -> m.Answer:
        stock_prec, money_prec = self._scales(market_no)
        spends = isinstance(ask, c.PutMarket) and ask.side == 2
        amount_scale = stock_prec + money_prec if spends else stock_prec
        self.orders += 1
        order = NaiveOrder(
            order_id=self.orders * ORDER_ID_STRIDE + market_no,
            user=ask.user,
            side=ask.side,
            price=ZERO,
            amount=real(ask.amount, amount_scale),
            taker_fee=real(ask.taker_fee, 4),
            source=ask.source,
            ctime_us=self.time_us,
            mtime_us=self.time_us,
        )
        if isinstance(ask, c.PutLimit):
            order.price = real(ask.price, money_prec)
            order.maker_fee = real(ask.maker_fee, 4)
            order.ref_user, order.ref_rate = ask.ref_user, real(ask.ref_rate, 4)
        book = self.book(market_no)
        refused = book.put(order)
        if refused is not None:
            return refused
        return m.Placed(
            order.order_id,
            order.ctime_us,
            order.mtime_us,
            scaled(order.left, amount_scale),
            *self._dealt(market_no, order),
        )

    def _dealt(self, market_no: int, order: NaiveOrder) -> tuple[int, int, int]:
        stock_prec, money_prec = self._scales(market_no)
        book = self.book(market_no)
        gets = book.money if order.side == 1 else book.stock
        return (
            scaled(order.deal_stock, stock_prec),
            scaled(order.deal_money, stock_prec + money_prec),
            scaled(order.deal_fee, self._save(gets)),
        )

    def _view(self, market_no: int, order: NaiveOrder) -> m.OrderView:
        stock_prec, money_prec = self._scales(market_no)
        return m.OrderView(
            order.order_id,
            order.user,
            order.side,
            scaled(order.price, money_prec),
            scaled(order.amount, stock_prec),
            scaled(order.left, stock_prec),
            scaled(order.taker_fee, 4),
            scaled(order.maker_fee, 4),
            order.ref_user,
            scaled(order.ref_rate, 4),
            order.source,
            order.ctime_us,
            order.mtime_us,
            *self._dealt(market_no, order),
        )

    def _page(self, market_no: int, orders: list[NaiveOrder], offset: int, limit: int) -> m.Orders:
        page = [self._view(market_no, order) for order in orders[offset : offset + limit]]
        return m.Orders(len(orders), page)

    def _depth(self, market_no: int, side: int, ask: m.AskDepth) -> list[int]:
        stock_prec, money_prec = self._scales(market_no)
        levels: dict[int, int] = {}
        for order in self.book(market_no).side(side):
            price = scaled(order.price, money_prec)
            if ask.interval:
                steps = -(-price // ask.interval) if side == 1 else price // ask.interval
                price = steps * ask.interval
            levels[price] = levels.get(price, 0) + scaled(order.left, stock_prec)
        return [n for level in list(levels.items())[: ask.limit] for n in level]
