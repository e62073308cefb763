"""Reset and fork: a run begins as another one did, up to a workflow task."""

import uuid
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import common_pb2, workflow_pb2, workflow_service_pb2
from tests.support.raw import (
    COMPLETED,
    Raw,
    code_of,
    complete_workflow,
    detail_of,
    schedule_activity,
    start_timer,
    types,
)
from tests.support.runs import continue_as_new

_FIRST = workflow_service_pb2.WORKFLOW_TASK_POINT_FIRST
_SIGNAL = workflow_service_pb2.REAPPLY_EXCLUDE_SIGNAL
_AT_MOST_ONCE = workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE

_PREFIX = [
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "ACTIVITY_TASK_SCHEDULED",
    "TIMER_STARTED",
    "ACTIVITY_TASK_STARTED",
    "ACTIVITY_TASK_COMPLETED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
]
"""Up to the start of the second task of `_run_with_two_tasks`."""


async def _run_with_two_tasks(server: Raw) -> common_pb2.WorkflowExecution:
    """Both completed; an activity is done, another one and a timer are open."""
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity("a"), start_timer("t", 600))
    await server.complete_activity(await server.poll_activity())
    await server.decide(
        await server.poll_workflow(), schedule_activity("b"), worker_version="build-1"
    )
    return run


