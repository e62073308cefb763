"""An answer that is given again, because its response was lost, on a real Postgres."""

import pytest

from aetheris.api.v1 import worker_service_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris_server.errors import TaskNotFoundError
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench, start_request
from tests.support.raw import complete_workflow, schedule_activity

pytestmark = pytest.mark.integration

Decision = worker_service_pb2.RespondWorkflowTaskCompletedRequest
Decided = worker_service_pb2.RespondWorkflowTaskCompletedResponse
Result = worker_service_pb2.RespondActivityTaskCompletedRequest

LIMIT = 60.0


def eager_decision(task_token: bytes, **fields: object) -> Decision:
    """One activity that asks to come along; its attempt may take `LIMIT`."""
    decision = Decision(
        task_token=task_token,
        commands=[schedule_activity(request_eager_execution=True)],
        identity="bench",
        worker_instance_id="bench",
    )
    decision.sticky_attributes.worker_task_queue = "sticky"
    for name, value in fields.items():
        setattr(decision, name, value)
    return decision


async def started_run(bench: HistoryBench) -> Decision:
    """A run whose first workflow task a worker has; returns its decision."""
    await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    ref = await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW)
    task = (await bench.start_task(ref, "sticky")).workflow_task
    return eager_decision(task.task_token)


async def decide(bench: HistoryBench, decision: Decision) -> Decided:
    return await bench.service.respond_workflow_task_completed(NAMESPACE_ID, decision)


def result_of(task: worker_service_pb2.ActivityTask) -> Result:
    return Result(
        task_token=task.task_token,
        identity="bench",
        worker_instance_id="bench",
        sticky_task_queue="sticky",
    )


async def test_decision_given_again_gets_again_what_it_took_along(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        decision.return_new_workflow_task = decision.force_create_new_workflow_task = True
        first = await decide(bench, decision)
        again = await decide(bench, decision)
        assert [task.activity_id for task in again.activity_tasks] == ["a"]
        assert again.workflow_task == first.workflow_task
        result = result_of(again.activity_tasks[0])
        await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)
        assert not bench.refs_of(TASK_QUEUE_TYPE_ACTIVITY)


async def test_result_given_again_gets_again_the_workflow_task(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        result = result_of((await decide(bench, decision)).activity_tasks[0])
        first = await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)
        again = await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)
        assert again.workflow_task.started_event_id
        assert again.workflow_task == first.workflow_task


async def test_decision_given_again_gets_nothing_that_is_no_longer_out(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        result = result_of((await decide(bench, decision)).activity_tasks[0])
        await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)
        again = await decide(bench, decision)
        assert again == Decided()
        run = await bench.runs.load(NAMESPACE_ID, "w")
        assert not run.inflight.activities


async def test_decision_given_again_after_its_activity_timed_out_leaves_the_next_attempt_alone(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        await decide(bench, decision)
        bench.advance(LIMIT + 1)
        bench.advance(LIMIT)
        ref = await bench.take_ref(TASK_QUEUE_TYPE_ACTIVITY)
        assert not (await decide(bench, decision)).activity_tasks
        started = await bench.start_task(ref)
        assert started.activity_task.attempt == 2
        assert not (await decide(bench, decision)).activity_tasks


@pytest.mark.parametrize("field", ["worker_instance_id", "identity"])
async def test_answer_given_again_by_another_worker_takes_nothing_along(
    migrated_postgres_dsn: str, field: str
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        result = result_of((await decide(bench, decision)).activity_tasks[0])
        setattr(decision, field, "other")
        assert not (await decide(bench, decision)).activity_tasks
        await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)
        setattr(result, field, "other")
        with pytest.raises(TaskNotFoundError):
            await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)


async def test_answer_given_again_after_a_restart_takes_nothing_along_and_all_is_offered(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        await decide(bench, decision)
    async with history_bench(migrated_postgres_dsn) as bench:
        ref = await bench.take_ref(TASK_QUEUE_TYPE_ACTIVITY)
        assert not (await decide(bench, decision)).activity_tasks
        started = await bench.start_task(ref)
        assert started.activity_task.activity_id == "a"


async def test_start_that_was_lost_and_made_again_is_not_taken_back(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        lost = (await decide(bench, decision)).activity_tasks[0]
        bench.clock.advance(0.001)
        again = (await decide(bench, decision)).activity_tasks[0]
        await bench.service.release_tasks([lost.task_token])
        await bench.service.release_tasks([again.task_token])
        await bench.take_ref(TASK_QUEUE_TYPE_ACTIVITY)
        assert not bench.refs_of(TASK_QUEUE_TYPE_ACTIVITY)


async def test_loss_that_is_told_of_twice_takes_the_attempt_from_nobody_else(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        lost = (await decide(bench, decision)).activity_tasks[0]
        await bench.service.release_tasks([lost.task_token])
        ref = await bench.take_ref(TASK_QUEUE_TYPE_ACTIVITY)
        bench.clock.advance(0.001)
        other = (await bench.start_task(ref)).activity_task
        await bench.service.release_tasks([lost.task_token])
        result = Result(task_token=other.task_token)
        await bench.service.respond_activity_task_completed(NAMESPACE_ID, result)
        assert not bench.refs_of(TASK_QUEUE_TYPE_ACTIVITY)


async def test_decision_that_closed_its_run_is_taken_when_it_is_given_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        decision = await started_run(bench)
        del decision.commands[:]
        decision.commands.append(complete_workflow())
        await decide(bench, decision)
        assert await decide(bench, decision) == Decided()
