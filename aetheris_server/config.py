"""The server's settings: what can be set, from where, and what a mistake in them reads like.

A value comes from a flag, else the environment (`AETHERIS_POSTGRES__DSN`), else the settings file,
else the default here. Every key and value is checked before anything starts; `ConfigError` names
the key, where it came from, what was found and what was expected. Settings are frozen, and building
them from code (`Settings(grpc=GrpcSettings(port=0))`) reads neither environment nor files. Whether
a value is enough for a command is the command's affair (`Settings.require_stores`).
"""

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

__all__ = [
    "ConfigError",
    "GrpcSettings",
    "HistorySettings",
    "HttpSettings",
    "InternalSettings",
    "LimitSettings",
    "LogSettings",
    "MatchingSettings",
    "PostgresSettings",
    "RedisSettings",
    "Settings",
    "internal_port",
    "load_settings",
]

ENV_PREFIX = "AETHERIS_"
ENV_DELIMITER = "__"
CONFIG_FILE_VARIABLE = "AETHERIS_CONFIG"
# Read by the clients, which often share an environment with a server.
_CLIENT_VARIABLES = frozenset({"AETHERIS_ADDRESS", "AETHERIS_NAMESPACE"})
_TEST_PREFIX = "AETHERIS_TEST_"

# May carry a password.
_SECRETS = frozenset({"postgres.dsn", "redis.url"})

_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
# What Kubernetes puts into the environment of a pod for each service, behind the service's name.
_SERVICE_VARIABLE = re.compile(r"SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_.+)?")

_MIB = 1024 * 1024
MAX_PORT = 65535
MAX_PROCESSES = 64
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class ConfigError(Exception):
    """A setting is unknown, badly formed or missing: the operator's mistake, never the program's.

    Attributes:
        key: The dotted key (`grpc.port`), the variable, or the file at fault.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key


def _parse_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        return value
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def _parse_port(value: object) -> object:
    # YAML reads `off` as False, which equals 0, the port that lets the system choose.
    return None if value is False or value in (-1, "-1", "off") else value


def _check_redis_url(value: str) -> str:
    # Not quoted in the message: it may carry a password.
    if value and not value.startswith(("redis://", "rediss://", "unix://")):
        raise ValueError("expected a URL that begins with redis://, rediss:// or unix://")
    return value


def _check_host(value: str) -> str:
    """A host without the brackets that IPv6 has in a URL."""
    host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if (":" in host or host != value) and not _is_ipv6(host):
        raise ValueError("expected a name or an address, without a port")
    if not host or re.search(r"[\s/\[\]]", host):
        raise ValueError("expected a name or an address")
    return host


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _check_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isdigit() or not 0 < int(port) <= MAX_PORT:
        raise ValueError("expected host:port")
    if _is_ipv6(host):
        raise ValueError("expected host:port, an address of IPv6 in brackets")
    try:
        host = _check_host(host)
    except ValueError:
        raise ValueError("expected host:port") from None
    if host in _ANY_ADDRESS:
        raise ValueError("expected host:port that others can reach")
    return value


Seconds = Annotated[float, BeforeValidator(_parse_seconds), Field(gt=0, allow_inf_nan=False)]
"""A positive number of seconds; text may carry a unit: 250ms, 10s, 5m, 1h, 7d."""

SecondsOrZero = Annotated[float, BeforeValidator(_parse_seconds), Field(ge=0, allow_inf_nan=False)]

ByteCount = Annotated[ByteSize, Field(gt=0)]
"""A positive number of bytes; text may carry a unit: 64KiB, 8MiB."""

Port = Annotated[int, Field(ge=0, le=MAX_PORT)]
"""A TCP port; 0 lets the system pick one."""

Host = Annotated[str, AfterValidator(_check_host)]
"""Where to listen: a name, or an address; 0.0.0.0 and :: are all of this machine's."""

Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PostgresSettings(_Section):
    """Where the log is stored."""

    # Not in any repr: a DSN may carry a password.
    dsn: str = Field(default="", repr=False)
    pool_max_size: Count = 10
    statement_timeout: Seconds = 30.0


