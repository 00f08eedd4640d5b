"""Plan: what each process of an exchange is told when it starts.

Separate so that a process may read its part without importing what others run.  All of it are
plain values, for they travel between processes and are kept by Ray: no secrets, no handles.
"""

from __future__ import annotations

from typing import Any

import msgspec

from excore_ray.actors.compactor import CompactorSettings
from excore_ray.actors.shell import ShellSettings
from excore_ray.actors.wire import DEFAULT_LIMITS, Limits
from excore_ray.core.custodian import CustodianLimits
from excore_ray.core.registrar import RegistrarLimits
from excore_ray.core.shardlink import SequencerLimits


class NodeSettings(msgspec.Struct, frozen=True):
    """What every process of a node is told.

    data: the directory of the journals.  logs: of the log files, one for each actor.
    secret: the file of the cluster secret.  host: the address the wire listens on.
    kill_after_s: how long a predecessor that holds a journal is waited for before it is ended.
    reopen_pause_s: how long a process that cannot open its part lingers before it ends.
    """

    data: str
    logs: str
    secret: str
    host: str = "127.0.0.1"
    log_level: str = "INFO"
    kill_after_s: float = 5.0
    reopen_pause_s: float = 2.0
    shell: ShellSettings = ShellSettings()
    wire: Limits = DEFAULT_LIMITS
    sequencer: SequencerLimits = SequencerLimits()
    custodian: CustodianLimits = CustodianLimits()
    registrar: RegistrarLimits = RegistrarLimits()


class HttpLimits(msgspec.Struct, frozen=True):
    """What one gateway bears of its clients.

    connections_max: beyond it the oldest goes that owes a request and was never signed, and when
    there is none the new one is refused.  address_connections_max: of one address; behind a
    proxy all have the same, so it stops nobody unless it is lowered.
    head_s: from the opening of a connection, or the first byte of a request, to the end of its
    headers.  body_s: from there to its last byte.  send_s: in which a client must take some of
    the reply that waits for it.  keep_alive_s: between two requests of a connection.
    head_bytes_max: request line and headers.  bodies_bytes_max: unfinished bodies of all
    connections.  unsent_bytes_max: replies that wait to be read, of all connections.
    pipelined_max: requests sent ahead of the answer to the first; those beyond are not read, and
    the last answer says that the connection closes.
    """

    connections_max: int = 8192
    address_connections_max: int = 1_000_000
    head_s: float = 10.0
    body_s: float = 20.0
    send_s: float = 10.0
    keep_alive_s: int = 75
    head_bytes_max: int = 16 * 1024
    bodies_bytes_max: int = 32 * 1024 * 1024
    unsent_bytes_max: int = 256 * 1024 * 1024
    pipelined_max: int = 16
    backlog: int = 2048


class Rate(msgspec.Struct, frozen=True):
    """A token bucket.  per_s: tokens it gains a second.  burst: the most it holds."""

    per_s: float
    burst: int


class RequestLimits(msgspec.Struct, frozen=True):
    """How many requests one gateway takes; n gateways take up to n times as many.

    key: of one API key, cancels excepted.  user: order.put_* and balance.update for one user.
    key_cancels, user_cancels: order.cancel, which has allowances of its own, so that who has
    used up the others can still cancel.  Beyond them: code 9.

    The defaults are above what a gateway can do for a key and what a person or a market maker
    needs, and keep one user from taking an exchange for himself.
    """

    key: Rate = Rate(100_000, 200_000)
    key_cancels: Rate = Rate(100_000, 200_000)
    user: Rate = Rate(5_000, 20_000)
    user_cancels: Rate = Rate(5_000, 20_000)


class GatewaySettings(msgspec.Struct, frozen=True):
    """What a gateway is told.

    application: "module:function", called as function(exchange, application_settings), returns
    an ASGI application.  application_settings: anything that can be pickled.
    exchange: "module:class", called as class(wiring, clock).
    host, port: where it listens, together with the other gateways; port 0 takes a free one.
    """

    application: str
    application_settings: Any
    host: str = "127.0.0.1"
    port: int = 8080
    exchange: str = "excore_ray.exchange:Exchange"
    limits: HttpLimits = HttpLimits()


class ArchiveSettings(msgspec.Struct, frozen=True):
    """poll_s: seconds between two rounds.

    rows_max: so many rows of a stream are written at once; it is read no further while it holds
    more.  age_s: seconds after which fewer are written.  idle_s: seconds after which the
    watermark of a stream without new rows moves.
    """

    poll_s: float = 0.5
    rows_max: int = 50_000
    age_s: float = 2.0
    idle_s: float = 5.0


class ServiceSettings(msgspec.Struct, frozen=True):
    """memory_mb: DuckDB's, for all questions.
    threads, wide_threads: for questions, and for those that may read many files.

    asks_max: questions under way; beyond it they are refused with SERVICE_UNAVAILABLE.
    question_s: after so long a question is given up.
    """

    memory_mb: int = 1024
    threads: int = 4
    wide_threads: int = 2
    asks_max: int = 2_000
    question_s: float = 9.0


class LakeSettings(msgspec.Struct, frozen=True):
    """The lake of an exchange.

    url: a directory or any fsspec URL; "" for the directory `lake` beside the journals.
    keep_days: how many whole days of deals, orders and balances are kept, 0 for ever; bars are
    kept always.  upkeep_s: seconds between two looks for files to merge.  busy_rows_s: new rows a
    second from which on a merge waits for more files, so that rows are merged less often.
    grace_s: how long a replaced file is left to those who still read it.  niceness: of the
    process where it cannot give way to trading altogether.  flush: when rows become files.
    questions: how they are answered.
    """

    url: str = ""
    keep_days: int = 0
    upkeep_s: float = 10.0
    busy_rows_s: float = 10_000.0
    grace_s: float = 600.0
    niceness: int = 5
    flush: ArchiveSettings = ArchiveSettings()
    questions: ServiceSettings = ServiceSettings()


class ClusterSettings(msgspec.Struct, frozen=True):
    """A whole exchange.

    shards: of the ledger, at the first start; afterwards the catalog knows.
    gateway, gateways: what each is told, and how many share the port; None for none.
    address: of a running Ray to use; "" starts a private one, with `cpus` for Ray's own use.
    start_s: how long everything may take to serve, long replays included.
    """

    node: NodeSettings
    gateway: GatewaySettings | None = None
    gateways: int = 1
    shards: int = 2
    compactor: CompactorSettings = CompactorSettings()
    lake: LakeSettings = LakeSettings()
    address: str = ""
    cpus: int = 1
    start_s: float = 600.0
