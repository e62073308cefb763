"""Updates that wait to be judged, and the speculative tasks that bring them, on a real Postgres."""

import asyncio

import pytest

from aetheris.api.v1 import worker_service_pb2, workflow_pb2, workflow_service_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_WORKFLOW
from aetheris_server.errors import TaskNotFoundError, UpdateLimitError, UpdateNotFoundError
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    signal_request,
    start_request,
)
from tests.support.raw import application_failure
from tests.support.runs import accept_update, complete_update

pytestmark = pytest.mark.integration

ADMITTED = workflow_pb2.UPDATE_STAGE_ADMITTED
COMPLETED = workflow_pb2.UPDATE_STAGE_COMPLETED

Decision = worker_service_pb2.RespondWorkflowTaskCompletedRequest


async def idle_run(bench: HistoryBench) -> None:
    await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    task = await take_task(bench)
    await decide(bench, Decision(task_token=task.task_token))


async def take_task(bench: HistoryBench) -> worker_service_pb2.WorkflowTask:
    ref = await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW)
    return (await bench.start_task(ref)).workflow_task


async def decide(
    bench: HistoryBench, decision: Decision
) -> worker_service_pb2.RespondWorkflowTaskCompletedResponse:
    return await bench.service.respond_workflow_task_completed(NAMESPACE_ID, decision)


async def update(
    bench: HistoryBench,
    update_id: str = "u1",
    stage: workflow_pb2.UpdateStage.ValueType = ADMITTED,
) -> workflow_service_pb2.UpdateWorkflowResponse:
    request = workflow_service_pb2.UpdateWorkflowRequest(wait_stage=stage)
    request.workflow_execution.workflow_id = "w"
    request.request.update_id, request.request.name = update_id, "set"
    request.wait_timeout.seconds = 20
    return await bench.service.update_workflow(NAMESPACE_ID, request)


def rejection_of(task: worker_service_pb2.WorkflowTask) -> Decision:
    decision = Decision(task_token=task.task_token, is_discardable=True)
    for request in task.updates:
        decision.update_rejections.add(
            update_id=request.update_id, failure=application_failure("no")
        )
    return decision


async def test_speculative_task_that_did_not_reach_its_worker_is_offered_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await idle_run(bench)
        await update(bench)
        lost = await take_task(bench)
        assert not bench.refs_of(TASK_QUEUE_TYPE_WORKFLOW)
        await bench.service.release_tasks([lost.task_token])
        again = await take_task(bench)
        assert again.is_speculative
        assert again.updates == lost.updates
        with pytest.raises(TaskNotFoundError):
            await decide(bench, rejection_of(lost))
        assert (await decide(bench, rejection_of(again))).is_discarded


async def test_reference_that_is_out_of_date_is_gone_and_the_update_comes_with_the_next(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await idle_run(bench)
        await update(bench)
        stale = await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW)
        await bench.service.signal_workflow(NAMESPACE_ID, signal_request("w"))
        assert (await bench.start_task(stale)).HasField("gone")
        task = await take_task(bench)
        assert not task.is_speculative
        assert [request.update_id for request in task.updates] == ["u1"]


async def test_update_that_comes_while_the_task_is_out_comes_with_one_of_its_own(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await idle_run(bench)
        await update(bench, "u1")
        first = await take_task(bench)
        await update(bench, "u2")
        assert not bench.refs_of(TASK_QUEUE_TYPE_WORKFLOW)
        assert (await decide(bench, rejection_of(first))).is_discarded
        second = await take_task(bench)
        assert [request.update_id for request in second.updates] == ["u2"]
        await decide(
            bench,
            Decision(
                task_token=second.task_token, commands=[accept_update("u2"), complete_update("u2")]
            ),
        )
        assert (await update(bench, "u2", COMPLETED)).outcome.HasField("success")
        assert not bench.refs_of(TASK_QUEUE_TYPE_WORKFLOW)


async def test_updates_that_nobody_waits_for_make_room_after_a_minute(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await idle_run(bench)
        for number in range(10):
            await update(bench, f"u{number}")
        bench.advance(59)
        with pytest.raises(UpdateLimitError):
            await update(bench, "one-more")
        bench.advance(2)
        await update(bench, "one-more")
        request = workflow_service_pb2.PollWorkflowUpdateRequest(
            update_id="u1", wait_stage=ADMITTED
        )
        request.workflow_execution.workflow_id = "w"
        with pytest.raises(UpdateNotFoundError):
            await bench.service.poll_workflow_update(NAMESPACE_ID, request)


async def test_run_stays_in_memory_while_somebody_waits_for_its_update(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await idle_run(bench)
        asking = asyncio.create_task(update(bench, "u1", COMPLETED))
        task = await take_task(bench)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        assert run.updates
        assert not run.is_evictable
        await decide(
            bench,
            Decision(
                task_token=task.task_token, commands=[accept_update("u1"), complete_update("u1")]
            ),
        )
        assert (await asking).stage == COMPLETED
        assert not run.updates
        assert run.is_evictable
