"""Turn: what one step of an actor wants of the world, in the order it may happen.

Separate because every actor has the same rule: nothing leaves before the records behind it are
durable and the ownership of the journal was confirmed after the question arrived.  The shells
and the simulation both obey a Turn; neither needs to know what is in it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from excore_ray.core.messages import WireMessage

Send = tuple[str, WireMessage]  # the peer's name and what to tell it


class Turn(msgspec.Struct, frozen=True):
    """One step of an actor.

    record: what to append, None for nothing.  keys: dedupe keys to append with it.
    sends: what may leave when the record is durable, or, without one, when ownership was
    confirmed.  fenced: why this incarnation must end now, without any send; "" otherwise.
    """

    record: Any | None
    keys: list[bytes]
    sends: list[Send]
    fenced: str = ""


class Superseded(Exception):
    """A newer incarnation of this actor is known to exist: this one must end, sending nothing."""
