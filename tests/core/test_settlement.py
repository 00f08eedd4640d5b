"""What a deal moves: truncation of fees and referral shares, and the reference's own examples."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from excore_ray.core.orders import Order, OrderType, Role, Side
from excore_ray.core.settlement import leg_of, need_of, referral_of
from excore_ray.core.specs import Asset, MarketRules, rules_of
from tests.core.machines import PLAIN
from tests.core.vectors import VECTORS

SELL, BUY, MAKER, TAKER = Side.SELL, Side.BUY, Role.MAKER, Role.TAKER


def make(side: Side, rates: tuple[int, int] = (0, 0), referral: tuple[int, int] = (0, 0)) -> Order:
    """rates: taker, maker.  referral: user, rate."""
    taker, maker = rates
    return Order(4097, 7, side, OrderType.LIMIT, 10, 99, 99, taker, maker, *referral, "", 0, 0)


# side, role, (taker, maker) rates, (ref_user, ref_rate), (price, amount)
#   -> debit, credit_asset, credit, fee, referral
TABLE = [
    (SELL, TAKER, (20, 10), (0, 0), (100, 7), (7, 2, 700, 1, 0)),  # 1.4
    (SELL, MAKER, (20, 10), (0, 0), (100, 7), (7, 2, 700, 0, 0)),  # 0.7
    (BUY, TAKER, (20, 10), (0, 0), (3, 1999), (5997, 1, 1999, 3, 0)),  # 3.998
    (BUY, MAKER, (20, 10), (0, 0), (3, 1999), (5997, 1, 1999, 1, 0)),
    (SELL, TAKER, (9999, 0), (0, 0), (1, 1), (1, 2, 1, 0, 0)),
    (SELL, TAKER, (9999, 0), (0, 0), (1, 10_000), (10_000, 2, 10_000, 9_999, 0)),
    (SELL, TAKER, (100, 0), (3, 3333), (100, 500), (500, 2, 50_000, 500, 166)),  # 166.65
    (SELL, TAKER, (100, 0), (3, 10_000), (100, 500), (500, 2, 50_000, 500, 500)),
    (SELL, TAKER, (100, 0), (0, 10_000), (100, 500), (500, 2, 50_000, 500, 0)),  # for nobody
    (BUY, TAKER, (100, 0), (3, 1), (1, 9_999), (9_999, 1, 9_999, 99, 0)),  # 0.0099
    (BUY, MAKER, (0, 0), (3, 10_000), (1, 9_999), (9_999, 1, 9_999, 0, 0)),
]


@pytest.mark.parametrize(("side", "role", "rates", "referral", "deal", "expected"), TABLE)
def test_leg(
    side: Side,
    role: Role,
    rates: tuple[int, int],
    referral: tuple[int, int],
    deal: tuple[int, int],
    expected: tuple[int, ...],
) -> None:
    order = make(side, rates, referral)
    leg = leg_of(PLAIN, order, (5, *deal), role)
    assert (leg.debit, leg.credit_asset, leg.credit, leg.fee, leg.referral) == expected
    assert (leg.order_id, leg.user, leg.side, leg.role, leg.deal_id) == (4097, 7, side, role, 5)
    assert leg.fee_rate == rates[0 if role == TAKER else 1]
    share = referral_of(order, leg)
    assert (share.user, share.asset, share.amount) == (referral[0], leg.credit_asset, leg.referral)
    assert share.is_stock == (side == BUY)


FINE = MarketRules(1, 1, 2, 2, 3, 10**6, 10**2, 1)

NEEDS = [
    (make(SELL), 99 * 10**6),
    (make(BUY), 99 * 10 * 10**2),
    (Order(1, 7, BUY, OrderType.MARKET, 0, 99, 50, 0, 0, 0, 0, "", 0, 0), 50 * 10**2),
    (Order(1, 7, SELL, OrderType.MARKET, 0, 99, 50, 0, 0, 0, 0, "", 0, 0), 50 * 10**6),
]


@pytest.mark.parametrize(("order", "need"), NEEDS)
def test_what_must_be_frozen(order: Order, need: int) -> None:
    assert need_of(FINE, order) == need


def wide(stock_prec: int, money_prec: int) -> MarketRules:
    """A market of assets with 20 digits, as the reference's examples have."""
    stock, money = (Asset(i, str(i), 20, 8, "") for i in (1, 2))
    return rules_of(1, stock, money, (stock_prec, money_prec, 1))


def exact(value: int, scale: int = 20) -> Decimal:
    return Decimal(value).scaleb(-scale)


def dealt(side: Side, role: Role, price: str, amount: str, rate: str) -> tuple[Decimal, Decimal]:
    """Money and fee of one deal in a market of 8 + 8 digits."""
    rules = wide(8, 8)
    ten_thousandths = int(Decimal(rate) * 10_000)
    order = make(side, (ten_thousandths, ten_thousandths))
    steps = (int(Decimal(price).scaleb(8)), int(Decimal(amount).scaleb(8)))
    leg = leg_of(rules, order, (1, *steps), role)
    money = leg.credit if side == SELL else leg.debit
    return exact(money), exact(leg.fee)


def fact(where: str) -> dict[str, str]:
    vectors = json.loads((VECTORS / "reference-document-facts.json").read_bytes())["vectors"]
    found: dict[str, str] = next(v for v in vectors if v["where"] == where)
    return found


def test_the_reference_sells_at_market_with_a_fee_in_money() -> None:
    # deal_money 11.7433988 at 0.002; the price is any that gives it.
    assert dealt(SELL, TAKER, "11.7433988", "1", "0.002") == (
        Decimal("11.7433988"),
        Decimal(fact("order.put_market sell")["doc"]),
    )


def test_the_reference_fills_a_resting_ask_in_part() -> None:
    known = fact("order.book ask maker partial")
    money, fee = dealt(SELL, MAKER, "1.5158", "0.007", "0.001")
    assert (money, fee) == (Decimal(known["check"]), Decimal(known["doc"]))


def test_the_reference_takes_a_buyers_fee_in_stock() -> None:
    known = fact("market.user_deals buy maker")
    money, fee = dealt(BUY, MAKER, "1.411", "107.48675095", "0.002")
    assert money == Decimal(known["doc_deal"])
    assert fee == Decimal("0.2149735019")  # 107.48675095 * 0.002 has no further digit


def test_the_reference_blends_maker_and_taker_fees_of_one_order() -> None:
    known = fact("order.finished_detail limit sell 1.62@1.362")
    assert known["fact"].startswith("deal_money 2.2066317 > 1.62*1.362=2.20644")
    as_taker = dealt(SELL, TAKER, "0.0369657", "1", "0.002")
    as_maker = dealt(SELL, MAKER, "2.169666", "1", "0.001")
    total = [sum(pair) for pair in zip(as_taker, as_maker, strict=True)]
    assert total == [Decimal("2.2066317"), Decimal("0.0022435974")]


def test_the_reference_books_a_debit_and_a_fee_of_its_history() -> None:
    known = fact("balance.history trade rows")
    money = Decimal(known["value"][0])
    rules = wide(0, 16)
    # The money is known to 16 digits only, so it is taken as the price of one piece.
    leg = leg_of(rules, make(SELL, (20, 0)), (1, int(money.scaleb(16)), 1), TAKER)
    assert exact(leg.credit) == money
    assert exact(leg.fee) == Decimal(known["value"][1])
    # The rows of the reference show 8 digits, and this server would show all.
    shown = [Decimal(text) for text in known["doc"]]
    assert [round(-exact(v), 8) for v in (leg.credit, leg.fee)] == shown
