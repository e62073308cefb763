"""What a run does with what comes to it: signals, timers, requests to cancel, its own deadlines."""

import uuid

import grpc
import pytest

from aetheris.api.v1 import common_pb2, worker_service_pb2, workflow_pb2
from tests.support.processes import Stopwatch
from tests.support.raw import (
    COMPLETED,
    Raw,
    cancel_timer,
    complete_workflow,
    detail_of,
    payloads,
    record_marker,
    schedule_activity,
    seconds,
    start_timer,
    types,
)


async def test_signal_before_first_task_is_seen_by_it(server: Raw) -> None:
    run = await server.start_run()
    await server.signal(run, "early")
    task = await server.poll_workflow()
    assert types(task.history.events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_STARTED",
    ]


async def test_signal_while_task_is_out_reaches_the_next_in_order(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    for name in ("first", "second"):
        await server.signal(run, name)
    await server.decide(task)
    events = (await server.poll_workflow()).history.events
    assert [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ] == ["first", "second"]


async def test_end_decided_while_a_signal_came_is_decided_again(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    await server.signal(run)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.decide(task, complete_workflow())
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert detail_of(caught.value, "BadRequestDetail").field == "commands[0]"
    again = await server.poll_workflow()
    assert "WORKFLOW_EXECUTION_SIGNALED" in types(again.history.events)
    await server.decide(again, complete_workflow())
    result = await server.result(run)
    assert result is not None
    assert result.status == COMPLETED


async def test_decision_that_is_refused_leaves_the_next_task_to_be_polled(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    await server.signal(run)
    watch = Stopwatch()
    with pytest.raises(grpc.aio.AioRpcError):
        await server.decide(task, complete_workflow(), return_new_workflow_task=True)
    again = await server.poll_workflow()
    assert watch.seconds < 5, "it was out until it timed out"
    await server.decide(again, complete_workflow())


async def test_terminate_repeated_succeeds_and_another_is_refused(server: Raw) -> None:
    run = await server.start_run()
    request_id = str(uuid.uuid4())
    await server.terminate(run, request_id=request_id)
    await server.terminate(run, request_id=request_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.terminate(run)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert types(await server.history(run)).count("WORKFLOW_EXECUTION_TERMINATED") == 1


async def test_signal_after_the_end_is_refused(server: Raw) -> None:
    run = await server.start_run()
    await server.terminate(run)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.signal(run)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert detail_of(caught.value, "WorkflowClosedDetail").run_id == run.run_id


async def test_signal_with_the_same_request_id_is_recorded_once(server: Raw) -> None:
    run = await server.start_run()
    request_id = str(uuid.uuid4())
    for _ in range(3):
        await server.signal(run, request_id=request_id)
    events = types(await server.history(run))
    assert events.count("WORKFLOW_EXECUTION_SIGNALED") == 1
    await server.terminate(run)
    await server.signal(run, request_id=request_id)


async def test_timer_fires_once_and_not_early(server: Raw) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), start_timer("t", 0.3))
    watch = Stopwatch()
    task = await server.poll_workflow()
    assert watch.seconds > 0.25
    events = {event.event_id: event for event in task.history.events}
    (fired,) = [e for e in events.values() if e.HasField("timer_fired_event_attributes")]
    started = events[fired.timer_fired_event_attributes.started_event_id]
    passed = fired.event_time.ToNanoseconds() - started.event_time.ToNanoseconds()
    assert passed >= 300_000_000
    await server.decide(task, complete_workflow())
    assert types(await server.history(run)).count("TIMER_FIRED") == 1


async def test_cancelled_timer_never_fires(server: Raw) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), start_timer("t", 0.5), start_timer("u", 0.8))
    await server.signal(run)
    await server.decide(await server.poll_workflow(), cancel_timer("t"))
    task = await server.poll_workflow()
    found = types(task.history.events)
    assert (found.count("TIMER_CANCELLED"), found.count("TIMER_FIRED")) == (1, 1)


async def test_cancel_request_is_seen_once_per_run(server: Raw) -> None:
    run = await server.start_run()
    request_id = str(uuid.uuid4())
    for _ in range(2):
        await server.cancel(run, request_id=request_id)
    await server.cancel(run)
    task = await server.poll_workflow()
    assert types(task.history.events).count("WORKFLOW_EXECUTION_CANCEL_REQUESTED") == 1
    assert (await server.describe(run)).cancel_requested


