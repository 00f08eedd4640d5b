"""Registrar: a change of the catalog is answered when nobody can be using an older copy."""

from __future__ import annotations

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.registrar import Registrar, RegistrarLimits
from tests.core.machines import START_US, new_catalog

LIMITS = RegistrarLimits()
GATEWAY = "gateway-1"


def answered(registrar: Registrar, now_us: int) -> bool:
    """Whether a turn at this time answers the change that was asked for."""
    turn = registrar.turn(now_us)
    replies = [message for _, message in turn.sends if type(message) is m.Replies]
    return any(m.Done() in reply.answers for reply in replies)


def test_a_start_waits_for_leases_given_until_its_epoch_was_durable() -> None:
    registrar = Registrar(new_catalog(), LIMITS)
    registrar.open(START_US, None)
    # Its append took long, and all the while the last incarnation renewed leases.
    durable_us = START_US + 10 * LIMITS.lease_us
    ask = c.AddAsset(b"r" * 16, 0, "GOLD", 8, 8, "")
    batch = m.Batch(registrar.catalog.epoch, [1], [durable_us + 10**9], [ask])
    registrar.receive(GATEWAY, batch, durable_us)
    assert not answered(registrar, durable_us)
    over_us = durable_us + LIMITS.lease_us + LIMITS.slack_us
    assert not answered(registrar, over_us - 1)
    assert answered(registrar, over_us)
