"""A deal as postings: what each side pays, receives, is charged, and owes its referrer.

Separate because this is where money is rounded, and nowhere else.  It must not know shards,
books or journals.

Source: the RPC reference: fees are taken from what a side receives, a seller's in money, a
buyer's in stock; the taker pays taker_fee, the maker maker_fee.
"""

from __future__ import annotations

from excore_ray.core.commands import Entry, Leg, Referral
from excore_ray.core.orders import FEE_SCALE, Order, Role, Side
from excore_ray.core.specs import MarketRules

# Looked up by name where it is hot: an enumeration's member costs three times as much.
_SELL, _TAKER = Side.SELL, Role.TAKER


def leg_of(rules: MarketRules, order: Order, deal: tuple[int, int, int], role: Role) -> Leg:
    """What one side of a deal pays and receives.

    deal: (deal_id, price at money_prec, amount at stock_prec).  role: of `order` in it.
    The fee is truncated to the received asset's prec_save, in the receiver's favour; a referral
    share is truncated too, its dust stays with the fee.
    """
    deal_id, price, amount = deal
    rate = order.taker_fee if role == _TAKER else order.maker_fee
    if order.side == _SELL:
        debit = amount * rules.stock_unit
        credit = amount * price * rules.money_unit
        asset = rules.money_id
    else:
        debit = amount * price * rules.money_unit
        credit = amount * rules.stock_unit
        asset = rules.stock_id
    fee = credit * rate // FEE_SCALE
    referral = fee * order.ref_rate // FEE_SCALE if order.ref_user else 0
    return Leg(
        order.order_id,
        order.user,
        order.side,
        role,
        deal_id,
        price,
        amount,
        rate,
        debit,
        asset,
        credit,
        fee,
        referral,
    )


def referral_of(order: Order, leg: Leg) -> Referral:
    """The referrer's share of `leg`, which must have one."""
    is_stock = order.side == Side.BUY
    return Referral(
        order.ref_user, leg.credit_asset, leg.referral, order.order_id, leg.deal_id, is_stock
    )


def moved_by(entry: Entry) -> tuple[int, int]:
    """How much (stock, money), at prec_save, the entry moves to the shard that applies it."""
    if type(entry) is Leg:
        received = entry.credit - entry.referral
        return (-entry.debit, received) if entry.side == _SELL else (received, -entry.debit)
    if type(entry) is Referral:
        return (entry.amount, 0) if entry.is_stock else (0, entry.amount)
    return 0, 0


def need_of(rules: MarketRules, order: Order) -> int:
    """What must be frozen for `order.left`, at prec_save of the asset it gives.

    A seller's stock; a limit buyer's money at its own price, without any fee; the money a
    market buyer still has to spend.
    """
    if order.side == _SELL:
        return order.left * rules.stock_unit
    if order.price:
        return order.left * order.price * rules.money_unit
    return order.left * rules.money_unit
