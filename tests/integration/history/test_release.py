"""Tasks that did not reach their worker are taken back, on a real Postgres."""

import asyncio

import pytest

from aetheris.api.v1 import (
    common_pb2,
    task_queue_pb2,
    worker_service_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris.server.v1.history_service_pb2 import StartTasksRequest as StartTasks
from aetheris_server.storage.log import load_run
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    signal_request,
    start_request,
)
from tests.support.raw import schedule_activity, seconds
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

ACTIVITY = task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY


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


async def at_most_once_task(bench: HistoryBench) -> worker_service_pb2.ActivityTask:
    """One that a worker was given."""
    await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    ref = await bench.take_ref(task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW)
    task = (await bench.start_task(ref)).workflow_task
    command = schedule_activity(
        delivery=workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE, request_eager_execution=True
    )
    decision = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
        task_token=task.task_token, commands=[command]
    )
    await bench.service.respond_workflow_task_completed(NAMESPACE_ID, decision)
    return (await bench.start_task(await bench.take_ref(ACTIVITY))).activity_task


async def is_offered_again_and_on_disk(bench: HistoryBench) -> bool:
    ref = await bench.take_ref(ACTIVITY)
    run = await bench.runs.load(NAMESPACE_ID, "w")
    records = await load_run(bench.db, run.shard_id, run.key.run_id)
    return ref.attempt == 1 and any(
        fact.HasField("activity_attempt_not_delivered")
        for fact in log_pb2.LogRecord.FromString(records[-1].record).facts
    )


async def test_at_most_once_task_that_did_not_reach_its_worker_is_offered_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        lost = await at_most_once_task(bench)
        await bench.service.release_tasks([lost.task_token])
        assert await is_offered_again_and_on_disk(bench)


async def test_at_most_once_task_that_did_not_reach_its_worker_is_offered_again_after_a_restart(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        lost = await at_most_once_task(bench)
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.release_tasks([lost.task_token])
        assert await is_offered_again_and_on_disk(bench)


async def test_at_most_once_task_whose_loss_is_told_of_twice_is_started_once_more_only(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        lost = await at_most_once_task(bench)
        await bench.service.release_tasks([lost.task_token, lost.task_token])
        ref = await bench.take_ref(ACTIVITY)
        bench.clock.advance(0.001)
        assert (await bench.start_task(ref)).HasField("activity_task")
        await bench.service.release_tasks([lost.task_token])
        assert (await bench.start_task(ref)).HasField("gone")
        assert not bench.refs_of(ACTIVITY)


async def test_at_most_once_start_whose_poll_went_away_meanwhile_is_offered_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        lost = await at_most_once_task(bench)
        await bench.service.release_tasks([lost.task_token])
        ref = await bench.take_ref(ACTIVITY)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        async with bench.engine.writer._turn:
            starting = asyncio.create_task(bench.start_task(ref))
            await wait_until(lambda: run.inflight.activities)
            starting.cancel()
            await asyncio.wait([starting])
        assert await is_offered_again_and_on_disk(bench)


def start_request_of(*refs: matching_service_pb2.TaskRef, request_id: str = "") -> StartTasks:
    return StartTasks(
        tasks=refs, identity="bench", worker_instance_id="bench", request_id=request_id
    )


@pytest.mark.parametrize(
    "delivery",
    [workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE, workflow_pb2.ACTIVITY_DELIVERY_AT_LEAST_ONCE],
)
async def test_start_repeated_for_want_of_a_response_starts_its_tasks_anew(
    migrated_postgres_dsn: str, delivery: workflow_pb2.ActivityDelivery.ValueType
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        request = start_request_of(*await two_refs(bench, delivery), request_id="r")
        lost = await bench.service.start_tasks(request)
        bench.clock.advance(0.001)
        again = await bench.service.start_tasks(request)
        (old, _), (activity, workflow) = lost.tasks, again.tasks
        assert activity.activity_task.attempt == workflow.workflow_task.attempt == 1
        await bench.service.release_tasks([old.activity_task.task_token])
        result = worker_service_pb2.RespondActivityTaskCompletedRequest(
            task_token=activity.activity_task.task_token
        )
        await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)
        other = start_request_of(*request.tasks, request_id="another")
        gone = await bench.service.start_tasks(other)
        assert all(task.HasField("gone") for task in gone.tasks)


async def test_tasks_that_were_ready_when_their_start_was_given_up_are_offered_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        refs = await two_refs(bench, workflow_pb2.ACTIVITY_DELIVERY_AT_LEAST_ONCE)
        await bench.service.start_workflow(NAMESPACE_ID, start_request("other"))
        slow = await bench.take_ref(task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        other = await bench.runs.load(NAMESPACE_ID, slow.workflow_id)
        async with bench.engine.writer._turn:
            signal = asyncio.create_task(
                bench.service.signal_workflow(NAMESPACE_ID, signal_request(slow.workflow_id))
            )
            await wait_until(lambda: not other.is_committed)
            starting = asyncio.create_task(bench.service.start_tasks(start_request_of(*refs, slow)))
            await wait_until(lambda: other.inflight.workflow_task)
            await wait_until(lambda: run.inflight.activities and run.inflight.workflow_task)
            starting.cancel()
            await asyncio.wait([starting])
        assert run.inflight.is_idle
        assert other.inflight.is_idle
        await bench.take_ref(ACTIVITY)
        await signal


async def two_refs(
    bench: HistoryBench, delivery: workflow_pb2.ActivityDelivery.ValueType
) -> list[matching_service_pb2.TaskRef]:
    """An activity task and a workflow task of one run, that nobody has."""
    await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    run = await bench.runs.load(NAMESPACE_ID, "w")
    task = (
        await bench.start_task(await bench.take_ref(task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW))
    ).workflow_task
    decision = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
        task_token=task.task_token,
        commands=[schedule_activity(delivery=delivery)],
        force_create_new_workflow_task=True,
    )
    await bench.service.respond_workflow_task_completed(NAMESPACE_ID, decision)
    assert run.state.workflow_task is not None
    scheduled_event_id = run.state.workflow_task.scheduled_event_id
    activity = await bench.take_ref(ACTIVITY)
    while True:
        ref = await bench.take_ref(task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW)
        if ref.scheduled_event_id == scheduled_event_id:
            return [activity, ref]
