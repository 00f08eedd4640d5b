"""Run: one drill from the first process of its exchange to the verdict.

Separate so that the command and the tests run the same.  A composition root: it alone brings
clients, nemesis, exchange and checker together.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from api.client import DEADLINE_MAX_S, Client, ExcoreRpcError, NoAnswer
from excore_ray.drill.check_commands import Matched, check_commands
from excore_ray.drill.check_reads import check_reads, watched
from excore_ray.drill.check_state import check_state
from excore_ray.drill.clients import MARKETS, PENDING_MAX, Customer, Shop
from excore_ray.drill.history import History, Operation
from excore_ray.drill.journals import Journals, read_all
from excore_ray.drill.nemesis import Nemesis
from excore_ray.drill.recovery import Recovered, recoveries
from excore_ray.drill.served import Served
from excore_ray.drill.verdict import Violation
from excore_ray.offline.deep import audit_deep
from excore_ray.serving import Places

SHARDS, GATEWAYS = 2, 2
_TELL_S = 10.0
_CALM_S = 5.0  # of peace at the end, for what was hit last
_CLIENTS_END_S = 60.0
_AUDIT_S = 60.0
# Journals are kept whole for the checker; snapshots come often, so that restarts begin with one.
_CONFIG = """
[compactor]
truncate = false
compact_s = 5.0
records_min = 500
[shell]
checkpoint_records = 200
"""

Tell = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True):
    """What is drilled.  data: an empty directory, or one that is not there.

    minutes: of faults, and longer if not every kind has happened by then.  open_orders: rest in
    the books before the first fault.
    """

    data: Path
    minutes: float
    seed: int
    clients: int = 8
    open_orders: int = 0


class Outcome(msgspec.Struct):
    """What came of a drill.  surprises: ends of the exchange that no fault explains."""

    plan: Plan
    operations: list[Operation]
    matched: Matched
    violations: list[Violation]
    recovered: list[Recovered]
    restarts: int
    surprises: list[str]
    seconds: float


def drill(plan: Plan, tell: Tell) -> Outcome:
    """Serve, trade and strike, then judge.  tell: what is going on, in sentences.

    Raises ExcoreError when there is nothing to judge: the exchange did not start, or could not be
    read.  Ends all its processes, however it ends.
    """
    plan.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = plan.data / "drill.toml"
    config.write_text(_CONFIG)
    began = time.monotonic()
    history = History(plan.data / "history.jsonl")
    options = ("--shards", str(SHARDS), "--gateways", str(GATEWAYS), "--config", str(config))
    served = Served(plan.data / "data", *options, environment=_environment())
    try:
        served.start()
        # The next starts must be found by the same clients.
        served.port = int(served.url.rpartition(":")[2])
        nemesis, violations = _play(plan, served, history, tell)
        violations += _settle(served)
    finally:
        served.clear()
        history.close()
    tell("replaying the journals")
    judged = judge(history, served.places)
    return Outcome(
        plan,
        history.operations,
        judged.matched,
        violations + judged.violations,
        recoveries(history.operations, history.faults, judged.matched),
        nemesis.restarts,
        nemesis.surprises,
        time.monotonic() - began,
    )


class Judged(msgspec.Struct):
    """What the journals say to a history."""

    matched: Matched
    violations: list[Violation]


def judge(history: History, places: Places) -> Judged:
    """Hold a history against the journals and the lake of an exchange at rest."""
    journals = read_all(places.journals, watched(history.operations))
    judged = compare(history.operations, journals)
    report = audit_deep(places.journals, str(places.lake))
    judged.violations += [Violation("audit", f"{f.where}: {f.what}") for f in report.findings]
    return judged


def compare(operations: list[Operation], journals: Journals) -> Judged:
    """Hold what clients were told against what journals say: all of the checker."""
    matched = Matched(operations, journals)
    violations = check_commands(operations, matched)
    violations += check_reads(operations, matched)
    violations += check_state(operations, matched)
    return Judged(matched, violations)


def _play(
    plan: Plan, served: Served, history: History, tell: Tell
) -> tuple[Nemesis, list[Violation]]:
    """Trade and strike, as long as planned, and a little in peace; who failed at it is told."""
    tell(f"serving at {served.url}, data in {served.data}")
    shop = Shop(served.url, served.credential(), history, plan.clients)
    shop.open()
    if plan.open_orders:
        shop.fill(plan.open_orders, lambda count: tell(f"{count} orders are open"))
    ended, struck = threading.Event(), threading.Event()
    customers = [Customer(number, shop, plan.seed, ended) for number in range(plan.clients)]
    streams = [path.stem for path in sorted(served.places.journals.glob("*.db"))]
    nemesis = Nemesis(served, streams, history, plan.seed, struck)
    for customer in customers:
        customer.start()
    nemesis.start()
    _wait(nemesis, plan.minutes * 60, history, tell)
    struck.set()
    while nemesis.is_alive():
        nemesis.join(_TELL_S)
        tell(_figures(history))
    time.sleep(_CALM_S)
    ended.set()
    found = []
    for customer in customers:
        customer.join(_CLIENTS_END_S)
        if customer.error is not None or customer.is_alive():
            found.append(Violation("client", f"{customer.name} ended: {customer.error!r}"))
    if nemesis.error is not None:
        found.append(Violation("recovery", f"the nemesis gave up: {nemesis.error}"))
    _read_everything(shop)
    return nemesis, found


def _wait(nemesis: Nemesis, wait_s: float, history: History, tell: Tell) -> None:
    until = time.monotonic() + wait_s
    while nemesis.is_alive() and (left_s := until - time.monotonic()) > 0:
        nemesis.join(min(left_s, _TELL_S))
        tell(_figures(history))


def _figures(history: History) -> str:
    return f"{len(history.operations)} operations, {len(history.faults)} faults"


def _read_everything(shop: Shop) -> None:
    """What everybody sees in the end is part of the history, too."""
    sender = shop.sender(len(shop.users))
    try:
        for users in shop.users.values():
            for user in users:
                sender.stamped("balance.query", user)
                for market in MARKETS:
                    sender.stamped("order.pending", user, market, 0, PENDING_MAX)
        for market in MARKETS:
            sender.stamped("market.deal_history", market, 1000, 0)
        sender.stamped("asset.list", 0, 1000)
    finally:
        sender.close()


def _settle(served: Served) -> list[Violation]:
    """Audit the exchange while it runs, and stop it in order."""
    until = time.monotonic() + _AUDIT_S
    found: list[Violation] = []
    with Client(f"{served.url}/", *served.credential(), deadline_s=DEADLINE_MAX_S) as client:
        while True:
            try:
                audit = client.call("exchange.audit")
            except (ExcoreRpcError, NoAnswer) as fault:
                found = [Violation("audit", f"exchange.audit: {fault}")]
            else:
                found = [Violation("audit", str(finding)) for finding in audit["findings"]]
                if found or not audit["behind"]:
                    break
                found = [Violation("audit", f"{audit['behind']} shards stay behind their markets")]
            if time.monotonic() >= until:
                break
            time.sleep(1.0)
    code = served.stop()
    if code != 0:
        found.append(Violation("stop", f"it ended with {code}: {served.told()}"))
    return found


def _environment() -> dict[str, str]:
    """This process's variables, without those that would choose other settings or another Ray."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EXCORE_", "RAY_"))
    }
