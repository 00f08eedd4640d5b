"""Settings: what an operator may choose, from one TOML file, EXCORE_* variables and options.

Separate so that a wrong setting is found once, at start, with a message that names it.  It must
not know how an exchange is started.

An option wins over a variable, a variable over the file, the file over the default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from excore_ray.actors.compactor import CompactorSettings
from excore_ray.actors.plan import HttpLimits, LakeSettings, RequestLimits
from excore_ray.actors.shell import ShellSettings
from excore_ray.core.custodian import CustodianLimits
from excore_ray.core.shardlink import SequencerLimits
from excore_ray.errors import SettingsError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PORT_MAX = 65_535
MAY_BE_ZERO = {"lake.keep_days", "lake.niceness"}
VARIABLES = {
    "EXCORE_HOST": "host",
    "EXCORE_PORT": "port",
    "EXCORE_DATA": "data",
    "EXCORE_API_KEY": "api_key",
    "EXCORE_API_SECRET": "api_secret",
}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that can be chosen.

    host, port: where the gateways serve HTTP; port 0 takes a free one.  data: the directory of
    everything durable.  auth: whether requests must be signed.  gateways: processes that share
    the port.  shards: of the ledger, fixed when the data directory is created.
    api_key, api_secret: the first admin credential; never from the file, which is read by many.
    kill_after_s: how long a predecessor that still holds a journal is waited for.
    market, ledger, http, compactor, lake, shell: the limits of each part, tables of the file.
    limits: how many requests are taken of each key and user, tables of two numbers, as in
    `[limits.user]` with `per_s` and `burst`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    data: str = "./data"
    auth: bool = True
    gateways: int = 1
    shards: int = 1
    log_level: str = "INFO"
    api_key: str = ""
    api_secret: str = ""
    kill_after_s: float = 5.0
    market: SequencerLimits = SequencerLimits()
    ledger: CustodianLimits = CustodianLimits()
    http: HttpLimits = HttpLimits()
    limits: RequestLimits = RequestLimits()
    compactor: CompactorSettings = CompactorSettings()
    lake: LakeSettings = LakeSettings()
    shell: ShellSettings = ShellSettings()

    @property
    def directory(self) -> Path:
        """The data directory, absolute."""
        return Path(self.data).expanduser().resolve()


def load(config: Path | None, environment: Mapping[str, str], options: dict[str, Any]) -> Settings:
    """The settings in force.

    config: the TOML file, None for none.  options: by field; None is not chosen.
    Raises SettingsError that names what is wrong and where it came from.
    """
    chosen = _from_file(config) if config is not None else {}
    chosen |= _from_environment(environment)
    chosen |= {name: value for name, value in options.items() if value is not None}
    try:
        settings = msgspec.convert(chosen, Settings)
    except msgspec.ValidationError as fault:
        raise SettingsError(f"settings: {fault}") from fault
    _check(settings)
    return settings


def _from_file(config: Path) -> dict[str, Any]:
    try:
        with config.open("rb") as file:
            found = tomllib.load(file)
    except OSError as fault:
        raise SettingsError(f"the settings file cannot be read: {fault}") from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise SettingsError(f"{config} is not TOML: {fault}") from fault
    for name in ("api_key", "api_secret"):
        if name in found:
            variable = f"EXCORE_{name.upper()}"
            raise SettingsError(f"{config}: {name} belongs into the variable {variable}")
    _refuse_unknown(found, Settings, str(config))
    return found


def _refuse_unknown(table: dict[str, Any], kind: Any, where: str) -> None:
    """Raise SettingsError for a key, in any depth, that no setting has."""
    fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
    for name, value in table.items():
        if name not in fields:
            raise SettingsError(f"{where}: there is no setting {name!r}; there are {list(fields)}")
        # A table in the place of a plain setting is left to the conversion, which refuses it.
        if isinstance(value, dict) and issubclass(fields[name], msgspec.Struct):
            _refuse_unknown(value, fields[name], f"{where}, table {name}")


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        field: environment[variable]
        for variable, field in VARIABLES.items()
        if environment.get(variable)
    }
    if "port" in found:
        if not (found["port"].isascii() and found["port"].isdigit()):
            raise SettingsError(f"EXCORE_PORT is not a number: {found['port']!r}")
        found["port"] = int(found["port"])
    return found


def _check(settings: Settings) -> None:
    rules = (
        (0 <= settings.port <= PORT_MAX, f"port {settings.port} is not in 0..{PORT_MAX}"),
        (1 <= settings.gateways <= 64, f"gateways {settings.gateways} is not in 1..64"),
        (1 <= settings.shards <= 1024, f"shards {settings.shards} is not in 1..1024"),
        (
            settings.auth or settings.host in LOOPBACK,
            f"without authentication only a loopback address may be served, not {settings.host}",
        ),
        (settings.kill_after_s > 0, f"kill_after_s {settings.kill_after_s} is not above 0"),
        (
            settings.api_key.isascii() and settings.api_key.isprintable(),
            "EXCORE_API_KEY travels in a header: it must be printable ASCII",
        ),
        (
            settings.api_key == settings.api_key.strip(),
            "EXCORE_API_KEY begins or ends with a space",
        ),
        (
            bool(settings.api_key) == bool(settings.api_secret),
            "EXCORE_API_KEY and EXCORE_API_SECRET must be set together",
        ),
        (
            not settings.api_secret or len(settings.api_secret) >= 16,
            "EXCORE_API_SECRET is shorter than 16 characters",
        ),
        (
            settings.log_level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
            f"log_level {settings.log_level!r} is none of DEBUG INFO WARNING ERROR CRITICAL",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise SettingsError(message)
    for name in settings.__struct_fields__:
        table = getattr(settings, name)
        if isinstance(table, msgspec.Struct):
            _check_table(name, table)


def _check_table(name: str, table: msgspec.Struct) -> None:
    """Raise SettingsError for a limit that lets nothing through."""
    for field in table.__struct_fields__:
        value = getattr(table, field)
        if isinstance(value, msgspec.Struct):
            _check_table(f"{name}.{field}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            if f"{name}.{field}" in MAY_BE_ZERO and value == 0:
                continue
            if not value > 0:
                raise SettingsError(f"{name}.{field} {value} is not above 0")
