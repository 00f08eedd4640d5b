"""The `excore` command: start an exchange, look at it, check it, rebuild its past, manage its keys.

Separate because it is for people: it prints, and turns every failure into one sentence and an
exit code.  A composition root.

Exit codes: 0 done; 1 something is wrong with the exchange, or it cannot be reached; 2 wrong use
or wrong settings.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from analytics import cli
from analytics.cli_compact import add_compact
from api.client import DEADLINE_MAX_S, Client, ExcoreRpcError, NoAnswer
from excore_ray.actors.replay import kind_of, replay
from excore_ray.core.audit import check_catalog, check_ledger, check_market
from excore_ray.core.catalog import Catalog
from excore_ray.core.market import Market
from excore_ray.core.snapshot import AnyMachine, state_hash
from excore_ray.drill.command import add_drill
from excore_ray.errors import ExcoreError, SettingsError
from excore_ray.offline.command import (
    CONFIG_HELP,
    DATA_HELP,
    LAKE_HELP,
    add_backup,
    locate,
    print_deep_audit,
)
from excore_ray.serving import Places, read_admin, read_running, serve
from excore_ray.settings import Settings, load
from excore_ray.storage.sqlite import read_sqlite

WRONG, MISUSED = 1, 2
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="An exchange core: markets, a ledger and an RPC gateway, durable and exact.",
    epilog="Begin with: excore serve",
)
keys_app = typer.Typer(no_args_is_help=True, help="API credentials: add, list, revoke.")
app.add_typer(keys_app, name="keys")
lake_app = typer.Typer(
    no_args_is_help=True, help="The lake of Parquet files: look at it, check it, merge its files."
)
app.add_typer(lake_app, name="lake")

DataOption = Annotated[str | None, typer.Option("--data", help=DATA_HELP)]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Where the exchange serves; default: the one on --data."),
]


@app.command("serve")
def serve_command(
    host: Annotated[str | None, typer.Option(help="Address to serve on.  [EXCORE_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port, 0 for a free one.  [EXCORE_PORT]")] = None,
    data: DataOption = None,
    config: Annotated[Path | None, typer.Option(help="Settings in TOML.")] = None,
    gateways: Annotated[int | None, typer.Option(help="HTTP processes sharing the port.")] = None,
    shards: Annotated[
        int | None, typer.Option(help="Ledger shards; fixed when the directory is created.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Serve without signatures; loopback only.")
    ] = False,
) -> None:
    """Serve an exchange until Ctrl-C; start again on the same data to continue.

    The first start makes the data directory and an admin credential in it, unless EXCORE_API_KEY
    and EXCORE_API_SECRET name one.  It serves when a line begins with "excore ready".
    """
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "data": data,
        "gateways": gateways,
        "shards": shards,
        "auth": False if no_auth else None,
    }
    with _failures():
        settings = load(config, os.environ, options)
        # Every process of the exchange inherits the environment, and none has use for these.
        for name in ("EXCORE_API_KEY", "EXCORE_API_SECRET"):
            os.environ.pop(name, None)
        asyncio.run(serve(settings, lambda text: print(text, flush=True)))


@app.command()
def status(data: DataOption = None, url: UrlOption = None) -> None:
    """Show every actor: where it runs, its epoch, its journal, its lag, its memory."""
    with _failures(), _client(data, url) as client:
        found = client.call("exchange.status")
    table = Table("actor", "name", "node", "pid", "epoch", "next seq", "MB", "figures", box=None)
    shown = [found["catalog"], *found["shards"], *found["markets"], found["archive"]]
    for one in shown:
        table.add_row(*_status_row(one))
    out.print(table)
    if any("error" in one for one in shown):
        raise typer.Exit(WRONG)


@app.command()
def audit(
    data: DataOption = None,
    url: UrlOption = None,
    online: Annotated[
        bool, typer.Option("--online", help="Only ask the actors; leave the journals alone.")
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Ask nobody: judge by journals and lake alone.")
    ] = False,
    lake: Annotated[str | None, typer.Option(help=f"With --deep.  {LAKE_HELP}")] = None,
    config: Annotated[Path | None, typer.Option(help=CONFIG_HELP)] = None,
) -> None:
    """Check that the books balance while the exchange runs, then replay its journals.

    Asked of the actors: per asset and shard, available + frozen + fees == updates + received;
    what markets moved is what shards received; every open order has exactly its funds frozen.
    Replayed from the journals: order ids only grow, deal ids have no gap, no request ran twice,
    and every recorded state_hash comes out again.  Exit code 1 when anything is found.
    With --deep no exchange need run: snapshots, entries between actors and the lake are compared.
    """
    with _failures():
        if deep:
            if url or online:
                raise SettingsError("--deep asks nobody: it goes with neither --url nor --online")
            exact = print_deep_audit(locate(data, config, lake))
            raise typer.Exit(0 if exact else WRONG)
        if lake is not None:
            raise SettingsError("--lake goes with --deep: without it no lake is looked at")
        places = locate(data, config).places
        with _client(str(places.data), url) as client, out.status("asking every actor"):
            found = client.call("exchange.audit")
        findings = list(found["findings"])
        out.print(
            f"asked: {found['markets']} markets, {found['shards']} shards, {found['assets']}"
            f" assets, {found['holds']} holds; {found['behind']} shards behind"
        )
        if not online:
            findings += _replay_all(places)
    for finding in findings:
        out.print(finding, style="red")
    out.print("exact" if not findings else f"{len(findings)} findings")
    if findings:
        raise typer.Exit(WRONG)


@app.command("replay")
def replay_command(
    stream: Annotated[str, typer.Argument(help="catalog, ledger-0, market-1, ...")],
    to: Annotated[int | None, typer.Option(help="The last entry to apply; default all.")] = None,
    data: DataOption = None,
) -> None:
    """Rebuild a stream from its journal up to an entry; print the sequence and the state_hash.

    Works beside a running exchange, and changes nothing.
    """
    with _failures():
        machine, seq = _replay_stream(_places(data), stream, to)
    out.print(f"{stream} sequence {seq} state_hash {state_hash(machine)}")


@keys_app.command("add")
def keys_add(
    scopes: Annotated[list[str], typer.Argument(help="Any of: read trade admin")],
    notes: Annotated[str, typer.Option(help="What the key is for.")] = "",
    data: DataOption = None,
    url: UrlOption = None,
) -> None:
    """Make a credential.  Its secret is printed once, and kept nowhere that shows it again."""
    with _failures(), _client(data, url) as client:
        made = client.call("keys.add", scopes, notes)
    out.print(f"key    {made['key']}\nsecret {made['secret']}")


@keys_app.command("list")
def keys_list(data: DataOption = None, url: UrlOption = None) -> None:
    """List the credentials, without their secrets."""
    with _failures(), _client(data, url) as client:
        found = client.call("keys.list")
    # A key that was cut could not be revoked.
    key = Column("key", no_wrap=True)
    table = Table(key, "scopes", "revoked", Column("notes", overflow="fold"), box=None)
    for one in found:
        table.add_row(one["key"], " ".join(one["scopes"]), str(one["revoked"]), one["notes"])
    out.print(table)


@keys_app.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="The key, as `excore keys list` shows it.")],
    data: DataOption = None,
    url: UrlOption = None,
) -> None:
    """Make a credential useless, on every gateway at once and for ever."""
    with _failures(), _client(data, url) as client:
        client.call("keys.revoke", key)
    out.print(f"{key} is revoked")


def _lake_of(data: str | None) -> str:
    with _failures():
        return str(_places(data).lake)


def _runs(data: str | None) -> bool:
    try:
        read_running(_places(data))
    except SettingsError:
        return False
    return True


LAKE = cli.Root("excore", "excore lake", typer.Option(None, "--data", help=DATA_HELP), _lake_of)
cli.add_questions(app, LAKE)
cli.add_care(lake_app, LAKE)
add_compact(lake_app, LAKE, _runs)
add_backup(app)
add_drill(app)


def main() -> None:
    """The command line."""
    app()


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what may go wrong in the world into a sentence and an exit code."""
    try:
        yield
    except SettingsError as fault:
        err.print(f"excore: {fault}", markup=False)
        raise typer.Exit(MISUSED) from fault
    except (ExcoreError, ExcoreRpcError, NoAnswer) as fault:
        err.print(f"excore: {fault}", markup=False)
        raise typer.Exit(WRONG) from fault


