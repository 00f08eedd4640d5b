"""Ledger shell: a custodian on its journal, which also knows every key that was ever used.

Separate because only a ledger looks keys up, before a turn and in one go.  It must not know
accounts.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from excore_ray.actors.replay import Rebuilt, rebuild
from excore_ray.actors.shell import Around, Shell
from excore_ray.core.commands import CreateShard
from excore_ray.core.custodian import Custodian, CustodianLimits, keys_of
from excore_ray.core.ledger import Ledger
from excore_ray.core.messages import WireMessage
from excore_ray.errors import JournalForeign
from excore_ray.storage.journal import Journal

logger = logging.getLogger(__name__)


class LedgerShell(Shell):
    """One incarnation of a ledger shard.  Made by open_ledger()."""

    def __init__(
        self, custodian: Custodian, rebuilt: Rebuilt, journal: Journal, around: Around
    ) -> None:
        super().__init__(custodian, rebuilt, journal, around)
        self._custodian = custodian

    async def prepare(self, messages: Sequence[WireMessage]) -> None:
        """Ask the journal which keys of the turn it knows; the desk knows those of the turn."""
        keys = dict.fromkeys(key for message in messages for key in keys_of(message))
        if keys:
            self._custodian.known = await self.journal.find_keys(list(keys))


async def open_ledger(
    create: CreateShard, limits: CustodianLimits, journal: Journal, around: Around
) -> LedgerShell:
    """Bring a shard back from its journal, or create it, and serve.

    create: which shard of how many, which the journal of an existing one must agree with.
    Raises JournalForeign when it does not, and what replay and `Shell.open` raise.
    """
    rebuilt = await rebuild(journal, "ledger")
    ledger = rebuilt.machine
    assert type(ledger) is Ledger
    if rebuilt.seq and (ledger.shard, ledger.shards) != (create.shard, create.shards):
        raise JournalForeign(
            f"stream {journal.stream} is of shard {ledger.shard} of {ledger.shards}; the catalog"
            f" says {create}. Do not mix the files of two exchanges."
        )
    custodian = Custodian(ledger, limits)
    first = custodian.open(around.clock.now_us(), None if rebuilt.seq else create)
    shell = LedgerShell(custodian, rebuilt, journal, around)
    await shell.open(first)
    logger.info("%s serves epoch %d at %s", journal.stream, ledger.epoch, shell.endpoint)
    return shell