class RedisSettings(_Section):
    """Where the backlog is kept."""

    url: Annotated[str, AfterValidator(_check_redis_url)] = Field(default="", repr=False)
    key_prefix: str = "aetheris"


class GrpcSettings(_Section):
    """The public gRPC endpoint, for clients and workers.

    `max_calls` bounds the calls in flight, long polls included; `max_streams` those of one
    connection, at which more wait in the client: a flood of calls that are reset costs the others
    little then. None is no bound, for clients that have more calls in flight on one connection.
    """

    host: Host = "127.0.0.1"
    port: Port = 7233
    max_message_bytes: ByteCount = ByteSize(8 * _MIB)
    max_calls: Count = 20_000
    max_streams: Count | None = 250
    drain_timeout: SecondsOrZero = 10.0


class InternalSettings(_Section):
    """The gRPC endpoint for the other servers of the cluster, in a network that is theirs alone.

    `port` None is the one after `grpc.port`, or one that the system picks where it picks that too.
    `advertised_address` is the host:port by which the others reach this endpoint; None means the
    one that it is bound to. Of several processes the first has both as they are, each further one
    the port after that of the one before.
    """

    host: Host = "127.0.0.1"
    port: Port | None = None
    advertised_address: Annotated[str, AfterValidator(_check_address)] | None = None


class HttpSettings(_Section):
    """The endpoint for /metrics, /healthz and /readyz; `port` None (as text, -1 or off) is none."""

    host: Host = "127.0.0.1"
    port: Annotated[Port | None, BeforeValidator(_parse_port)] = 7280


class HistorySettings(_Section):
    """The history service.

    `shard_count` is fixed when a cluster is created; None leaves the choice to the command. A host
    renews its lease, and looks for others, every `heartbeat_interval`; one whose lease has not been
    renewed for `lease_timeout` loses its shards.
    """

    shard_count: Annotated[int, Field(ge=1, le=16384)] | None = None
    lease_timeout: Seconds = 3.0
    heartbeat_interval: Seconds = 0.5
    cache_max_runs: Count = 20_000
    cache_max_bytes: ByteCount = ByteSize(512 * _MIB)
    snapshot_interval_records: Count = 256
    watermark_interval: Seconds = 1.0
    sweep_interval: Seconds = 60.0

    @model_validator(mode="after")
    def _check_intervals(self) -> Self:
        if self.heartbeat_interval > self.lease_timeout / 3:
            raise ValueError(
                f"heartbeat_interval is {self.heartbeat_interval:g} s, expected at most a third of"
                f" lease_timeout, which is {self.lease_timeout:g} s"
            )
        return self


class MatchingSettings(_Section):
    """The matching service.

    A poll is answered empty after `poll_timeout`. A task that finds no poll waiting, where one is
    expected, is kept in memory for `linger` before it goes to the backlog. A task handed out from
    the backlog and not started within `lease_timeout` goes back to it.
    """

    # Below 60 s, after which nginx and load balancers, as they come, cut a call that is silent.
    poll_timeout: Seconds = 50.0
    linger: SecondsOrZero = 0.2
    lease_timeout: Seconds = 30.0


class LimitSettings(_Section):
    """Bounds on what a request may carry and on how far a run may grow."""

    id_max_bytes: ByteCount = ByteSize(1000)
    payload_max_bytes: ByteCount = ByteSize(2 * _MIB)
    history_max_events: Count = 200_000
    page_max_size: Count = 1000
    poll_max_tasks: Count = 100


