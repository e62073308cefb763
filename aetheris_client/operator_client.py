"""What operators ask: namespaces, task queues, the cluster. `Client.operator` is one of these."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aetheris.api.v1 import operator_service_pb2, task_queue_pb2
from aetheris.api.v1.operator_service_pb2 import (
    CreateNamespaceRequest,
    DescribeClusterRequest,
    DescribeClusterResponse,
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    ListNamespacesRequest,
    NamespaceLimits,
    UpdateNamespaceRequest,
    UpdateTaskQueueRequest,
)
from aetheris_client import enums
from aetheris_client.connection import Connection
from aetheris_client.enums import ComponentStatus, TaskQueueType
from aetheris_client.interceptor import new_request_id
from aetheris_client.options import check_names, check_options
from aetheris_client.rpc_outbound import ClientConfig
from aetheris_client.times import read_duration, read_timestamp, to_duration


@dataclass(frozen=True, slots=True)
class NamespaceInfo:
    """A namespace.

    Attributes:
        retention_interval: How long closed runs are to be kept; no server removes any yet.
        limits: What it is held to, by name: its own limits, else the server's.
        own_limits: Those that it has of its own.
    """

    name: str
    namespace_id: str
    description: str
    retention_interval: timedelta | None
    create_time: datetime | None
    limits: Mapping[str, int]
    own_limits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PollerInfo:
    """One worker, as its last poll showed it.

    Attributes:
        waiting_poll_count: Polls of it that wait now.
        build_id: The build that it runs; empty where it does not say.
    """

    identity: str
    last_access_time: datetime | None
    capabilities: Sequence[str]
    waiting_poll_count: int
    build_id: str = ""


@dataclass(frozen=True, slots=True)
class BacklogInfo:
    """The waiting tasks that require one set of capabilities, and one build or none.

    Attributes:
        in_flight_count: Those of them that are handed out.
        pinned_build_id: The build that their runs are pinned to; empty for none.
    """

    capabilities: Sequence[str]
    backlog_count: int
    oldest_age: timedelta | None
    in_flight_count: int
    pinned_build_id: str = ""


@dataclass(frozen=True, slots=True)
class TaskQueueDescription:
    """Who polled a task queue in the last minutes, newest first, and what waits in it.

    Attributes:
        default_build_id: The build that workflow tasks go to whose runs are not pinned; empty for
            any.
    """

    task_queue: str
    task_queue_type: TaskQueueType
    pollers: Sequence[PollerInfo]
    backlogs: Sequence[BacklogInfo]
    default_build_id: str = ""


@dataclass(frozen=True, slots=True)
class ComponentHealth:
    """One part of the cluster. `message` says what is wrong."""

    name: str
    status: ComponentStatus
    message: str
    latency: timedelta | None


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One live server."""

    host_id: str
    address: str
    heartbeat_time: datetime | None
    shard_count: int


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """The cluster, as the server that answered sees it."""

    server_version: str
    shard_count: int
    owned_shard_count: int
    components: Sequence[ComponentHealth]
    hosts: Sequence[HostInfo]

    @property
    def is_healthy(self) -> bool:
        """Every part is well, and every shard has a host."""
        return self.owned_shard_count >= self.shard_count and all(
            component.status is ComponentStatus.SERVING for component in self.components
        )


