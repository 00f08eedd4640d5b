"""`excore serve`: how it starts, ends, goes on, refuses, and what it lets nobody see."""

from __future__ import annotations

import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from api.client import Client
from tests.system.server import Server, command, serving

pytestmark = pytest.mark.system

MISUSED = 2
KEY, SECRET = "operator", "a secret that nobody else may see"
ENDS = [
    (signal.SIGINT, False),
    (signal.SIGTERM, False),
    (signal.SIGINT, True),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that was not started yet; none of its processes is left in the end."""
    made = Server(tmp_path / "data")
    yield made
    made.clear()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a credential from the environment, which has traded."""
    data = tmp_path_factory.mktemp("serve") / "data"
    environment = {"EXCORE_API_KEY": KEY, "EXCORE_API_SECRET": SECRET}
    with serving(data, "--gateways", "2", environment=environment) as made:
        with Client(f"{made.url}/", KEY, SECRET) as client:
            client.call("asset.add", "GOLD", 12, 8, "")
            client.call("asset.add", "USD", 12, 8, "")
            client.call("market.add", "GOLD_USD", "GOLD", 4, "USD", 4, "1", "")
            client.call("balance.update", 1, "GOLD", "deposit", 1, "5", {})
            client.call("order.put_limit", 1, "GOLD_USD", 1, "2", "3", "0", "0", "")
        yield made
        assert made.stop() == 0


def is_quiet(server: Server) -> bool:
    return "Traceback" not in server.told() and server.err == ""


def test_it_ends_in_order_and_continues(server: Server) -> None:
    for number, (how, group) in enumerate(ENDS):
        server.start()
        with server.client() as client:
            if not number:
                client.call("asset.add", "GOLD", 12, 8, "")
            found = client.call("balance.query", 1, "GOLD")
            assert found == {"GOLD": {"available": str(number), "freeze": "0"}}
            client.call("balance.update", 1, "GOLD", "deposit", number + 1, "1", {})
        began = time.monotonic()
        assert server.stop(how, group=group) == 0
        print(f"{how.name}, group {group}: {time.monotonic() - began:.1f} s")
        assert is_quiet(server), server.told()
        assert server.out.endswith("stopping: finishing what was asked\nstopped\n")
        assert not server.places.running.exists()
        assert not Path((server.places.journals / "exchange.lock").read_text()).exists()


def test_it_can_be_interrupted_while_it_starts(server: Server) -> None:
    lock = server.places.journals / "exchange.lock"
    process = server.launch()
    until = time.monotonic() + 20
    while not (lock.exists() and lock.read_text()):
        assert process.poll() is None, server.told()
        assert time.monotonic() < until
        time.sleep(0.02)
    assert server.stop(signal.SIGINT) == 0
    assert is_quiet(server), server.told()
    assert "excore ready" not in server.out


def test_what_is_left_of_a_killed_one_ends_by_itself(server: Server) -> None:
    server.start()
    with server.client() as client:
        client.call("asset.add", "GOLD", 12, 8, "")
    process = server.process
    assert process is not None
    process.kill()
    process.wait()
    server.process = None
    assert not server.gone(15), server.told()
    place = Path((server.places.journals / "exchange.lock").read_text())
    code, _, err = command("status", "--data", str(server.data))
    assert code == MISUSED
    assert "has ended unexpectedly" in err
    server.start()
    assert not place.exists(), "what the killed one has left in the file system"
    with server.client() as client:
        assert [row["name"] for row in client.call("asset.list")["records"]] == ["GOLD"]
    assert server.stop() == 0


@pytest.mark.parametrize("vital", ["raylet", "gcs_server"])
def test_without_its_ray_it_says_so_and_ends(vital: str, server: Server) -> None:
    server.start()
    with server.client() as client:
        # Ray knows a market, and the process that is to end everything does not.
        for asset in ("GOLD", "USD"):
            client.call("asset.add", asset, 12, 8, "")
        client.call("market.add", "GOLD_USD", "GOLD", 4, "USD", 4, "1", "")
    [found] = [process for process in server.family() if process.name() == vital]
    found.kill()
    process = server.process
    assert process is not None
    assert process.wait(40) == 1
    server.process = None
    assert not server.gone(5), server.told()
    assert "start it again" in server.err
    assert "Traceback" not in server.told()
    code, _, err = command("status", "--data", str(server.data))
    assert code == MISUSED
    assert "no exchange seems to run" in err


def test_a_second_one_on_the_same_data_is_refused(running: Server) -> None:
    code, out, err = command("serve", "--data", str(running.data), "--port", "0")
    assert (code, out) == (MISUSED, "")
    assert f"an exchange runs on {running.data}" in err
    assert running.excore("audit", "--online").endswith("exact\n")


def test_a_port_that_is_taken_is_refused(running: Server, tmp_path: Path) -> None:
    port = running.url.rpartition(":")[2]
    code, out, err = command("serve", "--data", str(tmp_path / "data"), "--port", port)
    assert (code, out) == (MISUSED, "")
    assert f"port {port}" in err
    assert "Traceback" not in err


def test_files_are_for_their_owner_alone(running: Server) -> None:
    paths = [running.data, *running.data.rglob("*")]
    assert {"admin.json", "cluster.secret"} - {path.name for path in paths} == {"admin.json"}
    assert {"catalog.db", "catalog.log", "http-1.log"} <= {path.name for path in paths}
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_no_secret_is_shown_anywhere(running: Server) -> None:
    with Client(f"{running.url}/", KEY, SECRET) as client:
        made = client.call("keys.add", ["read"], "")
    cluster = running.places.secret.read_text()
    secrets = [SECRET, made["secret"], cluster]
    place = Path((running.places.journals / "exchange.lock").read_text())
    written = [*running.places.logs.rglob("*"), *place.rglob("*")]
    texts = {str(path): path.read_bytes() for path in written if path.is_file()}
    assert len(texts) > 10
    texts |= {"out": running.out.encode(), "err": running.err.encode()}
    assert running.process is not None
    for process in running.family():
        texts[f"arguments of {process}"] = " ".join(process.cmdline()).encode()
        # Its own environment is what it was started with.
        if process.pid != running.process.pid:
            texts[f"environment of {process}"] = str(process.environ()).encode()
    shown = [where for where, text in texts.items() if any(s.encode() in text for s in secrets)]
    assert shown == []
    listening = {
        connection.laddr.ip
        for process in running.family()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    # The second is the first, as a socket of IPv6 says it.
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_a_credential_can_be_the_environments(running: Server) -> None:
    assert not running.places.admin.exists()
    environment = {"EXCORE_API_KEY": KEY, "EXCORE_API_SECRET": SECRET}
    code, out, _ = command("status", "--data", str(running.data), environment=environment)
    assert code == 0
    assert "GOLD_USD" in out
    code, _, err = command("status", "--data", str(running.data))
    assert code == 1
    assert "authentication failed" in err


def test_a_credential_of_no_use_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    other = {"EXCORE_API_KEY": KEY, "EXCORE_API_SECRET": "not the secret it once had"}
    first = {"EXCORE_API_KEY": KEY, "EXCORE_API_SECRET": SECRET}
    with serving(data, environment=first) as server:
        assert "EXCORE_API_KEY" not in server.out
        assert server.stop() == 0
    with serving(data, environment=other) as server:
        assert f"EXCORE_API_KEY '{KEY}' has another secret here" in server.out
        code, _, _ = command("keys", "revoke", KEY, "--data", str(data), environment=first)
        assert code == 0
        assert server.stop() == 0
    with serving(data, environment=first) as server:
        assert f"EXCORE_API_KEY '{KEY}' is revoked" in server.out
        assert server.stop() == 0


def test_without_authentication_only_this_machine_is_served(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--no-auth", "--host", "::1") as server:
        assert "authentication is off" in server.out
        assert server.url.startswith("http://[::1]:")
        assert not server.places.admin.exists()
        with Client(f"{server.url}/") as client:
            client.call("asset.add", "GOLD", 12, 8, "")
            client.call("balance.update", 1, "GOLD", "deposit", 1, "1.5", {})
        assert server.excore("audit").endswith("exact\n")
        assert server.stop() == 0


CONFIG = "--config {config}"


@pytest.mark.parametrize(
    ("args", "environment", "config", "says"),
    [
        ("--no-auth --host 0.0.0.0", "", "", "only a loopback address"),
        ("--no-auth --host ::", "", "", "only a loopback address"),
        ("--no-auth", "EXCORE_HOST=10.0.0.1", "", "only a loopback address"),
        (CONFIG, "", 'auth = false\nhost = "0.0.0.0"', "only a loopback address"),
        ("--config {config}.nowhere", "", "", "cannot be read"),
        (CONFIG, "", "port 8080", "is not TOML"),
        (CONFIG, "", "prot = 8080", "there is no setting 'prot'"),
        (CONFIG, "", "[market]\nqueue = 1", "table market: there is no setting 'queue'"),
        (CONFIG, "", 'port = "8080"', "port"),
        (CONFIG, "", "[port]\nnumber = 8080", "port"),
        (CONFIG, "", "market = 5", "market"),
        (CONFIG, "", "port = 70000", "port 70000 is not in"),
        (CONFIG, "", "shards = 0", "shards 0 is not in"),
        (CONFIG, "", "gateways = 0", "gateways 0 is not in"),
        (CONFIG, "", "kill_after_s = 0.0", "kill_after_s 0.0 is not above 0"),
        (CONFIG, "", "[shell]\nturn_bytes_max = 0", "shell.turn_bytes_max 0 is not above 0"),
        (CONFIG, "", "[compactor]\ncompact_s = nan", "compactor.compact_s nan is not above 0"),
        (CONFIG, "", "[http]\nconnections_max = -1", "http.connections_max -1 is not above 0"),
        (CONFIG, "", "[limits.user]\nper_s = 0\nburst = 1", "limits.user.per_s 0.0 is not above"),
        (CONFIG, "", "[limits.user]\nper_s = 5", "burst"),
        (CONFIG, "", 'log_level = "LOUD"', "log_level 'LOUD'"),
        (CONFIG, "", 'api_secret = "x"', "EXCORE_API_SECRET"),
        ("", "EXCORE_PORT=eighty", "", "EXCORE_PORT is not a number"),
        ("", "EXCORE_API_KEY=operator", "", "must be set together"),
        ("", "EXCORE_API_KEY=operator EXCORE_API_SECRET=short", "", "shorter than 16"),
        ("", f"EXCORE_API_KEY=opérateur EXCORE_API_SECRET={'s' * 32}", "", "printable ASCII"),
    ],
)
def test_a_wrong_setting_is_named(
    args: str, environment: str, config: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "excore.toml"
    path.write_text(config)
    data = tmp_path / "data"
    words = ["serve", "--data", str(data), *args.format(config=path).split()]
    variables = dict(pair.split("=") for pair in environment.split())
    code, out, err = command(*words, environment=variables)
    assert (code, out) == (MISUSED, "")
    assert says in err
    assert err.startswith("excore: ")
    assert not data.exists()