class LogSettings(_Section):
    """What is logged, in which form, and where; `file` None is standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "console"
    file: Path | None = None


class Settings(_Section):
    """All settings of a server. `data_dir` is used by `dev` only.

    `processes` is the number of hosts that serve the public port, each in a process of its own;
    where there is more than one, another process watches over them.
    """

    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    grpc: GrpcSettings = GrpcSettings()
    internal: InternalSettings = InternalSettings()
    http: HttpSettings = HttpSettings()
    history: HistorySettings = HistorySettings()
    matching: MatchingSettings = MatchingSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    data_dir: Path = Path(".aetheris")
    processes: Annotated[int, Field(ge=1, le=MAX_PROCESSES)] = 1

    def with_stores(self, postgres_dsn: str, redis_url: str) -> "Settings":
        """These settings with other stores."""
        return self.model_copy(
            update={
                "postgres": self.postgres.model_copy(update={"dsn": postgres_dsn}),
                "redis": self.redis.model_copy(update={"url": redis_url}),
            }
        )

    def require_stores(self) -> None:
        """Check that both stores are named.

        Raises:
            ConfigError: `postgres.dsn` or `redis.url` is empty.
        """
        for key, value, flag in (
            ("postgres.dsn", self.postgres.dsn, "--postgres-dsn"),
            ("redis.url", self.redis.url, "--redis-url"),
        ):
            if not value:
                raise ConfigError(
                    key,
                    f"expected a value, found none; give {flag}, or set {_variable_of(key)} or the"
                    " file's key",
                )


def internal_port(settings: InternalSettings, public: GrpcSettings) -> int:
    """The port to bind for other hosts; 0 lets the system pick one."""
    if settings.port is not None:
        return settings.port
    return public.port + 1 if 0 < public.port < MAX_PORT else 0


class _LoadedSettings(Settings, BaseSettings):
    """Settings whose constructor also reads the environment and the file's data.

    Only `load_settings` builds it.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        # The constructor's arguments are {"flags": ..., "file": ...}: one per source.
        by_source = cast("dict[str, dict[str, Any]]", init_settings())
        return (
            InitSettingsSource(settings_cls, by_source["flags"]),
            env_settings,
            InitSettingsSource(settings_cls, by_source["file"]),
        )


