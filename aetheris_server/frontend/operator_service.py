# ruff: noqa: N802 - gRPC names the methods
"""OperatorService: what operators call."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version

from aetheris.api.v1 import operator_service_pb2 as pb
from aetheris.api.v1.operator_service_pb2_grpc import OperatorServiceServicer
from aetheris.server.v1.matching_service_pb2 import (
    DescribeTaskQueueRequest,
    UpdateTaskQueueRequest,
)
from aetheris.server.v1.token_pb2 import PageToken
from aetheris_server.config import NAMESPACE_LIMITS, LimitSettings, limits_of_namespace
from aetheris_server.errors import AetherisError, NamespaceNotFoundError, StorageUnavailableError
from aetheris_server.frontend.catalog import Catalog, ClusterOverview
from aetheris_server.frontend.checks import operator as checks
from aetheris_server.frontend.checks.fields import check_namespace_name
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.frontend.pages import page_size
from aetheris_server.frontend.passing import new_request_id
from aetheris_server.frontend.waits import set_seconds
from aetheris_server.rpc.handlers import CallContext
from aetheris_server.rpc.peers import MatchingPeer
from aetheris_server.rpc.table import DESCRIBE_TASK_QUEUE, UPDATE_TASK_QUEUE
from aetheris_server.rpc.tokens import LISTING_NAMESPACES, Tokens
from aetheris_server.storage.hosts import HostRow
from aetheris_server.storage.namespaces import Namespace

__all__ = ["OperatorServicer", "Probe"]

Probe = Callable[[], Awaitable[object]]
"""Returns when a component answers, raises an AetherisError where it does not. A text that it
returns says what is wrong with the component all the same.
"""

_DEFAULT_RETENTION_SECONDS = 72 * 3600
_PROBE_TIMEOUT = 2.0


class OperatorServicer(OperatorServiceServicer):
    """Namespaces and the cluster from the catalog, task queues from matching."""

    def __init__(
        self,
        matching: MatchingPeer,
        catalog: Catalog,
        namespaces: NamespaceDirectory,
        probes: Mapping[str, Probe],
        limits: LimitSettings,
        tokens: Tokens,
    ) -> None:
        self._matching = matching
        self._catalog = catalog
        self._namespaces = namespaces
        self._probes = probes
        self._limits = limits
        self._tokens = tokens

    async def CreateNamespace(
        self, request: pb.CreateNamespaceRequest, context: CallContext
    ) -> pb.CreateNamespaceResponse:
        checks.check_create_namespace(request, self._limits)
        namespace = await self._catalog.create_namespace(
            str(uuid.uuid4()),
            request.namespace,
            request.description,
            request.retention_interval.seconds or _DEFAULT_RETENTION_SECONDS,
            request.request_id or new_request_id(),
            checks.limits_to_set(request.limits),
        )
        return pb.CreateNamespaceResponse(namespace_info=self._to_info(namespace))

    async def UpdateNamespace(
        self, request: pb.UpdateNamespaceRequest, context: CallContext
    ) -> pb.UpdateNamespaceResponse:
        checks.check_update_namespace(request, self._limits)
        has_retention = request.HasField("retention_interval")
        namespace = await self._catalog.update_namespace(
            request.namespace,
            request.description if request.HasField("description") else None,
            request.retention_interval.seconds if has_retention else None,
            checks.limits_to_set(request.limits),
            request.unset_limits,
        )
        if namespace is None:
            raise NamespaceNotFoundError(request.namespace)
        return pb.UpdateNamespaceResponse(namespace_info=self._to_info(namespace))

    async def DescribeNamespace(
        self, request: pb.DescribeNamespaceRequest, context: CallContext
    ) -> pb.DescribeNamespaceResponse:
        check_namespace_name("namespace", request.namespace)
        namespace = await self._catalog.load_namespace(request.namespace)
        if namespace is None:
            raise NamespaceNotFoundError(request.namespace)
        return pb.DescribeNamespaceResponse(namespace_info=self._to_info(namespace))

    async def ListNamespaces(
        self, request: pb.ListNamespacesRequest, context: CallContext
    ) -> pb.ListNamespacesResponse:
        token = checks.check_list_namespaces(request, self._limits, self._tokens)
        size = page_size(request.page_size, self._limits)
        # One more than asked for tells whether there is another page.
        found = await self._catalog.list_namespaces(size + 1, token.last_key if token else "")
        return pb.ListNamespacesResponse(
            namespaces=[self._to_info(namespace) for namespace in found[:size]],
            next_page_token=self._token_after(found[size - 1]) if len(found) > size else b"",
        )

    async def DescribeTaskQueue(
        self, request: pb.DescribeTaskQueueRequest, context: CallContext
    ) -> pb.DescribeTaskQueueResponse:
        checks.check_describe_task_queue(request, self._limits)
        namespace_id = await self._namespaces.id_of(request.namespace)
        describe = DescribeTaskQueueRequest(namespace_id=namespace_id, request=request)
        return (await self._matching.call(DESCRIBE_TASK_QUEUE, describe)).response

    async def UpdateTaskQueue(
        self, request: pb.UpdateTaskQueueRequest, context: CallContext
    ) -> pb.UpdateTaskQueueResponse:
        checks.check_update_task_queue(request, self._limits)
        namespace_id = await self._namespaces.id_of(request.namespace)
        request.request_id = request.request_id or new_request_id()
        update = UpdateTaskQueueRequest(namespace_id=namespace_id, request=request)
        return (await self._matching.call(UPDATE_TASK_QUEUE, update)).response

    async def DescribeCluster(
        self, request: pb.DescribeClusterRequest, context: CallContext
    ) -> pb.DescribeClusterResponse:
        components = await asyncio.gather(
            *(_probe(name, probe) for name, probe in self._probes.items())
        )
        try:
            cluster = await self._catalog.load_cluster()
        except StorageUnavailableError:
            # The components say so; that is what the caller wants to know.
            cluster = ClusterOverview((), 0, {})
        return pb.DescribeClusterResponse(
            server_version=version("aetheris-workflow"),
            shard_count=cluster.shard_count,
            owned_shard_count=sum(cluster.owned_by_host.values()),
            components=components,
            hosts=[
                _to_host_info(host, cluster.owned_by_host[host.host_id]) for host in cluster.hosts
            ],
        )

    def _to_info(self, namespace: Namespace) -> pb.NamespaceInfo:
        own = {name: value for name, value in namespace.limits.items() if name in NAMESPACE_LIMITS}
        limits = limits_of_namespace(self._limits, namespace.limits)
        info = pb.NamespaceInfo(
            name=namespace.name,
            namespace_id=namespace.namespace_id,
            description=namespace.description,
            limits=pb.NamespaceLimits(**own),
            effective_limits=pb.NamespaceLimits(
                **{name: getattr(limits, name) for name in NAMESPACE_LIMITS}
            ),
        )
        info.create_time.FromDatetime(namespace.create_time)
        info.retention_interval.seconds = namespace.retention_seconds
        return info

    def _token_after(self, namespace: Namespace) -> bytes:
        return self._tokens.seal_page(
            PageToken(listing=LISTING_NAMESPACES, last_key=namespace.name)
        )


async def _probe(name: str, probe: Probe) -> pb.ComponentHealth:
    health = pb.ComponentHealth(name=name, status=pb.COMPONENT_STATUS_SERVING)
    start = time.monotonic()
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            found = await probe()
        if isinstance(found, str):
            health.message = found
    except (AetherisError, TimeoutError) as error:
        health.status = pb.COMPONENT_STATUS_NOT_SERVING
        health.message = str(error) or f"no answer in {_PROBE_TIMEOUT} s"
    set_seconds(health.latency_interval, time.monotonic() - start)
    return health


def _to_host_info(host: HostRow, shard_count: int) -> pb.HostInfo:
    info = pb.HostInfo(host_id=host.host_id, address=host.address, shard_count=shard_count)
    info.heartbeat_time.FromDatetime(host.heartbeat_time)
    return info
