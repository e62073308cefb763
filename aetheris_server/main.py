"""The composition root: the one file that knows every part, and how a server begins and ends."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from aetheris.api.v1 import task_queue_pb2
from aetheris.server.v1 import history_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.cluster.address import advertised_address
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.config import PostgresSettings, Settings
from aetheris_server.errors import NotReadyError
from aetheris_server.frontend.catalog import PostgresCatalog
from aetheris_server.frontend.services import build_frontend
from aetheris_server.history.host import HistoryHost
from aetheris_server.history.projections.registry import PROJECTIONS
from aetheris_server.history.rebuild import Outcome, check, rebuild
from aetheris_server.ids import new_run_id
from aetheris_server.loops import end_tasks
from aetheris_server.matching.service import MatchingService
from aetheris_server.rpc.channels import ChannelPool
from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.routing import RoutedHistory, RoutedMatching
from aetheris_server.rpc.server import serve_grpc, serve_internal
from aetheris_server.rpc.servicers import internal_services
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.storage.database import Database
from aetheris_server.storage.migrate import check_schema
from aetheris_server.storage.preparation import prepare
from aetheris_server.storage.requirements import check_database
from aetheris_server.telemetry import get_logger
from aetheris_server.web import Readiness, build_app, health_routes, serve_http

_log = get_logger(__name__)

_READY_TIMEOUT = 60.0
_CLUSTER_CONNECTIONS = 3
# What a look at the cluster may take: after a cut in the network others wait for it.
_CLUSTER_STATEMENT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers.

    Attributes:
        grpc_address: For clients and workers.
        internal_address: For the other servers, as this one is bound to it.
        http_address: None where that endpoint is off.
        readiness: What it waits for; None if it can serve.
    """

    grpc_address: str
    internal_address: str
    http_address: str | None
    readiness: Readiness


class _Peers:
    """History and matching need each other; matching is built first and told of history here.

    Attributes:
        starter: What matching asks of history.
        host: This process's history.
    """

    starter: RoutedHistory
    host: HistoryHost

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        return await self.starter.start_tasks(request)

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        await self.starter.release_tasks(task_tokens)

    async def call_aggregates(
        self, calls: Sequence[history_service_pb2.AggregateCall]
    ) -> Sequence[history_service_pb2.CallOutcome]:
        return await self.starter.call_aggregates(calls)

    async def check_history(self) -> None:
        if waits_for := self.host.membership.waits_for:
            raise NotReadyError(waits_for)

    async def check_matching(self) -> None:
        """Matching has no store of its own: it is well if this process answers at all."""

    async def offer_all_again(self) -> None:
        await self.host.offer_all_again()

    def locate_shard(self, shard_id: int) -> str | None:
        return self.host.membership.locate_shard(shard_id)

    def locate_queue(
        self,
        namespace_id: str,
        task_queue: str,
        task_queue_type: task_queue_pb2.TaskQueueType.ValueType,
    ) -> str | None:
        return self.host.membership.directory.locate_queue(
            namespace_id, task_queue, task_queue_type
        )


async def rebuild_projection(
    settings: PostgresSettings, name: str, say: Callable[[str], None], *, is_check: bool
) -> Outcome:
    """Make a table again that follows from the log, or only hold it against the log.

    Args:
        settings: Of the cluster's database.
        name: The projection's.
        say: Called with lines for people.
        is_check: Whether nothing is to be written.

    Raises:
        RebuildError: It was not done, or not all of it, or something differs.
        ConfigError: An old schema, or a database that cannot be ours.
        StorageUnavailableError: Postgres does not answer.
    """
    projection = PROJECTIONS.find(name)
    await check_database(settings)
    async with Database(settings) as db:
        await check_schema(db)
        work = check if is_check else rebuild
        return await work(db, projection, SystemClock(), say)