class OperatorClient:
    """Operators' calls."""

    def __init__(self, connection: Connection, config: ClientConfig) -> None:
        self._connection = connection
        self._config = config
        self._timeout = config.rpc_timeout.total_seconds()

    async def create_namespace(
        self,
        name: str,
        *,
        description: str = "",
        retention_interval: timedelta | None = None,
        limits: Mapping[str, int] | None = None,
        request_id: str | None = None,
    ) -> NamespaceInfo:
        """Make a namespace; the server's retention where None is given, and its limits where there
        are no others.

        Raises:
            InvalidArgumentError: A limit is out of bounds; names it.
            NamespaceAlreadyExistsError: There is one of the name.
        """
        check_options(
            "create_namespace",
            name=name,
            description=description,
            retention_interval=retention_interval,
            request_id=request_id,
        )
        _check_limits("create_namespace", limits or {})
        request = CreateNamespaceRequest(
            namespace=name,
            description=description,
            retention_interval=to_duration(retention_interval),
            identity=self._config.identity,
            request_id=request_id or new_request_id(),
            limits=NamespaceLimits(**(limits or {})),
        )
        response = await self._connection.call(
            lambda stubs: stubs.operator_service.CreateNamespace, request, self._timeout
        )
        return _namespace(response.namespace_info)

    async def update_namespace(
        self,
        name: str | None = None,
        *,
        description: str | None = None,
        retention_interval: timedelta | None = None,
        limits: Mapping[str, int | None] | None = None,
    ) -> NamespaceInfo:
        """Change what is given of a namespace, the client's own where no name is given; every host
        goes by it within 10 s.

        Args:
            name: Of the namespace.
            description: For people.
            retention_interval: How long closed runs are to be kept.
            limits: Those to change, by name; with None the server's counts again.

        Raises:
            NamespaceNotFoundError: There is none of the name.
            InvalidArgumentError: A limit is out of bounds; names it.
        """
        check_options(
            "update_namespace",
            name=name,
            description=description,
            retention_interval=retention_interval,
        )
        _check_limits("update_namespace", limits or {})
        changed = {key: value for key, value in (limits or {}).items() if value is not None}
        request = UpdateNamespaceRequest(
            namespace=name or self._config.namespace,
            description=description,
            retention_interval=to_duration(retention_interval),
            limits=NamespaceLimits(**changed),
            unset_limits=[key for key in limits or {} if key not in changed],
            identity=self._config.identity,
        )
        response = await self._connection.call(
            lambda stubs: stubs.operator_service.UpdateNamespace, request, self._timeout
        )
        return _namespace(response.namespace_info)

    async def describe_namespace(self, name: str | None = None) -> NamespaceInfo:
        """One namespace; the client's own where None is given."""
        check_options("describe_namespace", name=name)
        request = DescribeNamespaceRequest(namespace=name or self._config.namespace)
        response = await self._connection.call(
            lambda stubs: stubs.operator_service.DescribeNamespace, request, self._timeout
        )
        return _namespace(response.namespace_info)

    async def list_namespaces(self, *, page_size: int = 0) -> AsyncIterator[NamespaceInfo]:
        """All namespaces by name, fetched page by page."""
        check_options("list_namespaces", page_size=page_size)
        request = ListNamespacesRequest(page_size=page_size)
        while True:
            response = await self._connection.call(
                lambda stubs: stubs.operator_service.ListNamespaces, request, self._timeout
            )
            for info in response.namespaces:
                yield _namespace(info)
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token

    async def describe_task_queue(
        self, task_queue: str, task_queue_type: TaskQueueType
    ) -> TaskQueueDescription:
        """Who polls one side of a task queue, and what waits in it."""
        check_options("describe_task_queue", task_queue=task_queue, task_queue_type=task_queue_type)
        request = DescribeTaskQueueRequest(
            namespace=self._config.namespace,
            task_queue=task_queue,
            task_queue_type=enums.to_proto(
                task_queue_type, task_queue_pb2.TaskQueueType, "TASK_QUEUE_TYPE_"
            ),
        )
        response = await self._connection.call(
            lambda stubs: stubs.operator_service.DescribeTaskQueue, request, self._timeout
        )
        return _task_queue(task_queue, task_queue_type, response)

    async def update_task_queue(
        self, task_queue: str, *, default_build_id: str, request_id: str | None = None
    ) -> None:
        """Have the workflow tasks of a queue, of runs that are not pinned, go only to workers of
        one build from now on, those that wait too; empty for workers of any.
        """
        check_options(
            "update_task_queue",
            task_queue=task_queue,
            default_build_id=default_build_id,
            request_id=request_id,
        )
        request = UpdateTaskQueueRequest(
            namespace=self._config.namespace,
            task_queue=task_queue,
            default_build_id=default_build_id,
            identity=self._config.identity,
            request_id=request_id or new_request_id(),
        )
        await self._connection.call(
            lambda stubs: stubs.operator_service.UpdateTaskQueue, request, self._timeout
        )

    async def describe_cluster(self) -> ClusterHealth:
        """Whether the parts of the cluster are well, and which host has how many shards."""
        response = await self._connection.call(
            lambda stubs: stubs.operator_service.DescribeCluster,
            DescribeClusterRequest(),
            self._timeout,
        )
        return _cluster(response)


def _namespace(info: operator_service_pb2.NamespaceInfo) -> NamespaceInfo:
    return NamespaceInfo(
        name=info.name,
        namespace_id=info.namespace_id,
        description=info.description,
        retention_interval=read_duration(info, "retention_interval"),
        create_time=read_timestamp(info, "create_time"),
        limits=_limits(info.effective_limits),
        own_limits=_limits(info.limits),
    )


def _limits(limits: NamespaceLimits) -> Mapping[str, int]:
    return {field.name: value for field, value in limits.ListFields()}


def _check_limits(call: str, limits: Mapping[str, object]) -> None:
    """Refuse names that no limit has; TypeError says which there are."""
    check_names(f"{call}: limits", limits, NamespaceLimits.DESCRIPTOR.fields_by_name, ())


def _task_queue(
    name: str, task_queue_type: TaskQueueType, response: DescribeTaskQueueResponse
) -> TaskQueueDescription:
    return TaskQueueDescription(
        task_queue=name,
        task_queue_type=task_queue_type,
        pollers=tuple(
            PollerInfo(
                identity=poller.identity,
                last_access_time=read_timestamp(poller, "last_access_time"),
                capabilities=tuple(poller.capabilities),
                waiting_poll_count=poller.waiting_poll_count,
                build_id=poller.worker_version,
            )
            for poller in response.pollers
        ),
        backlogs=tuple(
            BacklogInfo(
                capabilities=tuple(backlog.capabilities),
                backlog_count=backlog.backlog_count,
                oldest_age=read_duration(backlog, "oldest_age"),
                in_flight_count=backlog.in_flight_count,
                pinned_build_id=backlog.pinned_build_id,
            )
            for backlog in response.backlogs
        ),
        default_build_id=response.default_build_id,
    )


def _cluster(response: DescribeClusterResponse) -> ClusterHealth:
    return ClusterHealth(
        server_version=response.server_version,
        shard_count=response.shard_count,
        owned_shard_count=response.owned_shard_count,
        components=tuple(
            ComponentHealth(
                name=component.name,
                status=enums.from_proto(
                    ComponentStatus,
                    operator_service_pb2.ComponentStatus,
                    component.status,
                    "COMPONENT_STATUS_",
                ),
                message=component.message,
                latency=read_duration(component, "latency_interval"),
            )
            for component in response.components
        ),
        hosts=tuple(
            HostInfo(
                host_id=host.host_id,
                address=host.address,
                heartbeat_time=read_timestamp(host, "heartbeat_time"),
                shard_count=host.shard_count,
            )
            for host in response.hosts
        ),
    )