def load_settings(
    config_file: Path | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    """Read the settings of this process.

    Args:
        config_file: YAML, TOML or JSON by its suffix; None takes that in AETHERIS_CONFIG, if any.
        flags: Values by dotted key (`{"grpc.port": 7233}`); those that are None were not given.

    Raises:
        ConfigError: A key is unknown, a value is bad, or the file cannot be read.
    """
    _check_environment(os.environ)
    if config_file is None and os.environ.get(CONFIG_FILE_VARIABLE):
        config_file = Path(os.environ[CONFIG_FILE_VARIABLE])
    from_file = {} if config_file is None else _read_file(config_file)
    from_flags = _nest({key: value for key, value in (flags or {}).items() if value is not None})
    by_source: dict[str, Any] = {"flags": from_flags, "file": from_file}
    try:
        return _LoadedSettings(**by_source)
    except SettingsError as error:
        raise ConfigError("environment", str(error)) from error
    except ValidationError as error:
        _raise_config_error(error.errors()[0], from_flags, config_file)


def _keys() -> Iterator[str]:
    """Every dotted key that can be set."""
    for name, field in Settings.model_fields.items():
        section = _section_of(field)
        if section is None:
            yield name
        else:
            yield from (f"{name}.{key}" for key in section.model_fields)


def _variable_of(key: str) -> str:
    return ENV_PREFIX + key.replace(".", ENV_DELIMITER).upper()


def _check_environment(environ: Mapping[str, str]) -> None:
    known = {_variable_of(key) for key in _keys()}
    services = _services_in(environ)
    for name in environ:
        variable = name.upper()
        if not variable.startswith(ENV_PREFIX) or variable.startswith(_TEST_PREFIX):
            continue
        if variable in known or variable in _CLIENT_VARIABLES or variable == CONFIG_FILE_VARIABLE:
            continue
        if any(_is_of_service(variable, service) for service in services):
            continue
        raise ConfigError(name, f"unknown environment variable{_suggestion(variable, known)}")


def _services_in(environ: Mapping[str, str]) -> list[str]:
    """The services of Kubernetes that the environment tells of, as their variables begin."""
    hosts = [name for name in environ if name.endswith("_SERVICE_HOST")]
    return [name.removesuffix("_SERVICE_HOST") for name in hosts]


def _is_of_service(variable: str, service: str) -> bool:
    rest = variable.removeprefix(f"{service}_")
    return rest != variable and _SERVICE_VARIABLE.fullmatch(rest) is not None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"the settings file cannot be read: {error}") from error
    try:
        match path.suffix.lower():
            case ".yaml" | ".yml":
                data = yaml.safe_load(text)
            case ".toml":
                data = tomllib.loads(text)
            case ".json":
                data = json.loads(text)
            case suffix:
                raise ConfigError(
                    str(path),
                    f"expected a file ending in .yaml, .yml, .toml or .json, found {suffix!r}",
                )
    except (yaml.YAMLError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        # Without what the file says there, and so without the error itself: it may be a password.
        raise ConfigError(
            str(path), f"the settings file is not well formed{_where(error)}"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(str(path), f"expected a mapping of sections, found {_kind_of(data)}")
    # An empty section (`postgres:` and nothing below) parses to None and means its defaults.
    sections = cast("dict[object, Any]", data)
    return {str(name): {} if value is None else value for name, value in sections.items()}


def _nest(flat: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return nested


def _raise_config_error(
    details: ErrorDetails, from_flags: Mapping[str, Any], config_file: Path | None
) -> NoReturn:
    key = ".".join(_model_path(details["loc"]))
    origin = _origin(key, from_flags, config_file)
    if details["type"] == "extra_forbidden":
        raise ConfigError(key, f"unknown key ({origin}){_suggestion(key, set(_keys()))}") from None
    if details["type"] == "model_type":
        raise ConfigError(
            key, f"expected a section of keys, found {_kind_of(details['input'])} ({origin})"
        ) from None
    expected = details["msg"].replace("Input should be", "expected").replace("Value error, ", "")
    if not expected.startswith("expected"):
        expected = f"bad value: {expected}"
    found = "a value that is not shown" if key in _SECRETS else _shown(details["input"])
    # Without pydantic's own error, which quotes what was found.
    raise ConfigError(key, f"{expected}, found {found} ({origin})") from None


def _model_path(location: tuple[int | str, ...]) -> Iterator[str]:
    """The key's own names: pydantic adds the tag of a union's member behind them."""
    section: type[_Section] | None = Settings
    for part in location:
        if section is None:
            return
        yield str(part)
        section = _section_of(section.model_fields.get(str(part)))


def _section_of(field: FieldInfo | None) -> type[_Section] | None:
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, _Section) else None


def _origin(key: str, from_flags: Mapping[str, Any], config_file: Path | None) -> str:
    node: Any = from_flags
    for part in key.split("."):
        node = cast("dict[str, Any]", node).get(part) if isinstance(node, dict) else None
    if node is not None:
        return f"flag for {key}"
    variable = _variable_of(key)
    if variable in {name.upper() for name in os.environ}:
        return variable
    return f"file {config_file}" if config_file is not None else "default"


def _where(error: yaml.YAMLError | tomllib.TOMLDecodeError | json.JSONDecodeError) -> str:
    """What is wrong and at which place, as far as the parser tells without quoting the file."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        place = f" (at line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        return f"{place}: {error.problem}"
    if isinstance(error, yaml.YAMLError):
        return ""
    return f": {error}"


def _kind_of(value: object) -> str:
    """What stands where a section should; a DSN with its password is what people try there."""
    match value:
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return _shown(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _suggestion(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
