"""How a server of several processes begins and ends; the supervisor's side, without a host."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aetheris_server.config import Settings
from aetheris_server.processes.ports import reserved_port, settings_by_process
from aetheris_server.processes.supervisor import Supervisor, supervise
from aetheris_server.storage.database import Database
from aetheris_server.storage.preparation import prepare
from aetheris_server.web import build_app, health_routes, serve_http


@dataclass(frozen=True, slots=True)
class RunningProcesses:
    """Processes that answer.

    Attributes:
        grpc_address: For clients and workers; of all processes.
        internal_addresses: For the other servers: one of each process, in order.
        http_address: None where that endpoint is off.
        supervisor: Who has them.
    """

    grpc_address: str
    internal_addresses: list[str]
    http_address: str | None
    supervisor: Supervisor


@asynccontextmanager
async def run_processes(
    settings: Settings, shard_count: int, end_timeout: float
) -> AsyncGenerator[RunningProcesses]:
    """Serve by several processes until the block is left; then they drain.

    Args:
        settings: With both stores named, and more than one process.
        shard_count: Of the cluster, which is made with it if there is none yet.
        end_timeout: Seconds for all that is to be done when the calls in flight have had theirs.

    Raises:
        ConfigError: A setting does not fit; as for one process.
        UnavailableError: Postgres does not answer.
        ProcessesError: A process cannot serve, or some did not end well.
    """
    # Once, so that a mistake is told once.
    async with Database(settings.postgres) as db:
        shard_count = (await prepare(db, settings.postgres, shard_count)).shard_count
    with reserved_port(settings.grpc) as port:
        supervisor = Supervisor(
            settings_by_process(settings, port),
            shard_count,
            end_timeout,
        )
        app = build_app(
            health_routes(
                lambda: supervisor.waits_for, supervisor.show_metrics, supervisor.describe
            )
        )
        # First, so that probes are answered until the processes have ended.
        async with serve_http(settings.http, app) as http, supervise(supervisor):
            yield RunningProcesses(
                supervisor.children[0].grpc_address,
                [child.internal_address for child in supervisor.children],
                http.address if http else None,
                supervisor,
            )
