"""The aetheris-server command: dev, start, migrate and rebuild."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from aetheris_server.config import MAX_PROCESSES, ConfigError, Settings, load_settings
from aetheris_server.embedded.errors import EmbeddedError, EmbeddedMissingError
from aetheris_server.errors import AetherisError
from aetheris_server.garbage import look_at_old_objects_rarely
from aetheris_server.history.projections.errors import RebuildError, UnknownProjectionError
from aetheris_server.processes.channel import is_supervised
from aetheris_server.processes.errors import ProcessesError
from aetheris_server.processes.server import run_processes
from aetheris_server.shutdown import Shutdown
from aetheris_server.storage.migrate import migrate as migrate_schema
from aetheris_server.telemetry import configure_logging, get_logger

app = typer.Typer(
    name="aetheris-server",
    help="The Aetheris server: durable workflows on Postgres and Redis.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)

_log = get_logger(__name__)

_Command = Callable[[Settings, Shutdown], Coroutine[None, None, None]]

# For all that is to be done when the calls in flight have had their time.
_END_TIMEOUT = 15.0

# Of each process beside its pool: for the cluster, the lease, the write path and look-ups.
_OTHER_CONNECTIONS = 6
_SPARE_CONNECTIONS = 20
_DEFAULT_CONNECTIONS = 100

DEV_SHARD_COUNT = 64
PRODUCTION_SHARD_COUNT = 512

# What is said to hold if an option is absent.
_DEFAULTS = Settings()

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Settings file: YAML, TOML or JSON.")
]
HostOption = Annotated[
    str | None,
    typer.Option("--host", help=f"Address to listen at; {_DEFAULTS.grpc.host} if absent."),
]
PortOption = Annotated[
    int | None,
    typer.Option("--port", help=f"gRPC port; {_DEFAULTS.grpc.port} if absent, 0 picks one."),
]
InternalHostOption = Annotated[
    str | None,
    typer.Option(
        "--internal-host",
        help=f"Address to listen at for other servers; {_DEFAULTS.internal.host} if absent.",
    ),
]
InternalPortOption = Annotated[
    int | None,
    typer.Option(
        "--internal-port",
        help="gRPC port for other servers; the one after --port if absent, 0 picks one.",
    ),
]
HttpPortOption = Annotated[
    int | None,
    typer.Option(
        "--http-port",
        help=f"Port for metrics and health; {_DEFAULTS.http.port} if absent, -1 is off.",
    ),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        help=f"Hosts that share the gRPC port, 1 to {MAX_PROCESSES}, each with a core to use;"
        f" {_DEFAULTS.processes} if absent.",
    ),
]
LogLevelOption = Annotated[
    str | None, typer.Option("--log-level", help="debug, info, warning or error; info if absent.")
]
LogFormatOption = Annotated[
    str | None, typer.Option("--log-format", help="console or json; console if absent.")
]
LogFileOption = Annotated[Path | None, typer.Option("--log-file", help="Log here, not to stderr.")]
PostgresOption = Annotated[
    str | None, typer.Option("--postgres-dsn", help="Postgres connection string.")
]
RedisOption = Annotated[str | None, typer.Option("--redis-url", help="Redis URL.")]


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"aetheris-server {version('aetheris-workflow')}")
        raise typer.Exit


@app.callback()
def take_shared_options(
    is_version_asked: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """The Aetheris server: durable workflows on Postgres and Redis."""


@app.command()
def dev(
    config: ConfigOption = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", help=f"Where Postgres keeps its data; {_DEFAULTS.data_dir} if absent."
        ),
    ] = None,
    host: HostOption = None,
    port: PortOption = None,
    internal_port: InternalPortOption = None,
    http_port: HttpPortOption = None,
    processes: ProcessesOption = None,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = None,
    log_file: LogFileOption = None,
) -> None:
    """Serve with an embedded Postgres and Redis. Data survives restarts."""
    flags = _flags(host, port, http_port, processes, log_level, log_format, log_file)
    flags["data_dir"] = data_dir
    flags["internal.port"] = internal_port
    _run(config, flags, _serve_dev)


@app.command()
def start(
    config: ConfigOption = None,
    postgres_dsn: PostgresOption = None,
    redis_url: RedisOption = None,
    host: HostOption = None,
    port: PortOption = None,
    internal_host: InternalHostOption = None,
    internal_port: InternalPortOption = None,
    advertised_address: Annotated[
        str | None,
        typer.Option(
            "--advertised-address", help="host:port by which other servers reach the internal port."
        ),
    ] = None,
    http_port: HttpPortOption = None,
    processes: ProcessesOption = None,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = None,
    log_file: LogFileOption = None,
) -> None:
    """Serve with a Postgres and a Redis of your own. Run migrate first."""
    flags = _flags(host, port, http_port, processes, log_level, log_format, log_file)
    flags["postgres.dsn"] = postgres_dsn
    flags["redis.url"] = redis_url
    flags["internal.host"] = internal_host
    flags["internal.port"] = internal_port
    flags["internal.advertised_address"] = advertised_address
    _run(config, flags, _serve)


@app.command()
def migrate(config: ConfigOption = None, postgres_dsn: PostgresOption = None) -> None:
    """Create or update the tables. Safe to repeat, and to run twice at once."""
    _run(config, {"postgres.dsn": postgres_dsn}, _migrate)


@app.command()
def rebuild(
    projection: Annotated[
        str, typer.Argument(metavar="PROJECTION", help="Which table, such as executions.")
    ],
    is_check: Annotated[
        bool,
        typer.Option("--check", help="Only compare, print what differs, and exit with 1 then."),
    ] = False,
    config: ConfigOption = None,
    postgres_dsn: PostgresOption = None,
) -> None:
    """Make a table that follows from the log again. Safe to end at any moment, and to repeat.

    No server may run meanwhile, except with --check.
    """

    async def run(settings: Settings, _: Shutdown) -> None:
        await _rebuild(settings, projection, is_check=is_check)

    _run(config, {"postgres.dsn": postgres_dsn}, run)


def main() -> None:
    """The console script; also what a supervisor starts for each of its processes."""
    if is_supervised():
        # Here and not above: a supervisor serves nothing that this brings along.
        from aetheris_server.supervised import run_supervised

        run_supervised()
    app()


def _flags(
    host: str | None,
    port: int | None,
    http_port: int | None,
    processes: int | None,
    log_level: str | None,
    log_format: str | None,
    log_file: Path | None,
) -> dict[str, object]:
    return {
        "grpc.host": host,
        "grpc.port": port,
        "http.port": http_port,
        "processes": processes,
        "log.level": log_level,
        "log.format": log_format,
        "log.file": log_file,
    }


def _run(
    config: Path | None,
    flags: dict[str, object],
    command: _Command,
) -> None:
    """Run a command; a mistake of the operator is one line and exit code 2, a fault exit code 1."""
    try:
        settings = load_settings(config, flags)
        configure_logging(settings.log)
        uvloop.run(_run_stoppable(command, settings))
    except (ConfigError, UnknownProjectionError) as error:
        print(f"aetheris-server: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (AetherisError, EmbeddedError, RebuildError) as error:
        print(f"aetheris-server: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except ProcessesError as error:
        print(f"aetheris-server: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


async def _run_stoppable(command: _Command, settings: Settings) -> None:
    """Run a command; a signal before it serves undoes what it has begun."""
    shutdown = Shutdown(settings.grpc.drain_timeout + _END_TIMEOUT)
    if not await shutdown.run(command(settings, shutdown)):
        raise SystemExit(1)


async def _serve_dev(settings: Settings, shutdown: Shutdown) -> None:
    _mark_logs(settings)
    try:
        # Here and not above: production installs a server without the embedded stores.
        from aetheris_server.embedded.stores import embedded_stores, keep_alive
    except ModuleNotFoundError as error:
        raise EmbeddedMissingError("postgres") from error
    async with embedded_stores(settings.data_dir, _postgres_options(settings)) as stores:
        settings = settings.with_stores(stores.postgres_dsn, stores.redis_url)
        await migrate_schema(settings.postgres.dsn)
        serving = _serve_until_signal(
            settings,
            shutdown,
            settings.history.shard_count or DEV_SHARD_COUNT,
            [
                f"Postgres   {settings.postgres.dsn}",
                f"Redis      {settings.redis.url}",
                f"Data       {stores.postgres_folder}",
            ],
        )
        await _run_beside(keep_alive(stores), serving)


def _postgres_options(settings: Settings) -> dict[str, str]:
    """What the embedded Postgres needs beside its defaults."""
    if settings.processes == 1:
        return {}
    of_each = settings.postgres.pool_max_size + _OTHER_CONNECTIONS
    wanted = settings.processes * of_each + _SPARE_CONNECTIONS
    return {"max_connections": str(max(wanted, _DEFAULT_CONNECTIONS))}


async def _run_beside(
    companion: Coroutine[None, None, None], work: Coroutine[None, None, None]
) -> None:
    """Run work to its end, or until the companion fails, whose error is then raised."""
    try:
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(companion)
            await work
            beside.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def _serve(settings: Settings, shutdown: Shutdown) -> None:
    _mark_logs(settings)
    settings.require_stores()
    shard_count = settings.history.shard_count or PRODUCTION_SHARD_COUNT
    await _serve_until_signal(settings, shutdown, shard_count, [])


def _mark_logs(settings: Settings) -> None:
    """Have the lines of a supervisor differ from those of its processes."""
    if settings.processes > 1:
        configure_logging(settings.log, "supervisor")


async def _serve_until_signal(
    settings: Settings, shutdown: Shutdown, shard_count: int, details: list[str]
) -> None:
    if settings.processes == 1:
        await _serve_by_one(settings, shutdown, shard_count, details)
    else:
        await _serve_by_several(settings, shutdown, shard_count, details)


async def _serve_by_one(
    settings: Settings, shutdown: Shutdown, shard_count: int, details: list[str]
) -> None:
    # Here and not above: a supervisor serves nothing that this brings along.
    from aetheris_server.main import run_server

    look_at_old_objects_rarely()
    async with run_server(settings, shard_count) as server:
        lines = [f"gRPC       {server.grpc_address}", f"Internal   {server.internal_address}"]
        _print_ready(lines, server.http_address, details)
        await shutdown.wait()


async def _serve_by_several(
    settings: Settings, shutdown: Shutdown, shard_count: int, details: list[str]
) -> None:
    async with run_processes(settings, shard_count, _END_TIMEOUT) as server:
        lines = [
            f"gRPC       {server.grpc_address}",
            f"Internal   {', '.join(server.internal_addresses)}",
            f"Processes  {settings.processes}",
        ]
        _print_ready(lines, server.http_address, details)
        await _run_beside(server.supervisor.watch(), shutdown.wait())


def _print_ready(lines: list[str], http_address: str | None, details: list[str]) -> None:
    print("Aetheris is ready.", flush=True)
    http = [f"Metrics    http://{http_address}/metrics"] if http_address is not None else []
    for line in [*lines, *http, *details]:
        print(f"  {line}", flush=True)


async def _rebuild(settings: Settings, name: str, *, is_check: bool) -> None:
    settings.require_postgres()

    def say(line: str) -> None:
        print(line, flush=True)

    # Here and not above: a supervisor serves nothing that this brings along.
    from aetheris_server.main import rebuild_projection

    outcome = await rebuild_projection(settings.postgres, name, say, is_check=is_check)
    what = "as the log says" if is_check else f"{outcome.row_count:,} rows written"
    print(f"{name}: {outcome.run_count:,} runs, {what}")


async def _migrate(settings: Settings, _: Shutdown) -> None:
    settings.require_postgres()
    applied = await migrate_schema(settings.postgres.dsn)
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("the tables are up to date")
