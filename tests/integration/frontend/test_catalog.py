"""Namespaces, lists and the cluster from a real Postgres, by way of gRPC."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from aetheris.api.v1 import (
    common_pb2,
    operator_service_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris_server.config import PostgresSettings
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.frontend.catalog import PostgresCatalog
from aetheris_server.ids import new_run_id, shard_of
from aetheris_server.rpc.search_attributes import encode_search_attributes
from aetheris_server.storage.commit import CommitBatch, LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import (
    EXECUTION_STATEMENTS,
    INSERT_EXECUTIONS,
    ExecutionRow,
)
from aetheris_server.storage.hosts import register_host
from aetheris_server.storage.shards import acquire_shards, ensure_cluster
from tests.support.frontend import SHARD_COUNT, RunningFrontend, running_frontend

pytestmark = [pytest.mark.integration, pytest.mark.damage]

START_TIME = datetime(2026, 1, 1, 12, 30, 15, 123_456, tzinfo=UTC)


@pytest.fixture
async def db(migrated_postgres_dsn: str) -> AsyncGenerator[Database]:
    async with Database(PostgresSettings(dsn=migrated_postgres_dsn)) as database:
        yield database


@pytest.fixture
async def frontend(db: Database) -> AsyncGenerator[RunningFrontend]:
    async def fails() -> None:
        raise StorageUnavailableError("redis", "connection refused")

    probes = {"postgres": db.ping, "redis": fails}
    async with running_frontend(catalog=PostgresCatalog(db), probes=probes) as running:
        yield running


async def create(frontend: RunningFrontend, name: str, request_id: str = "") -> str:
    response = await frontend.operators.CreateNamespace(
        operator_service_pb2.CreateNamespaceRequest(namespace=name, request_id=request_id)
    )
    return response.namespace_info.namespace_id


async def test_namespace_that_is_made_can_be_described(frontend: RunningFrontend) -> None:
    request = operator_service_pb2.CreateNamespaceRequest(namespace="shop", description="of Ana")
    request.retention_interval.seconds = 7200
    made = (await frontend.operators.CreateNamespace(request)).namespace_info
    found = await frontend.operators.DescribeNamespace(
        operator_service_pb2.DescribeNamespaceRequest(namespace="shop")
    )
    assert found.namespace_info == made
    assert (made.name, made.description, made.retention_interval.seconds) == (
        "shop",
        "of Ana",
        7200,
    )


async def test_namespace_made_again_by_the_same_request_is_the_same(
    frontend: RunningFrontend,
) -> None:
    assert await create(frontend, "shop", "r") == await create(frontend, "shop", "r")


async def test_namespace_made_by_another_request_already_exists(frontend: RunningFrontend) -> None:
    await create(frontend, "shop")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(frontend, "shop")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


async def test_namespaces_are_listed_by_name_in_pages(frontend: RunningFrontend) -> None:
    for name in "cab":
        await create(frontend, name)
    names: list[str] = []
    request = operator_service_pb2.ListNamespacesRequest(page_size=2)
    while True:
        page = await frontend.operators.ListNamespaces(request)
        names += [namespace.name for namespace in page.namespaces]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert names == ["a", "b", "c"]


def a_run(namespace_id: str, workflow_id: str, start_time: datetime) -> ExecutionRow:
    run_id = new_run_id()
    return ExecutionRow(
        shard_id=shard_of(namespace_id, workflow_id, SHARD_COUNT),
        namespace_id=namespace_id,
        workflow_id=workflow_id,
        run_id=run_id,
        first_execution_run_id=run_id,
        start_request_id="request",
        workflow_type="Order",
        task_queue="orders",
        status=1,
        start_time=start_time,
        execution_time=start_time,
        history_length=3,
    )


async def store(db: Database, rows: list[ExecutionRow]) -> None:
    writer = LogWriter(db, EXECUTION_STATEMENTS)
    batch = CommitBatch()
    batch.changes.add(INSERT_EXECUTIONS, *rows)
    try:
        await writer.commit(batch)
    finally:
        await writer.close()


async def list_ids(
    frontend: RunningFrontend, request: workflow_service_pb2.ListWorkflowsRequest
) -> list[str]:
    found: list[str] = []
    while True:
        page = await frontend.workflows.ListWorkflows(request)
        found += [info.execution.workflow_id for info in page.executions]
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


async def test_runs_are_listed_newest_first_in_pages(
    frontend: RunningFrontend, db: Database
) -> None:
    shop, other = await create(frontend, "shop"), await create(frontend, "other")
    rows = [a_run(shop, f"w{n}", START_TIME + timedelta(microseconds=n // 2)) for n in range(5)]
    await store(db, [*rows, a_run(other, "elsewhere", START_TIME)])
    request = workflow_service_pb2.ListWorkflowsRequest(namespace="shop", page_size=2)
    expected = sorted(rows, key=lambda row: (row.start_time, row.run_id), reverse=True)
    assert await list_ids(frontend, request) == [row.workflow_id for row in expected]


async def test_list_keeps_to_its_filter(frontend: RunningFrontend, db: Database) -> None:
    shop = await create(frontend, "shop")
    wanted = a_run(shop, "w", START_TIME)
    others = [
        a_run(shop, "other", START_TIME),
        replace(a_run(shop, "w", START_TIME), workflow_type="Refund"),
        replace(a_run(shop, "w", START_TIME), status=2, close_time=START_TIME),
        a_run(shop, "w", START_TIME - timedelta(seconds=1)),
        a_run(shop, "w", START_TIME + timedelta(seconds=1)),
    ]
    await store(db, [wanted, *others])
    request = workflow_service_pb2.ListWorkflowsRequest(namespace="shop")
    request.filter.workflow_id = "w"
    request.filter.workflow_type = "Order"
    request.filter.statuses.append(workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING)
    request.filter.earliest_start_time.FromDatetime(START_TIME)
    request.filter.latest_start_time.FromDatetime(START_TIME + timedelta(seconds=1))
    [info] = (await frontend.workflows.ListWorkflows(request)).executions
    assert info.execution.run_id == wanted.run_id


async def test_run_in_a_list_shows_its_notes_and_parent(
    frontend: RunningFrontend, db: Database
) -> None:
    shop = await create(frontend, "shop")
    payload = common_pb2.Payload(
        metadata={"encoding": b"json/plain", "type": b"keyword"}, data=b'"Berlin"'
    )
    memo = common_pb2.Memo(fields={"note": payload})
    attributes = common_pb2.SearchAttributes(indexed_fields={"city": payload})
    parent_run_id = new_run_id()
    row = replace(
        a_run(shop, "w", START_TIME),
        status=2,
        close_time=START_TIME + timedelta(seconds=1),
        memo=memo.SerializeToString(),
        search_attributes=encode_search_attributes(attributes),
        parent_namespace_id=shop,
        parent_workflow_id="parent",
        parent_run_id=parent_run_id,
    )
    await store(db, [row])
    request = workflow_service_pb2.ListWorkflowsRequest(namespace="shop")
    [info] = (await frontend.workflows.ListWorkflows(request)).executions
    assert (info.memo, info.search_attributes) == (memo, attributes)
    assert info.start_time.ToDatetime(UTC) == START_TIME
    assert info.close_time.ToDatetime(UTC) == START_TIME + timedelta(seconds=1)
    assert info.parent_execution == common_pb2.WorkflowExecution(
        workflow_id="parent", run_id=parent_run_id
    )


async def test_cluster_shows_its_hosts_shards_and_components(
    frontend: RunningFrontend, db: Database
) -> None:
    await ensure_cluster(db, SHARD_COUNT)
    await register_host(db, "host", "127.0.0.1:7233", 60)
    await acquire_shards(db, "host", [0, 1, 2], lambda shard_id, range_id: (b"note", b"hash"))
    cluster = await frontend.operators.DescribeCluster(
        operator_service_pb2.DescribeClusterRequest()
    )
    assert (cluster.shard_count, cluster.owned_shard_count) == (SHARD_COUNT, 3)
    [host] = cluster.hosts
    assert (host.host_id, host.address, host.shard_count) == ("host", "127.0.0.1:7233", 3)
    assert {component.name: component.status for component in cluster.components} == {
        "postgres": operator_service_pb2.COMPONENT_STATUS_SERVING,
        "redis": operator_service_pb2.COMPONENT_STATUS_NOT_SERVING,
    }
    assert cluster.server_version
