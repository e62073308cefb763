"""The frontend put together: the three public services over whatever stands behind them."""

from collections.abc import Mapping

from aetheris.api.v1 import operator_service_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.api.v1.worker_service_pb2 import (
    PollActivityTasksResponse,
    PollWorkflowTasksResponse,
)
from aetheris_server.clock import Clock
from aetheris_server.config import Settings
from aetheris_server.frontend.catalog import Catalog
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.frontend.operator_service import OperatorServicer, Probe
from aetheris_server.frontend.worker_service import WorkerServicer
from aetheris_server.frontend.workflow_service import WorkflowServicer
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import RpcService, handlers_of
from aetheris_server.rpc.peers import HistoryPeer, MatchingPeer
from aetheris_server.rpc.table import MATCHING_METHODS
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.rpc.undelivered import release_undelivered, tokens_of

__all__ = ["build_frontend"]


def build_frontend(
    settings: Settings,
    history: HistoryPeer,
    matching: MatchingPeer,
    catalog: Catalog,
    probes: Mapping[str, Probe],
    gate: DrainGate,
    clock: Clock,
    shard_count: int,
    tokens: Tokens,
) -> list[RpcService]:
    """The public services, for `serve_grpc`. When `gate` begins to drain, polls answer empty.

    Args:
        settings: Of the process.
        history: Where runs are decided.
        matching: Where tasks are waited for.
        catalog: Namespaces and lists.
        probes: The components that DescribeCluster asks, by name.
        gate: Shared with whoever else on this host lets callers wait.
        clock: For how long namespaces are remembered.
        shard_count: Of the cluster.
        tokens: Of the cluster.
    """
    namespaces = NamespaceDirectory(catalog, clock, settings.limits)
    limits = settings.limits

    async def release(response: PollWorkflowTasksResponse | PollActivityTasksResponse) -> None:
        await release_undelivered(history, tokens_of(response))

    worker = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"]
    workflow = workflow_service_pb2.DESCRIPTOR.services_by_name["WorkflowService"]
    operator = operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"]
    workers = WorkerServicer(history, matching, namespaces, gate, settings, tokens)
    workflows = WorkflowServicer(history, catalog, namespaces, gate, limits, shard_count, tokens)
    operators = OperatorServicer(matching, catalog, namespaces, probes, limits, tokens)
    return [
        RpcService(
            worker,
            handlers_of(worker, workers),
            {name: release for name, method in MATCHING_METHODS.items() if method.is_poll},
        ),
        RpcService(workflow, handlers_of(workflow, workflows)),
        RpcService(operator, handlers_of(operator, operators)),
    ]
