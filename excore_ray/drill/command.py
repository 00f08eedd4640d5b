"""The command `excore drill`: for operators who want to see it before they believe it.

Separate because it is for people.  Exit codes are those of `excore`: 0 every promise was kept;
1 one was broken, or there was nothing to judge; 2 wrong use.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from excore_ray.drill.report import print_outcome
from excore_ray.drill.run import Plan, drill
from excore_ray.errors import ExcoreError

WRONG, MISUSED = 1, 2
_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


def add_drill(app: typer.Typer) -> None:
    """Give `app` the command drill."""

    @app.command("drill", epilog="Example: excore drill --minutes 20 --open-orders 100000")
    def drill_command(
        minutes: Annotated[float, typer.Option(min=0.0, help="How long to strike.")] = 20.0,
        seed: Annotated[int | None, typer.Option(help="Of clients and faults; chosen.")] = None,
        clients: Annotated[int, typer.Option(min=1, max=64, help="At work at once.")] = 8,
        data: Annotated[
            Path | None, typer.Option(help="A directory that is empty or not there; kept.")
        ] = None,
        open_orders: Annotated[
            int, typer.Option(min=0, help="Resting in the books before the first fault.")
        ] = 0,
    ) -> None:
        """Kill and stop the parts of an exchange at work, and prove that nothing was lost.

        The exchange is one of its own, on fresh data; a running one is left alone.  Markets,
        ledger shards, catalog, gateways, archive, compactor and Ray's own processes are killed,
        or stopped for up to 5 s, while clients trade.  Then all they were told is held against
        the journals and the lake: executed once, in the order of time, answered as journaled.
        """
        if data is not None and data.exists() and (not data.is_dir() or any(data.iterdir())):
            _err.print(f"excore: {data} is not an empty directory", markup=False)
            raise typer.Exit(MISUSED)
        place = data or Path(tempfile.mkdtemp(prefix="excore-drill-"))
        chosen = seed if seed is not None else random.SystemRandom().randrange(2**32)
        _out.print(f"seed {chosen}, in {place}", markup=False)
        plan = Plan(place.resolve(), minutes, chosen, clients, open_orders)
        try:
            outcome = drill(plan, lambda text: print(text, flush=True))
        except (ExcoreError, AssertionError) as fault:
            notes = " ".join(getattr(fault, "__notes__", []))
            _err.print(f"excore: {type(fault).__name__}: {fault} {notes}", markup=False)
            _err.print(f"all of it is kept in {place}", markup=False)
            raise typer.Exit(WRONG) from fault
        print_outcome(outcome, _out)
        if outcome.violations:
            _out.print(f"all of it is kept in {place}", markup=False)
            raise typer.Exit(WRONG)
        if data is None:
            shutil.rmtree(place)