def _places(data: str | None) -> Places:
    return Places(load(None, os.environ, {"data": data}).directory)


def _client(data: str | None, url: str | None) -> Client:
    """A client of the exchange on `data`, with its credential or the environment's."""
    settings: Settings = load(None, os.environ, {"data": data})
    places = Places(settings.directory)
    key, secret = settings.api_key, settings.api_secret
    if not key:
        key, secret = read_admin(places) or ("", "")
    # Asked once: an actor that hangs is known to hang only when the gateway has given it up.
    patience_s = DEADLINE_MAX_S
    return Client(
        f"{url or read_running(places)}/",
        key,
        secret,
        deadline_s=patience_s,
        attempt_s=patience_s,
    )


def _status_row(one: dict[str, Any]) -> list[str]:
    if "error" in one:
        trouble = one["error"]["message"]
        return [one["stream"], one.get("name", ""), "", "", "", "", "", trouble]
    facts = dict(one["facts"])
    texts = one["texts"]
    pid, rss = facts.pop("pid", 0), facts.pop("rss_bytes", 0)
    facts.pop("time_us", None)
    figures = " ".join(f"{name}={value}" for name, value in facts.items())
    trouble = texts.get("trouble", "")
    return [
        one["stream"],
        one.get("name", ""),
        texts.get("node", ""),
        str(pid),
        str(one["epoch"]),
        str(one["next_seq"]),
        f"{rss / 1e6:.0f}",
        f"{figures} {trouble}".strip(),
    ]


