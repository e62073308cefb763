"""Attempts of activities: retries, timeouts, heartbeats, cancellation."""

import asyncio
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import common_pb2, failure_pb2, history_pb2, workflow_pb2
from tests.support.processes import Stopwatch
from tests.support.raw import (
    Raw,
    cancel_activity,
    complete_workflow,
    payloads,
    schedule_activity,
    seconds,
    text_of,
    types,
)


async def _start_activity(server: Raw, **attributes: Any) -> common_pb2.WorkflowExecution:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity(**attributes))
    return run


def _retry(**policy: Any) -> common_pb2.RetryPolicy:
    return common_pb2.RetryPolicy(**policy)


def _timeout_of(events: list[history_pb2.HistoryEvent]) -> failure_pb2.TimeoutFailureInfo:
    (timed_out,) = [e for e in events if e.HasField("activity_task_timed_out_event_attributes")]
    return timed_out.activity_task_timed_out_event_attributes.failure.timeout_failure_info


async def test_failed_attempt_is_retried_after_its_backoff(server: Raw) -> None:
    policy = _retry(initial_interval=seconds(0.3), backoff_coefficient=1.0)
    run = await _start_activity(server, retry_policy=policy)
    await server.fail_activity(await server.poll_activity(), "first")
    watch = Stopwatch()
    (pending,) = (await server.describe(run)).pending_activities
    assert (pending.attempt, pending.last_failure.message) == (2, "first")
    task = await server.poll_activity()
    assert watch.seconds > 0.2
    assert task.attempt == 2
    await server.complete_activity(task)
    events = (await server.poll_workflow()).history.events
    assert types(events).count("ACTIVITY_TASK_STARTED") == 1
    (started,) = [e for e in events if e.HasField("activity_task_started_event_attributes")]
    assert started.activity_task_started_event_attributes.attempt == 2


async def test_last_attempt_that_fails_ends_the_activity(server: Raw) -> None:
    await _start_activity(server, retry_policy=_retry(maximum_attempts=1))
    task = await server.poll_activity()
    await server.fail_activity(task)
    events = (await server.poll_workflow()).history.events
    (failed,) = [e for e in events if e.HasField("activity_task_failed_event_attributes")]
    state = failed.activity_task_failed_event_attributes.retry_state
    assert state == failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.complete_activity(task)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_second_completion_is_refused(server: Raw) -> None:
    run = await _start_activity(server)
    task = await server.poll_activity()
    await server.complete_activity(task, "one")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.complete_activity(task, "two")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert types(await server.history(run)).count("ACTIVITY_TASK_COMPLETED") == 1


