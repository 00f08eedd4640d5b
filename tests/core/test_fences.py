"""Fences by epoch: who has been replaced is not listened to, and ends when it is told.

Nothing leaves an actor without an append or an owner check, so where those are exact (as in the
simulation) two of these are a second line: the simulation takes them for granted only because
these tests fail without them, which it shows by planting their absence.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.custodian import Custodian, CustodianLimits
from excore_ray.core.desk import Desk
from excore_ray.core.market import Market
from excore_ray.core.orders import Side, order_id_of
from excore_ray.core.registrar import Registrar, RegistrarLimits
from excore_ray.core.sequencer import Sequencer
from excore_ray.core.shardlink import SequencerLimits
from excore_ray.core.turns import Turn
from tests.core.machines import (
    MONEY,
    PLAIN,
    START_US,
    STOCK,
    new_catalog,
    new_ledger,
    put_limit,
    update,
)

ALICE = 1
OLD, NEW = 1, 2
NOTHING: list[int] = []


def shard_that_knows_the_new_epoch() -> Custodian:
    """Alice has 10; the market's new epoch holds 1 of them for an order."""
    ledger = new_ledger()
    custodian = Custodian(ledger, CustodianLimits())
    custodian.open(START_US, None)
    ledger.execute(update(ALICE, STOCK, 10))
    custodian.receive("market-1", reservation(NEW, 9), START_US)
    custodian.turn(START_US)
    return custodian


def reservation(epoch: int, number: int) -> m.ToShard:
    """A market of `epoch` wants one stock of Alice's for its order of this number."""
    order_id = order_id_of(number, 1)
    hold = c.Hold(order_id, ALICE, STOCK, 1, True)
    return m.ToShard(1, epoch, order_id, [hold], [], [], 1, [], (0, 0))


def market_in_its_first_epoch() -> Sequencer:
    sequencer = Sequencer(Market(), SequencerLimits())
    sequencer.open(START_US, c.CreateMarket(PLAIN, 1))
    return sequencer


def shard_in_its_first_epoch() -> Custodian:
    custodian = Custodian(new_ledger(), CustodianLimits())
    custodian.reception.epoch = OLD
    return custodian


def catalog_in_its_first_epoch() -> Registrar:
    registrar = Registrar(new_catalog(), RegistrarLimits())
    registrar.reception.epoch = OLD
    return registrar


DESKS: dict[str, tuple[Callable[[], Desk], m.Ask]] = {
    "market": (market_in_its_first_epoch, put_limit(ALICE, Side.BUY, 1, 100)),
    "shard": (shard_in_its_first_epoch, update(ALICE, MONEY, 10)),
    "catalog": (catalog_in_its_first_epoch, m.AskStatus()),
}


def turn_of(desk: Desk) -> Turn:
    assert isinstance(desk, Sequencer | Custodian | Registrar)
    return desk.turn(START_US)


def test_a_shard_does_not_listen_to_an_older_epoch() -> None:
    custodian = shard_that_knows_the_new_epoch()
    before = custodian.ledger.available(ALICE, STOCK)
    # Later than all that is decided, so that nothing but its epoch speaks against it.
    custodian.receive("market-1", reservation(OLD, 10), START_US)
    turn = custodian.turn(START_US)
    assert turn.record is None, "it became a record"
    assert custodian.ledger.available(ALICE, STOCK) == before == 9
    told = m.ToMarket(0, 0, NEW, NOTHING, NOTHING, NOTHING, NOTHING)
    assert turn.sends == [("market-1", told)], "and the answer shows the newer epoch"


def test_a_market_ends_when_a_shard_knows_a_newer_epoch() -> None:
    sequencer = market_in_its_first_epoch()
    # What the successor has had applied is ahead of all that this one has ever emitted.
    sequencer.receive("ledger-0", m.ToMarket(0, 5, NEW, [], [], [], []), START_US)
    assert sequencer.turn(START_US).fenced == "shard 0 knows epoch 2"


@pytest.mark.parametrize("kind", DESKS)
def test_an_actor_ends_when_a_gateway_knows_a_newer_epoch(kind: str) -> None:
    make, ask = DESKS[kind]
    for epoch, fenced in ((OLD, ""), (NEW, "a gateway knows epoch 2, this is 1")):
        desk = make()
        batch = m.Batch(epoch, [1], [START_US + 10_000_000], [ask])
        desk.receive("gateway-1", batch, START_US)
        assert turn_of(desk).fenced == fenced