async def test_terminate_ends_the_run_and_voids_its_task(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    request_id = str(uuid.uuid4())
    await server.terminate(run, reason="enough", request_id=request_id)
    result = await server.result(run)
    assert result is not None
    assert result.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED
    assert result.failure.message == "enough"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.decide(task, complete_workflow())
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_run_timeout_ends_the_run(server: Raw) -> None:
    run = await server.start_run(workflow_run_timeout=seconds(0.3))
    result = await server.result(run)
    assert result is not None
    assert result.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_TIMED_OUT


async def test_start_delay_holds_the_first_task_back(server: Raw) -> None:
    watch = Stopwatch()
    run = await server.start_run(start_delay=seconds(0.5))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.query(run)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    await server.poll_workflow()
    assert watch.seconds >= 0.5


async def test_task_that_failed_is_given_out_again(server: Raw) -> None:
    run = await server.start_run()
    await server.fail_decision(await server.poll_workflow(), "bug")
    task = await server.poll_workflow()
    assert task.attempt == 2
    pending = (await server.describe(run)).pending_workflow_task
    assert (pending.attempt, pending.last_failure.message) == (2, "bug")
    await server.decide(task, complete_workflow())
    found = types(await server.history(run))
    assert found.count("WORKFLOW_TASK_FAILED") == 1
    assert found[-2:] == ["WORKFLOW_TASK_COMPLETED", "WORKFLOW_EXECUTION_COMPLETED"]


async def test_task_that_nobody_completes_times_out(server: Raw) -> None:
    run = await server.start_run(workflow_task_timeout=seconds(1))
    first = await server.poll_workflow()
    second = await server.poll_workflow()
    assert (first.attempt, second.attempt) == (1, 2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.decide(first)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    await server.decide(second, complete_workflow())
    assert "WORKFLOW_TASK_TIMED_OUT" in types(await server.history(run))


async def test_list_sees_what_was_acknowledged(server: Raw) -> None:
    run = await server.start_run()
    (listed,) = await server.list(workflow_id=run.workflow_id)
    assert listed.execution == run
    assert listed.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
    await server.decide(await server.poll_workflow(), complete_workflow())
    (listed,) = await server.list(workflow_id=run.workflow_id)
    assert listed.status == COMPLETED
    assert listed.HasField("close_time")


async def test_client_that_leaves_a_poll_loses_no_task(server: Raw) -> None:
    for _ in range(5):
        leaving = server.workers.PollWorkflowTasks(
            worker_service_pb2.PollWorkflowTasksRequest(
                namespace=server.namespace, task_queue=server.queue, max_tasks=1
            )
        )
        # Its answer may be on its way already: then the task is out until it times out.
        run = await server.start_run(workflow_task_timeout=seconds(1))
        leaving.cancel()
        task = await server.poll_workflow()
        assert task.workflow_execution == run
        await server.decide(task, complete_workflow())


async def test_unknown_run_is_not_found(server: Raw) -> None:
    run = common_pb2.WorkflowExecution(workflow_id="nobody")
    for call in (server.describe, server.signal, server.cancel, server.terminate, server.history):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(run)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_long_history_comes_in_pages_and_whole(server: Raw) -> None:
    run = await server.start_run()
    for number in range(3):
        task = await server.poll_workflow()
        await server.decide(
            task,
            *(record_marker(f"{number}-{index}") for index in range(250)),
            schedule_activity(f"a{number}"),
        )
        await server.complete_activity(await server.poll_activity())
    task = await server.poll_workflow()
    assert len(task.history.events) == 256
    assert task.next_page_token
    rest = await server.history(run, token=task.next_page_token)
    events = [*task.history.events, *rest]
    assert [event.event_id for event in events] == list(range(1, task.started_event_id + 1))
    assert types(events)[-1] == "WORKFLOW_TASK_STARTED"
    await server.decide(task, complete_workflow())
    whole = await server.history(run, page_size=100)
    assert [event.event_id for event in whole] == list(range(1, len(events) + 3))


async def test_history_of_large_events_comes_in_pages_that_fit_into_a_message(
    server: Raw,
) -> None:
    run = await server.start_run()
    large = payloads("x" * 1_500_000)
    for _ in range(7):
        await server.signal(run, input=large)
    task = await server.poll_workflow()
    assert task.next_page_token
    assert task.ByteSize() < 5 * 1024 * 1024
    rest = await server.history(run, token=task.next_page_token)
    events = [*task.history.events, *rest]
    assert [event.event_id for event in events] == list(range(1, task.started_event_id + 1))
    await server.decide(task, complete_workflow())


async def test_history_follow_gets_each_event_once(server: Raw) -> None:
    run = await server.start_run()
    seen: list[int] = []
    token = b""
    signals = 0
    while True:
        page = await server.history_page(run, wait_new_event=True, page_token=token, page_size=3)
        seen += [event.event_id for event in page.history.events]
        token = page.next_page_token
        if not token:
            break
        if signals < 5:
            signals += 1
            await server.signal(run)
        elif signals == 5:
            signals += 1
            await server.decide(await server.poll_workflow(), complete_workflow())
    assert seen == list(range(1, len(await server.history(run)) + 1))


async def test_second_worker_without_the_cache_gets_the_whole_history(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow(sticky="one")
    await server.decide(task, sticky="one")
    await server.signal(run)
    partial = await server.poll_workflow(sticky="one")
    assert partial.history.events[0].event_id == task.started_event_id + 1
    await server.decide(partial, sticky="one")
    await server.signal(run)
    # The one that has the cache does not come back.
    other = await server.poll_workflow(wait=20, sticky="two")
    assert [event.event_id for event in other.history.events] == list(
        range(1, other.started_event_id + 1)
    )


async def test_result_wait_ends_empty_while_the_run_is_open(server: Raw) -> None:
    run = await server.start_run()
    assert await server.result(run, wait=0.2) is None


async def test_pending_work_is_described(server: Raw) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity(), start_timer("t", 60))
    await server.poll_activity()
    described = await server.describe(run)
    (activity,) = described.pending_activities
    assert activity.state == workflow_pb2.PENDING_ACTIVITY_STATE_STARTED
    assert [timer.timer_id for timer in described.pending_timers] == ["t"]