@asynccontextmanager
async def run_server(settings: Settings, shard_count: int) -> AsyncGenerator[RunningServer]:
    """Serve until the block is left; then drain: calls in flight finish, polls answer empty, the
    shards are given up.

    Args:
        settings: With both stores named.
        shard_count: Of the cluster, which is made with it if there is none yet.

    Raises:
        ConfigError: A setting does not fit: an address in use, another shard count, an old schema,
            a database that cannot be ours.
        UnavailableError: A store does not answer, or the shards cannot be had.
    """
    clock = SystemClock()
    gate = DrainGate()
    peers = _Peers()
    async with (
        Database(settings.postgres) as db,
        Database(_for_cluster(settings.postgres)) as cluster_db,
    ):
        prepared = await prepare(db, settings.postgres, shard_count)
        shard_count = prepared.shard_count
        tokens, credentials = Tokens(prepared.secrets), PeerCredentials(prepared.secrets)
        pool = ChannelPool(credentials)
        default_builds = DefaultBuilds(cluster_db)
        matching = MatchingService(
            settings.matching, settings.redis, peers, clock, peers.offer_all_again, default_builds
        )
        local_matching = matching.serve()
        routed_matching = RoutedMatching(peers.locate_queue, local_matching, pool)
        peers.host = HistoryHost(
            settings.history,
            settings.limits,
            shard_count,
            new_run_id(),
            db,
            cluster_db,
            clock,
            routed_matching,
            peers,
            tokens,
            default_builds,
        )
        local_history = peers.host.service
        peers.starter = RoutedHistory(peers.locate_shard, local_history, pool, shard_count, tokens)
        public = build_frontend(
            settings,
            peers.starter,
            routed_matching,
            PostgresCatalog(db),
            {
                "postgres": db.ping,
                "redis": matching.check_backlog,
                "history": peers.check_history,
                "matching": peers.check_matching,
            },
            gate,
            clock,
            shard_count,
            tokens,
        )
        internal = internal_services(
            local_history, local_matching, gate, peers, tokens, credentials
        )
        readiness = partial(_waits_for, peers.host, gate)
        app = build_app(health_routes(readiness))
        async with (
            # First, so that probes are answered until the shards are given up.
            serve_http(settings.http, app) as http,
            pool,
            peers.host,
            matching,
            # Ends after the public one, whose last calls may need other hosts, and those this one.
            serve_internal(settings.internal, settings.grpc, internal) as internal_rpc,
            serve_grpc(settings.grpc, public, is_shared=settings.processes > 1) as rpc,
        ):
            address = await advertised_address(settings.internal, internal_rpc.address)
            is_reached = await internal_rpc.is_reached_at(address)
            if not is_reached:
                _log.warning(
                    "this host is not reached at the address that it advertises to others;"
                    " see internal.advertised_address",
                    address=address,
                )
            await peers.host.join(address, is_reached=is_reached)
            await _wait_ready(peers.host)
            ports = (internal_rpc, rpc)
            for port in ports:
                await port.begin_serving()
            following = [
                asyncio.create_task(port.follow(lambda: peers.host.membership.is_ready))
                for port in ports
            ]
            try:
                yield RunningServer(
                    rpc.address,
                    internal_rpc.address,
                    http.address if http else None,
                    readiness,
                )
            finally:
                _log.info("draining")
                await end_tasks(following)
                for port in ports:
                    await port.begin_drain()
                gate.begin_drain()
                matching.begin_drain()


def _for_cluster(settings: PostgresSettings) -> PostgresSettings:
    timeout = min(settings.statement_timeout, _CLUSTER_STATEMENT_TIMEOUT)
    return settings.model_copy(
        update={"pool_max_size": _CLUSTER_CONNECTIONS, "statement_timeout": timeout}
    )


def _waits_for(host: HistoryHost, gate: DrainGate) -> str | None:
    """What the server waits for; None if it is ready."""
    if gate.is_draining:
        return "draining"
    return host.membership.waits_for


async def _wait_ready(host: HistoryHost) -> None:
    try:
        async with asyncio.timeout(_READY_TIMEOUT):
            await host.membership.wait_ready()
    except TimeoutError:
        raise NotReadyError("the shards of this host, which another host holds") from None
