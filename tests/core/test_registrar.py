"""Registrar: a change of the catalog is answered when nobody can be using an older copy."""

from __future__ import annotations

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.reasons import Refused
from excore_ray.core.registrar import Registrar, RegistrarLimits
from excore_ray.core.turns import Turn
from tests.core.machines import START_US, new_catalog

LIMITS = RegistrarLimits()
GATEWAY = "gateway-1"


def test_a_start_waits_for_leases_given_until_its_epoch_was_durable() -> None:
    registrar = Registrar(new_catalog(), LIMITS)
    registrar.open(START_US, None)
    # Its append took long, and all the while the last incarnation renewed leases.
    durable_us = START_US + 10 * LIMITS.lease_us
    ask(registrar, c.AddAsset(b"r" * 16, 0, "GOLD", 8, 8, ""), durable_us)
    assert answers(registrar.turn(durable_us)) == []
    over_us = durable_us + LIMITS.lease_us + LIMITS.slack_us
    assert answers(registrar.turn(over_us - 1)) == []
    assert answers(registrar.turn(over_us)) == [m.Done()]


def test_a_second_revocation_is_answered_when_the_first_is_everywhere() -> None:
    registrar = Registrar(new_catalog(), LIMITS)
    registrar.open(START_US, None)
    now_us = START_US
    registrar.turn(now_us)
    now_us += LIMITS.lease_us + LIMITS.slack_us
    ask(registrar, c.AddKey(b"1" * 16, 0, "k", "s", 7, ""), now_us)
    assert len(answers(registrar.turn(now_us))) == 1
    # Another gateway may use this copy for a second, and falls silent.
    registrar.receive("gateway-2", m.Renew(registrar.catalog.version, now_us), now_us)
    registrar.turn(now_us)
    for request_id in (b"2" * 16, b"3" * 16):
        ask(registrar, c.RevokeKey(request_id, 0, "k"), now_us)
        assert answers(registrar.turn(now_us)) == []
    now_us += LIMITS.lease_us + LIMITS.slack_us
    done, refused = answers(registrar.turn(now_us))
    assert done == m.Done()
    assert type(refused) is Refused


def ask(registrar: Registrar, command: c.Command, now_us: int) -> None:
    batch = m.Batch(registrar.catalog.epoch, [1], [now_us + 10**9], [command])
    registrar.receive(GATEWAY, batch, now_us)


def answers(turn: Turn) -> list[m.Answer]:
    """All that is answered in a turn, in its order."""
    replies = [message for _, message in turn.sends if type(message) is m.Replies]
    return [answer for reply in replies for answer in reply.answers]
