"""All that can be set, in sections, with its defaults."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    model_validator,
)

from aetheris_server.config.values import (
    MAX_PORT,
    Address,
    ByteCount,
    ConfigError,
    Count,
    Host,
    Port,
    PortOrOff,
    RedisUrl,
    Seconds,
    SecondsOrZero,
    variable_of,
)

_MIB = 1024 * 1024
MAX_PROCESSES = 64


class Section(BaseModel):
    """Frozen; a key that it does not have is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class PostgresSettings(Section):
    """Where the log is stored."""

    # Not in any repr: a DSN may carry a password.
    dsn: str = Field(default="", repr=False)
    pool_max_size: Count = 10
    statement_timeout: Seconds = 30.0


class RedisSettings(Section):
    """Where the backlog is kept."""

    url: RedisUrl = Field(default="", repr=False)
    key_prefix: str = "aetheris"


class GrpcSettings(Section):
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


class InternalSettings(Section):
    """The gRPC endpoint for the other servers of the cluster, in a network that is theirs alone.

    `port` None is the one after `grpc.port`, or one that the system picks where it picks that too.
    `advertised_address` is the host:port by which the others reach this endpoint; None means the
    one that it is bound to. Of several processes the first has both as they are, each further one
    the port after that of the one before.
    """

    host: Host = "127.0.0.1"
    port: Port | None = None
    advertised_address: Address | None = None


class HttpSettings(Section):
    """The endpoint for /metrics, /healthz and /readyz; `port` None (as text, -1 or off) is none."""

    host: Host = "127.0.0.1"
    port: PortOrOff = 7280


class HistorySettings(Section):
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


class MatchingSettings(Section):
    """The matching service.

    A poll is answered empty after `poll_timeout`. A task that finds no poll waiting, where one is
    expected, is kept in memory for `linger` before it goes to the backlog. A task handed out from
    the backlog and not started within `lease_timeout` goes back to it.
    """

    # Below 60 s, after which nginx and load balancers, as they come, cut a call that is silent.
    poll_timeout: Seconds = 50.0
    linger: SecondsOrZero = 0.2
    lease_timeout: Seconds = 30.0


class LimitSettings(Section):
    """Bounds on what a request may carry and on how far a run may grow.

    A namespace may have its own of those in `NAMESPACE_LIMITS`.
    """

    id_max_bytes: ByteCount = ByteSize(1000)
    payload_max_bytes: ByteCount = ByteSize(2 * _MIB)
    history_max_events: Count = 200_000
    suggest_continue_events: Count = 4_096
    suggest_continue_bytes: ByteCount = ByteSize(4 * _MIB)
    max_signals: Count = 10_000
    max_pending_activities: Count = 2_000
    max_pending_timers: Count = 2_000
    max_pending_children: Count = 2_000
    max_pending_external_signals: Count = 2_000
    max_pending_external_cancels: Count = 2_000
    max_open_updates: Count = 10
    max_updates: Count = 2_000
    page_max_size: Count = 1000
    poll_max_tasks: Count = 100


class LogSettings(Section):
    """What is logged, in which form, and where; `file` None is standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "console"
    file: Path | None = None


class Settings(Section):
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
        self.require_postgres()
        _require("redis.url", self.redis.url, "--redis-url")

    def require_postgres(self) -> None:
        """Check that Postgres is named.

        Raises:
            ConfigError: `postgres.dsn` is empty.
        """
        _require("postgres.dsn", self.postgres.dsn, "--postgres-dsn")


def _require(key: str, value: str, flag: str) -> None:
    if not value:
        raise ConfigError(
            key,
            f"expected a value, found none; give {flag}, or set {variable_of(key)} or the file's"
            " key",
        )


def internal_port(settings: InternalSettings, public: GrpcSettings) -> int:
    """The port to bind for other hosts; 0 lets the system pick one."""
    if settings.port is not None:
        return settings.port
    return public.port + 1 if 0 < public.port < MAX_PORT else 0