async def test_attempt_that_takes_too_long_is_given_out_again(server: Raw) -> None:
    policy = _retry(initial_interval=seconds(0.05))
    await _start_activity(server, start_to_close_timeout=seconds(0.3), retry_policy=policy)
    lost = await server.poll_activity()
    again = await server.poll_activity()
    assert (lost.attempt, again.attempt) == (1, 2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.complete_activity(lost)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    await server.complete_activity(again)


@pytest.mark.parametrize(
    "attributes,polls,expected",
    [
        ({"start_to_close_timeout": seconds(0.3)}, True, failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE),
        (
            {"start_to_close_timeout": seconds(60), "heartbeat_timeout": seconds(0.3)},
            True,
            failure_pb2.TIMEOUT_TYPE_HEARTBEAT,
        ),
        (
            {"start_to_close_timeout": seconds(60), "schedule_to_start_timeout": seconds(0.3)},
            False,
            failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START,
        ),
        (
            {"schedule_to_close_timeout": seconds(0.3)},
            False,
            failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE,
        ),
    ],
    ids=["start_to_close", "heartbeat", "schedule_to_start", "schedule_to_close"],
)
async def test_activity_past_its_deadline_times_out(
    server: Raw, attributes: dict[str, Any], polls: bool, expected: int
) -> None:
    await _start_activity(server, retry_policy=_retry(maximum_attempts=1), **attributes)
    if polls:
        await server.poll_activity()
    events = (await server.poll_workflow()).history.events
    assert _timeout_of(list(events)).timeout_type == expected


async def test_heartbeats_keep_an_attempt_and_their_details_reach_the_next(server: Raw) -> None:
    policy = _retry(initial_interval=seconds(0.05))
    await _start_activity(
        server,
        heartbeat_timeout=seconds(0.5),
        start_to_close_timeout=seconds(60),
        retry_policy=policy,
    )
    task = await server.poll_activity()
    for number in range(6):
        # Nothing comes: the attempt is alive.
        assert not (await server.poll_activities(0.2)).tasks
        assert not await server.heartbeat(task, f"{number}")
    again = await server.poll_activity()
    assert (again.attempt, text_of(again.heartbeat_details)) == (2, "5")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.heartbeat(task)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_cancellation_reaches_a_running_activity_through_its_poll(server: Raw) -> None:
    run = await _start_activity(server)
    task = await server.poll_activity(worker_instance_id="instance")
    polling = asyncio.create_task(server.poll_activities(10.0, worker_instance_id="instance"))
    await server.signal(run)
    decision = await server.poll_workflow()
    watch = Stopwatch()
    await server.decide(decision, cancel_activity(task.scheduled_event_id))
    (cancellation,) = (await polling).cancellations
    assert watch.seconds < 2
    assert cancellation.scheduled_event_id == task.scheduled_event_id
    assert await server.heartbeat(task)
    await server.cancel_activity(task)
    events = types((await server.poll_workflow()).history.events)
    assert events.count("ACTIVITY_TASK_CANCELLED") == 1


async def test_cancellation_of_an_activity_that_nobody_has_ends_it_at_once(server: Raw) -> None:
    run = await _start_activity(server)
    await server.signal(run)
    decision = await server.poll_workflow()
    (scheduled,) = [
        event.event_id
        for event in decision.history.events
        if event.event_type == history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    await server.decide(decision, cancel_activity(scheduled))
    events = types((await server.poll_workflow()).history.events)
    assert "ACTIVITY_TASK_CANCELLED" in events
    assert not (await server.poll_activities(0.3)).tasks


async def test_terminated_run_tells_its_running_activities(server: Raw) -> None:
    run = await _start_activity(server)
    task = await server.poll_activity(worker_instance_id="instance")
    polling = asyncio.create_task(server.poll_activities(10.0, worker_instance_id="instance"))
    await server.terminate(run)
    assert (await polling).cancellations
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.heartbeat(task)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_many_activities_at_once_each_run_once(server: Raw) -> None:
    run = await server.start_run()
    await server.decide(
        await server.poll_workflow(), *(schedule_activity(f"a{number}") for number in range(50))
    )
    seen: set[str] = set()
    while len(seen) < 50:
        polled = await server.poll_activities(10.0, max_tasks=20)
        assert polled.tasks, f"{len(seen)} came"
        ids = {task.activity_id for task in polled.tasks}
        assert not ids & seen
        seen |= ids
        await asyncio.gather(*(server.complete_activity(task) for task in polled.tasks))
    task = await server.poll_workflow()
    while types(task.history.events).count("ACTIVITY_TASK_COMPLETED") < 50:
        await server.decide(task)
        task = await server.poll_workflow()
    await server.decide(task, complete_workflow())
    assert types(await server.history(run)).count("ACTIVITY_TASK_COMPLETED") == 50


async def test_at_most_once_attempt_that_is_lost_ends_as_unknown(server: Raw) -> None:
    await _start_activity(
        server,
        delivery=workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE,
        start_to_close_timeout=seconds(0.3),
        input=payloads("x"),
    )
    await server.poll_activity()
    events = (await server.poll_workflow()).history.events
    assert _timeout_of(list(events)).outcome_unknown
    assert not (await server.poll_activities(0.3)).tasks
