"""A worker that keeps its workflow task while local activities run: one record for each answer."""

from datetime import timedelta

import pytest

from aetheris.api.v1 import task_queue_pb2, worker_service_pb2
from aetheris_server.errors import TaskNotFoundError
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench, start_request
from tests.support.raw import record_marker

pytestmark = pytest.mark.integration

WORKFLOW = task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW


async def first_task(bench: HistoryBench) -> worker_service_pb2.WorkflowTask:
    await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    return (await bench.start_task(await bench.take_ref(WORKFLOW))).workflow_task


def forced(
    task: worker_service_pb2.WorkflowTask, *markers: str
) -> worker_service_pb2.RespondWorkflowTaskCompletedRequest:
    return worker_service_pb2.RespondWorkflowTaskCompletedRequest(
        task_token=task.task_token,
        commands=[record_marker(name) for name in markers],
        force_create_new_workflow_task=True,
        return_new_workflow_task=True,
    )


async def test_forced_task_comes_with_the_answer_for_one_record(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        task = await first_task(bench)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        for markers in (("a", "b"), (), ("c",)):
            before = run.state.run_seq
            answer = await bench.service.respond_workflow_task_completed(
                NAMESPACE_ID, forced(task, *markers)
            )
            assert run.state.run_seq == before + 1
            assert answer.HasField("workflow_task")
            task = answer.workflow_task
        assert not bench.matching.refs


async def test_task_kept_too_long_without_a_decision_is_lost(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        task = await first_task(bench)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        answer = await bench.service.respond_workflow_task_completed(NAMESPACE_ID, forced(task))
        assert run.inflight.heartbeat_since is not None
        run.inflight.heartbeat_since -= timedelta(minutes=30)
        with pytest.raises(TaskNotFoundError, match="nothing but that it is at work"):
            await bench.service.respond_workflow_task_completed(
                NAMESPACE_ID, forced(answer.workflow_task)
            )
        assert run.inflight.workflow_task is None
        assert run.inflight.heartbeat_since is None
        assert run.state.workflow_task is not None
        assert run.state.workflow_task.attempt == 2