async def _refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_reset_of_an_open_run_closes_it_and_decides_the_last_task_anew(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    await server.signal(base, "later")
    new = await server.reset(base, reason="try again", identity="operator")
    assert types(await server.history(base))[-4:] == [
        "ACTIVITY_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_TERMINATED",
    ]
    events = await server.history(new)
    assert types(events) == [
        *_PREFIX,
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    terminated = (await server.history(base))[-1].workflow_execution_terminated_event_attributes
    assert terminated.reason == f"reset to run {new.run_id}: try again"
    failed = events[10].workflow_task_failed_event_attributes
    assert (failed.base_run_id, failed.new_run_id) == (base.run_id, new.run_id)
    old = (await server.describe(base)).reset_info
    info = (await server.describe(new)).reset_info
    assert (old.reset_run_id, old.reset_reason, old.reset_identity) == (
        new.run_id,
        "try again",
        "operator",
    )
    assert (info.base_workflow_id, info.base_run_id, info.base_event_id) == (
        base.workflow_id,
        base.run_id,
        10,
    )


async def test_new_run_goes_on_from_the_point_to_its_end(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    new = await server.reset(base)
    task = await server.poll_workflow()
    assert task.workflow_execution == new
    assert types(task.history.events)[-4:] == [
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
    ]
    await server.decide(task, complete_workflow("other"))
    result = await server.result(new)
    assert result is not None
    assert result.status == COMPLETED


async def test_reset_to_the_first_task_schedules_nothing_of_what_came_behind(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    new = await server.reset(base, point={"workflow_task": _FIRST})
    assert types(await server.history(new)) == [
        *_PREFIX[:3],
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    described = await server.describe(new)
    assert not described.pending_activities
    assert not described.pending_timers


async def test_open_activity_of_the_base_is_begun_anew_and_its_worker_is_told(server: Raw) -> None:
    base = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity("a"))
    old = await server.poll_activity()
    await server.signal(base)
    await server.decide(await server.poll_workflow())
    await server.reset(base)
    again = await server.poll_activity()
    assert (again.scheduled_event_id, again.attempt) == (old.scheduled_event_id, 1)
    refused = await _refused(server.complete_activity(old))
    assert code_of(refused) == grpc.StatusCode.NOT_FOUND
    await server.complete_activity(again)


async def test_reset_of_a_closed_run_leaves_its_history_and_says_what_it_was_reset_to(
    server: Raw,
) -> None:
    base = await _run_with_two_tasks(server)
    await server.signal(base)
    await server.decide(await server.poll_workflow(), complete_workflow())
    before = await server.history(base)
    new = await server.reset(base, point={"event_id": 11}, reapply_exclude=[_SIGNAL])
    assert await server.history(base) == before
    assert (await server.describe(base)).reset_info.reset_run_id == new.run_id
    assert types(await server.history(new)) == [
        *_PREFIX,
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_TASK_SCHEDULED",
    ]


async def test_reset_while_a_worker_decides_takes_over_what_waited(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    await server.signal(base, "wakes")
    task = await server.poll_workflow()
    await server.signal(base, "waits")
    new = await server.reset(base)
    names = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in await server.history(new)
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert names == ["wakes", "waits"]
    assert code_of(await _refused(server.decide(task))) == grpc.StatusCode.NOT_FOUND


async def test_reset_twice_by_one_request_makes_one_run(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    new = await server.reset(base, request_id="once")
    assert await server.reset(base, request_id="once") == new
    newer = await server.reset(base, request_id="another")
    assert newer != new
    assert await server.reset(base, request_id="once") == new
    listed = await server.list(workflow_id=base.workflow_id)
    assert [run.execution.run_id for run in listed] == [newer.run_id, new.run_id, base.run_id]


async def test_run_that_was_reset_twice_gives_each_signal_to_the_last_once(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    await server.signal(base, "one")
    await server.reset(base)
    await server.signal(common_pb2.WorkflowExecution(workflow_id=base.workflow_id), "two")
    newest = await server.reset(base)
    names = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in await server.history(newest)
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    assert names == ["one", "two"]


async def test_reset_of_an_older_run_terminates_the_open_one(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    await server.terminate(base)
    other = await server.start(base.workflow_id)
    new = await server.reset(base)
    closed = await server.describe(
        common_pb2.WorkflowExecution(workflow_id=base.workflow_id, run_id=other.run_id)
    )
    assert closed.workflow_execution_info.status == (
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED
    )
    assert not closed.HasField("reset_info")
    newest = await server.describe(common_pb2.WorkflowExecution(workflow_id=base.workflow_id))
    assert newest.workflow_execution_info.execution == new


async def test_at_most_once_activity_of_the_base_is_not_run_again(server: Raw) -> None:
    base = await server.start_run()
    await server.decide(
        await server.poll_workflow(), schedule_activity("a", delivery=_AT_MOST_ONCE)
    )
    await server.poll_activity()
    await server.signal(base)
    await server.decide(await server.poll_workflow())
    new = await server.reset(base, reapply_exclude=[_SIGNAL])
    events = await server.history(new)
    assert types(events)[-4:] == [
        "WORKFLOW_TASK_FAILED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_TIMED_OUT",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    timed_out = events[-2].activity_task_timed_out_event_attributes
    assert timed_out.failure.timeout_failure_info.outcome_unknown


async def test_fork_begins_as_the_run_did_which_goes_on(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    before = await server.history(base)
    fork = await server.fork(base, reason="what if")
    assert await server.history(base) == before
    assert not (await server.describe(base)).HasField("reset_info")
    assert types(await server.history(fork)) == [
        *_PREFIX,
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    described = await server.describe(fork)
    assert described.workflow_execution_info.first_execution_run_id == fork.run_id
    assert described.reset_info.base_workflow_id == base.workflow_id
    await server.decide(await server.poll_workflow(), complete_workflow("fork"))
    await server.complete_activity(await server.poll_activity())
    await server.decide(await server.poll_workflow(), complete_workflow("base"))
    for run in (fork, base):
        result = await server.result(run)
        assert result is not None
        assert result.status == COMPLETED


async def test_fork_takes_signals_that_wait_in_the_buffer(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    await server.signal(base, "wakes")
    task = await server.poll_workflow()
    await server.signal(base, "waits")
    fork = await server.fork(base)
    assert types(await server.history(fork))[-3:] == [
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    await server.decide(task)


async def test_fork_twice_by_one_request_makes_one_run(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    workflow_id = f"f-{uuid.uuid4()}"
    fork = await server.fork(base, workflow_id, request_id="once")
    assert await server.fork(base, workflow_id, request_id="once") == fork
    refused = await _refused(server.fork(base, workflow_id, request_id="another"))
    assert code_of(refused) == grpc.StatusCode.ALREADY_EXISTS
    assert detail_of(refused, "WorkflowAlreadyStartedDetail").run_id == fork.run_id


@pytest.mark.parametrize(
    "point, field",
    [
        ({"event_id": 5}, "point.event_id"),
        ({"event_id": 99}, "point.event_id"),
        ({"build_id": "unknown"}, "point.build_id"),
    ],
)
@pytest.mark.parametrize("verb", ["reset", "fork"])
async def test_point_that_the_run_has_not_is_refused_and_nothing_is_written(
    server: Raw, verb: str, point: dict[str, Any], field: str
) -> None:
    base = await _run_with_two_tasks(server)
    refused = await _refused(getattr(server, verb)(base, point=point))
    assert code_of(refused) == grpc.StatusCode.INVALID_ARGUMENT
    assert detail_of(refused, "BadRequestDetail").field == field
    described = await server.describe(base)
    assert (
        described.workflow_execution_info.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
    )
    assert not described.HasField("reset_info")


@pytest.mark.parametrize("verb", ["reset", "fork"])
@pytest.mark.parametrize("run_id", ["", str(uuid.uuid4())])
async def test_run_that_is_not_there_is_not_found(server: Raw, verb: str, run_id: str) -> None:
    nobody = common_pb2.WorkflowExecution(workflow_id=f"w-{uuid.uuid4()}", run_id=run_id)
    refused = await _refused(getattr(server, verb)(nobody))
    assert code_of(refused) == grpc.StatusCode.NOT_FOUND
    assert detail_of(refused, "WorkflowNotFoundDetail").workflow_id == nobody.workflow_id


async def test_build_id_is_a_point(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    await server.signal(base)
    await server.decide(await server.poll_workflow(), worker_version="build-2")
    new = await server.reset(base, point={"build_id": "build-1"}, reapply_exclude=[_SIGNAL])
    assert len(await server.history(new)) == len(_PREFIX) + 2


async def test_reset_of_a_run_that_went_on_as_new_takes_signals_of_both(server: Raw) -> None:
    base = await server.start_run()
    await server.decide(await server.poll_workflow())
    await server.signal(base, "to the base")
    await server.decide(await server.poll_workflow(), continue_as_new())
    newest = common_pb2.WorkflowExecution(workflow_id=base.workflow_id)
    await server.signal(newest, "to the next")
    next_run = (await server.describe(newest)).workflow_execution_info.execution
    new = await server.reset(base, point={"workflow_task": _FIRST})
    events = await server.history(new)
    assert types(events) == [
        *_PREFIX[:3],
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    assert [
        event.workflow_execution_signaled_event_attributes.signal_name for event in events[4:6]
    ] == ["to the base", "to the next"]
    assert types(await server.history(next_run))[-1] == "WORKFLOW_EXECUTION_TERMINATED"
    assert (await server.describe(base)).reset_info.reset_run_id == new.run_id


async def test_fork_of_a_run_that_continues_another_is_found_by_its_request(server: Raw) -> None:
    first = await server.start_run()
    await server.decide(await server.poll_workflow(), continue_as_new())
    await server.decide(await server.poll_workflow())
    base = common_pb2.WorkflowExecution(workflow_id=first.workflow_id)
    workflow_id = f"f-{uuid.uuid4()}"
    fork = await server.fork(base, workflow_id, request_id="once")
    assert await server.fork(base, workflow_id, request_id="once") == fork
    await server.signal(fork)
    assert types(await server.history(fork))[-2:] == [
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_SIGNALED",
    ]


async def test_paused_run_that_is_reset_goes_on_as_the_new_one(server: Raw) -> None:
    base = await _run_with_two_tasks(server)
    await server.pause(base)
    new = await server.reset(base)
    task = await server.poll_workflow()
    assert task.workflow_execution == new
    await server.decide(task, complete_workflow())