def _replay_all(places: Places) -> list[str]:
    """Replay every stream there is; what does not agree comes back as findings."""
    findings: list[str] = []
    for path in sorted(places.journals.glob("*.db")):
        try:
            machine, seq = _replay_stream(places, path.stem, None)
            _check(machine)
        except (AssertionError, ExcoreError) as wrong:
            findings.append(f"{path.stem}: {wrong}")
        else:
            out.print(f"replayed {path.stem} to {seq}: state_hash {state_hash(machine)[:16]}")
    return findings


def _check(machine: AnyMachine) -> None:
    if type(machine) is Market:
        check_market(machine)
    elif type(machine) is Catalog:
        check_catalog(machine)
    else:
        assert not isinstance(machine, Market | Catalog)
        # Which accounts were forced below 0 only their updates tell.
        check_ledger(machine, forced=True)


def _replay_stream(places: Places, stream: str, to: int | None) -> tuple[AnyMachine, int]:
    try:
        kind = kind_of(stream)
    except KeyError as fault:
        raise SettingsError(str(fault.args[0])) from fault
    journal = read_sqlite(places.journals, stream)
    try:
        newest = journal.status().next_seq - 1
        if to is not None and not 1 <= to <= newest:
            raise SettingsError(f"--to {to}: {stream} has entries 1..{newest}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns,
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,  # a file would get an empty line
        ) as progress:
            task = progress.add_task(f"replaying {stream}", total=to or newest)
            machine, seq = replay(journal, kind, to, lambda at: progress.update(task, completed=at))
    finally:
        journal.close()
    return machine, seq


if __name__ == "__main__":
    main()
