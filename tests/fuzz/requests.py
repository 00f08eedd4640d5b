"""Requests that would be right, for every method, each parameter as JSON text.

Separate because most faults hide behind parameters that are nearly right: what is broken in
envelopes.py began here.  Names are drawn from a few, so that they are often taken, renamed or
gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

MARKET, STOCK, MONEY = "BTCBCH", "BTC", "BCH"
USERS = 6
CREATE = (
    ("asset.add", f'["{STOCK}",20,8,"the stock"]'),
    ("asset.add", f'["{MONEY}",20,12,"the money"]'),
    ("asset.add", '["EOS",4,2,"coarse"]'),
    ("market.add", f'["{MARKET}","{STOCK}",8,"{MONEY}",8,"0.001",""]'),
    ("market.add", '["BTC EOS","BTC",2,"EOS",0,"1","a name with a space"]'),
)
DEPOSITS = tuple(
    ("balance.update", f'[{user},"{asset}","deposit",1,"{change}",{{}}]')
    for user in range(1, USERS + 1)
    for asset, change in (
        (STOCK, "1e17" if user == 1 else "100000"),
        (MONEY, "1e17" if user % 2 else "100000000"),
        ("EOS", "1000000"),
    )
)

Params = list[str]


class Requests:
    """Draws requests.  orders: ids of orders that were placed lately, which whoever asks tells."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.orders: deque[int] = deque(maxlen=50)
        self.makers: dict[str, Callable[[], Params]] = {
            "balance.query": self._balance_query,
            "balance.update": self._balance_update,
            "balance.history": self._balance_history,
            "asset.list": self._list,
            "asset.summary": self._assets,
            "asset.fees": self._assets,
            "asset.add": self._asset_add,
            "asset.rename": self._asset_rename,
            "order.put_limit": self._put_limit,
            "order.put_market": self._put_market,
            "order.cancel": self._cancel,
            "order.book": lambda: [self._market(), self._side(), *self._page()],
            "order.depth": lambda: [self._market(), self._limit(), self._interval()],
            "order.pending_list": lambda: [self._user(), *self._page()],
            "order.pending": lambda: [self._user(), self._market(), *self._page()],
            "order.pending_detail": lambda: [self._market(), self._order()],
            "order.deals": lambda: [self._order(), *self._page()],
            "order.finished": self._finished,
            "order.finished_detail": lambda: [self._order()],
            "market.last": lambda: [self._market()],
            "market.deals": lambda: [self._market(), self._limit(), self._integer()],
            "market.deal_history": lambda: [self._market(), self._limit()],
            "market.user_deals": lambda: [self._user(), self._market(), *self._page()],
            "market.kline": self._kline,
            "market.status": lambda: [self._market(), self._of("1", "60", "86400", "604800")],
            "market.status_today": lambda: [self._market()],
            "market.list": self._list,
            "market.summary": lambda: [self._market()] * self.random.randrange(3),
            "market.add": self._market_add,
            "market.rename": lambda: [self._spare("M"), self._spare("M")],
            "keys.add": lambda: [self._of('["read"]', '["read","trade"]'), '"fuzz"'],
            "keys.list": list,
            "keys.revoke": lambda: [self._of('"nobody"', '"fuzz"')],
            "exchange.audit": list,
            "exchange.status": list,
        }
        self._names = list(self.makers)
        # Trading changes most and is attacked most; what asks every actor costs most.
        many = {"order.put_limit": 14, "order.put_market": 7, "order.cancel": 5}
        many |= {"balance.update": 6, "market.add": 2}
        few = {"exchange.audit": 0.1, "exchange.status": 0.3, "keys.add": 0.2, "keys.list": 0.3}
        weights = [(many | few).get(name, 1.0) for name in self._names]
        self._total = [sum(weights[: place + 1]) for place in range(len(weights))]

    def method(self) -> str:
        """The name of a method."""
        return self.random.choices(self._names, cum_weights=self._total)[0]

    def params(self, method: str) -> Params:
        """Parameters that fit `method`."""
        return self.makers[method]()

    # Single values.

    def _of(self, *these: str) -> str:
        return self.random.choice(these)

    def _user(self) -> str:
        return str(self.random.randint(1, USERS + 1))

    def _side(self) -> str:
        return self._of("1", "2")

    def _market(self) -> str:
        return self._of(f'"{MARKET}"', f'"{MARKET}"', f'"{MARKET}"', '"BTC EOS"', self._spare("M"))

    def _asset(self) -> str:
        return self._of(f'"{STOCK}"', f'"{MONEY}"', '"EOS"', self._spare("A"))

    def _spare(self, kind: str) -> str:
        return f'"{kind}{self.random.randrange(9)}"'

    def _limit(self) -> str:
        return self._of("1", "10", "100")

    def _page(self) -> Params:
        return [self._of("0", "0", "5", "1000000"), self._limit()]

    def _integer(self) -> str:
        return self._of("0", "1", "17")

    def _span(self) -> Params:
        return [self._of("0", "1515752000"), self._of("0", "1515760000", "253402300799")]

    def _order(self) -> str:
        return str(self.random.choice(self.orders)) if self.orders else "4097"

    def _interval(self) -> str:
        return self._of('"0"', '"0.01"', '"10"', '"1e3"')

    def _amount(self) -> str:
        if self.random.random() < 0.03:
            return self._of('"100000000"', '"99999999.99999999"', '"0.00100001"', '"0.001"')
        return f'"{self.random.randint(1, 5000) / 1000}"'

    def _price(self) -> str:
        if self.random.random() < 0.03:
            return self._of('"9999999999.99999999"', '"0.00000001"', '"1e9"', '"12345.67890123"')
        return f'"{self.random.randint(790000, 810000) / 100}"'

    def _rate(self) -> str:
        return self._of('"0"', '"0.002"', '"0.001"', '"0.9999"')

    def _source(self) -> str:
        return self._of('""', '"web"', '"api v1"', '"😀"')

    # Whole parameters.

    def _list(self) -> Params:
        return [self._of("0", "1", "null"), self._of("1", "1000", "null")][
            : self.random.randrange(3)
        ]

    def _assets(self) -> Params:
        return [self._asset() for _ in range(self.random.randrange(3))]

    def _balance_query(self) -> Params:
        return [self._user(), self._asset()][: self.random.randint(1, 2)]

    def _balance_update(self) -> Params:
        number = str(self.random.randrange(1, 2**63))
        change = self._of('"100"', '"5000.5"', '"-3"', '"-1e9"', '"1e-20"')
        force = ['"force"'] if self.random.random() < 0.05 else []
        business = self._of('"deposit"', '"withdraw"')
        return [self._user(), self._asset(), business, number, change, self._detail(), *force]

    def _detail(self) -> str:
        return self._of("{}", "{}", '{"id":5}', '{"note":{"by":["x",1,null]}}')

    def _balance_history(self) -> Params:
        business = self._of('""', "null", '"trade"')
        asset = self._of('""', "null", f'"{STOCK}"')
        return [self._user(), asset, business, *self._span(), *self._page()]

    def _asset_add(self) -> Params:
        return [self._spare("A"), self._of("8", "20"), self._of("2", "8"), '""']

    def _asset_rename(self) -> Params:
        return [self._spare("A"), self._spare("A")]

    def _put_limit(self) -> Params:
        ref = [self._user(), self._rate()] if self.random.random() < 0.3 else []
        amounts = [self._amount(), self._price(), self._rate(), self._rate()]
        return [self._user(), self._market(), self._side(), *amounts, *ref, self._source()]

    def _put_market(self) -> Params:
        side = self._side()
        amount = self._amount() if side == "1" else self._price()
        return [self._user(), self._market(), side, amount, self._rate(), self._source()]

    def _cancel(self) -> Params:
        one = [self._order()] if self.random.random() < 0.6 else []
        return [self._user(), self._market(), *one]

    def _finished(self) -> Params:
        side = self._of("0", "1", "2", "null")
        return [self._user(), self._market(), *self._span(), *self._page(), side]

    def _kline(self) -> Params:
        market = self._of("null", self._market())
        return [market, "1515752000", "1515760000", self._of("1", "60", "3600", "604800")]

    def _market_add(self) -> Params:
        stock, money = self._asset(), self._asset()
        precs = self._of("0", "2", "8"), self._of("0", "2", "8")
        return [self._spare("M"), stock, precs[0], money, precs[1], '"0.01"', '""']
