"""Tasks that did not reach their worker are taken back, on a real Postgres."""

import asyncio

import pytest

from aetheris.api.v1 import (
    common_pb2,
    task_queue_pb2,
    worker_service_pb2,
    workflow_service_pb2,
)
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench
from tests.support.raw import seconds
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


async def idle_run(bench: HistoryBench) -> None:
    await bench.service.start_workflow(
        NAMESPACE_ID,
        workflow_service_pb2.StartWorkflowRequest(
            workflow_id="w",
            workflow_type=common_pb2.WorkflowType(name="Flow"),
            task_queue=task_queue_pb2.TaskQueue(name="queue"),
            workflow_task_timeout=seconds(10),
            request_id="r",
        ),
    )
    await wait_until(lambda: bench.matching.refs)
    task = (await bench.start_task(bench.matching.refs.pop())).workflow_task
    await bench.service.respond_workflow_task_completed(
        NAMESPACE_ID,
        worker_service_pb2.RespondWorkflowTaskCompletedRequest(task_token=task.task_token),
    )


async def test_query_that_did_not_reach_its_worker_is_asked_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await idle_run(bench)
        request = workflow_service_pb2.QueryWorkflowRequest()
        request.workflow_execution.workflow_id = "w"
        request.query_type = "q"
        query = asyncio.create_task(bench.service.query_workflow(NAMESPACE_ID, request))
        await wait_until(lambda: bench.matching.refs)
        lost = bench.matching.refs.pop()
        task = (await bench.start_task(lost)).workflow_task
        await bench.service.release_tasks([task.task_token])
        await wait_until(lambda: bench.matching.refs)
        assert [ref.query_id for ref in bench.matching.refs] == [lost.query_id]
        query.cancel()
        await asyncio.wait([query])
