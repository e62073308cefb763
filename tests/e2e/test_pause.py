"""Pausing a run on a real server: nothing of it is given out, whichever way it would have gone."""

import asyncio

import grpc
import grpc.aio
import pytest

from aetheris.api.v1 import common_pb2, workflow_pb2
from tests.support.raw import (
    COMPLETED,
    Raw,
    complete_workflow,
    query_answer,
    schedule_activity,
    start_timer,
    types,
)

_PAUSED = workflow_pb2.WORKFLOW_EXECUTION_STATUS_PAUSED
_RUNNING = workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING

# Longer than a task takes that is given out.
_NOTHING_COMES = 1.0


async def _status_in_list(
    server: Raw, run: common_pb2.WorkflowExecution
) -> "workflow_pb2.WorkflowExecutionStatus.ValueType":
    (info,) = await server.list(workflow_id=run.workflow_id)
    return info.status


async def test_paused_run_gives_out_nothing_and_goes_on_where_it_was(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    await server.decide(task, schedule_activity("a"), start_timer("t", 0.2))
    await server.pause(run, reason="look", identity="operator")
    assert await _status_in_list(server, run) == _PAUSED
    assert await server.list(workflow_id=run.workflow_id, statuses=[_RUNNING]) == []
    await server.signal(run)
    polls = await asyncio.gather(
        server.poll_workflows(_NOTHING_COMES), server.poll_activities(_NOTHING_COMES)
    )
    assert list(polls[0]) == []
    assert list(polls[1].tasks) == []
    described = await server.describe(run)
    assert (described.pause_info.reason, described.pause_info.identity) == ("look", "operator")

    await server.unpause(run, reason="seen")
    assert await _status_in_list(server, run) == _RUNNING
    activity = await server.poll_activity()
    await server.complete_activity(activity)
    await server.decide(await server.poll_workflow(), complete_workflow())
    assert types(await server.history(run)) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "ACTIVITY_TASK_SCHEDULED",
        "TIMER_STARTED",
        "WORKFLOW_EXECUTION_PAUSED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "TIMER_FIRED",
        "WORKFLOW_EXECUTION_UNPAUSED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]


async def test_tasks_in_the_backlog_are_refused_while_paused_and_given_out_once_after(
    server: Raw,
) -> None:
    run = await server.start_run()
    # Nobody polls: the task goes to the backlog, and is taken from there by a poll in the pause.
    await asyncio.sleep(_NOTHING_COMES)
    await server.pause(run)
    assert list(await server.poll_workflows(_NOTHING_COMES)) == []
    await server.unpause(run)
    task = await server.poll_workflow()
    assert list(await server.poll_workflows(_NOTHING_COMES)) == []
    await server.decide(task, complete_workflow())
    result = await server.result(run)
    assert result is not None
    assert result.status == COMPLETED


async def test_answers_of_a_paused_run_bring_no_tasks_along(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow(sticky="sticky")
    await server.pause(run)
    await server.signal(run)
    decided = await server.decide(
        task,
        schedule_activity("a", request_eager_execution=True),
        sticky="sticky",
        return_new_workflow_task=True,
    )
    assert list(decided.activity_tasks) == []
    assert not decided.HasField("workflow_task")
    assert types(await server.history(run))[4:] == [
        "ACTIVITY_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_PAUSED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    await server.unpause(run)
    assert (await server.poll_activity()).activity_id == "a"
    following = await server.poll_workflow(sticky="sticky")
    # Its worker still has the run cached.
    assert following.history.events[0].event_id == 4


async def test_activity_that_was_running_ends_in_a_paused_run_and_its_retry_waits(
    server: Raw,
) -> None:
    run = await server.start_run()
    await server.decide(
        await server.poll_workflow(), schedule_activity("ends"), schedule_activity("fails")
    )
    tasks = [await server.poll_activity(), await server.poll_activity()]
    by_id = {task.activity_id: task for task in tasks}
    await server.pause(run)
    answered = await server.complete_activity(by_id["ends"], sticky_task_queue="sticky")
    assert not answered.HasField("workflow_task")
    await server.fail_activity(by_id["fails"], next_retry_delay={"nanos": 10_000_000})
    assert list((await server.poll_activities(_NOTHING_COMES)).tasks) == []
    await server.unpause(run)
    retried = await server.poll_activity()
    assert (retried.activity_id, retried.attempt) == ("fails", 2)
    assert (await server.poll_workflow()).history.events[-1].event_id > 0


async def test_query_of_a_paused_run_with_a_pending_task_is_answered(server: Raw) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), start_timer("t", 600))
    await server.pause(run)
    await server.signal(run)
    asking = asyncio.create_task(server.query(run))
    task = await server.poll_workflow()
    assert task.query.query_type == "query"
    assert not task.queries
    await server.answer_query(task, query_answer("paused"))
    assert await asking == "paused"


async def test_query_that_waited_for_a_task_is_answered_when_the_run_is_paused(
    server: Raw,
) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), start_timer("t", 600))
    await server.signal(run)
    asking = asyncio.create_task(server.query(run))
    await asyncio.sleep(0.3)
    await server.pause(run)
    task = await server.poll_workflow()
    assert task.query.query_type == "query"
    await server.answer_query(task, query_answer("paused"))
    assert await asking == "paused"


async def test_query_of_a_run_that_was_paused_before_its_code_ran_says_so(server: Raw) -> None:
    run = await server.start_run()
    await server.pause(run)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.query(run)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "paused before it ever ran" in (refused.value.details() or "")


async def test_paused_run_can_be_terminated(server: Raw) -> None:
    run = await server.start_run()
    await server.pause(run)
    await server.terminate(run)
    assert types(await server.history(run))[-2:] == [
        "WORKFLOW_EXECUTION_PAUSED",
        "WORKFLOW_EXECUTION_TERMINATED",
    ]
    assert await _status_in_list(server, run) == workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED
    for verb in (server.pause, server.unpause):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await verb(run)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_requests_that_come_again_write_nothing(server: Raw) -> None:
    run = await server.start_run()
    await server.pause(run, request_id="p")
    await server.pause(run, request_id="p")
    await server.pause(run)
    await server.unpause(run, request_id="u")
    await server.unpause(run, request_id="u")
    await server.unpause(run)
    await server.pause(run, request_id="p")
    assert types(await server.history(run))[2:] == [
        "WORKFLOW_EXECUTION_PAUSED",
        "WORKFLOW_EXECUTION_UNPAUSED",
    ]
