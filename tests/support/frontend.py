"""A frontend that listens on a port of its own, with fakes behind it, and the stubs to call it."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from aetheris.api.v1.operator_service_pb2_grpc import OperatorServiceStub
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris.api.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from aetheris_server.clock import SystemClock
from aetheris_server.config import GrpcSettings, Settings
from aetheris_server.frontend.catalog import Catalog
from aetheris_server.frontend.operator_service import Probe
from aetheris_server.frontend.services import build_frontend
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.server import RpcServer, serve_grpc
from tests.support.fake_history import FakeHistory
from tests.support.peers import FakeCatalog, FakeMatching
from tests.support.secrets import TOKENS

SHARD_COUNT = 4


@dataclass(frozen=True, slots=True)
class RunningFrontend:
    """A frontend and what is before and behind it."""

    server: RpcServer
    gate: DrainGate
    channel: grpc.aio.Channel
    history: FakeHistory
    matching: FakeMatching

    @property
    def workflows(self) -> WorkflowServiceStub:
        return WorkflowServiceStub(self.channel)

    @property
    def workers(self) -> WorkerServiceStub:
        return WorkerServiceStub(self.channel)

    @property
    def operators(self) -> OperatorServiceStub:
        return OperatorServiceStub(self.channel)


@asynccontextmanager
async def running_frontend(
    *,
    catalog: Catalog | None = None,
    probes: Mapping[str, Probe] | None = None,
    drain_timeout: float = 5.0,
    max_calls: int = 20_000,
    max_streams: int | None = None,
) -> AsyncGenerator[RunningFrontend]:
    """A frontend until the block is left."""
    grpc_settings = GrpcSettings(
        port=0, drain_timeout=drain_timeout, max_calls=max_calls, max_streams=max_streams
    )
    settings = Settings(grpc=grpc_settings)
    history, matching, gate = FakeHistory(), FakeMatching(), DrainGate()
    services = build_frontend(
        settings,
        history,
        matching,
        catalog or FakeCatalog(),
        probes or {},
        gate,
        SystemClock(),
        SHARD_COUNT,
        TOKENS,
    )
    async with (
        serve_grpc(settings.grpc, services) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield RunningFrontend(server, gate, channel, history, matching)
