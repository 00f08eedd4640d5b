"""Registrar: a change of the catalog is answered when nobody can be using an older copy."""

from __future__ import annotations

from excore_ray.core import commands as c
from excore_ray.core import messages as m
from excore_ray.core.reasons import Reason, Refused
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


def test_a_renamed_market_keeps_its_old_name_from_others_by_its_record() -> None:
    registrar = Registrar(new_catalog(), LIMITS)
    registrar.open(START_US, None)
    registrar.turn(START_US)
    now_us = START_US + LIMITS.lease_us + LIMITS.slack_us
    for number, asset in enumerate("SM"):
        ask(registrar, c.AddAsset(b"%016d" % number, 0, asset, 8, 8, ""), now_us)
    ask(registrar, c.AddMarket(b"m" * 16, 0, "A", "S", 0, "M", 0, 1, ""), now_us)
    ask(registrar, c.RenameMarket(b"r" * 16, 0, "A", "B"), now_us)
    record = registrar.turn(now_us).record
    assert record is not None
    assert record.commands[-1] == c.RenameMarket(b"r" * 16, 0, "A", "B", c.NAME_KEPT_US)
    ask(registrar, c.AddMarket(b"n" * 16, 0, "A", "S", 0, "M", 0, 1, ""), now_us + 10_000_000)
    [refused] = answers(registrar.turn(now_us + 10_000_000))
    assert type(refused) is Refused
    assert (refused.reason, refused.detail[-25:]) == (
        Reason.EXISTS_YET,
        "old name is free in 170 s",
    )


def ask(registrar: Registrar, command: c.Command, now_us: int) -> None:
    batch = m.Batch(registrar.catalog.epoch, [1], [now_us + 10**9], [command])
    registrar.receive(GATEWAY, batch, now_us)


def answers(turn: Turn) -> list[m.Answer]:
    """All that is answered in a turn, in its order."""
    replies = [message for _, message in turn.sends if type(message) is m.Replies]
    return [answer for reply in replies for answer in reply.answers]
