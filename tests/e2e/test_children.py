"""Runs that start, signal and cancel other runs: what the histories of both say, in order."""

import uuid
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import command_pb2, common_pb2, failure_pb2, history_pb2, workflow_pb2
from tests.support.raw import (
    COMPLETED,
    Raw,
    application_failure,
    cancel_run,
    complete_workflow,
    detail_of,
    payloads,
    seconds,
    signal_run,
    start_child,
    types,
)
from tests.support.runs import continue_as_new
from tests.support.wait import wait_until

_STARTED = [
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
]
_DECIDED = ["WORKFLOW_TASK_SCHEDULED", "WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_COMPLETED"]


def _new_id() -> str:
    return f"child-{uuid.uuid4()}"


def _attributes(event: history_pb2.HistoryEvent) -> Any:
    kind = event.WhichOneof("attributes")
    assert kind is not None
    return getattr(event, kind)


async def _begin(server: Raw, *commands: command_pb2.Command) -> common_pb2.WorkflowExecution:
    """A run whose first decision has these commands."""
    run = await server.start_run()
    task = await server.poll_workflow()
    assert task.workflow_execution == run
    await server.decide(task, *commands)
    return run


async def _closes_as(
    server: Raw,
    run: common_pb2.WorkflowExecution,
    status: workflow_pb2.WorkflowExecutionStatus.ValueType,
) -> None:
    result = await server.result(run)
    assert result is not None
    assert result.status == status


async def _poll_both(server: Raw) -> dict[str, Any]:
    """The next workflow tasks of two runs, by workflow id."""
    tasks = [await server.poll_workflow() for _ in range(2)]
    return {task.workflow_execution.workflow_id: task for task in tasks}


async def test_child_is_started_and_its_result_comes_to_the_parent(server: Raw) -> None:
    child_id = _new_id()
    parent = await _begin(server, start_child(child_id, input=payloads("for it")))
    tasks = await _poll_both(server)
    child_task = tasks[child_id]
    first = child_task.history.events[0].workflow_execution_started_event_attributes
    assert first.parent_workflow_execution == parent == first.root_workflow_execution
    assert (first.parent_namespace, first.parent_initiated_event_id) == ("default", 5)
    assert first.input == payloads("for it")
    await server.decide(tasks[parent.workflow_id])
    await server.decide(child_task, complete_workflow("from the child"))
    await server.decide(await server.poll_workflow(), complete_workflow("all"))
    events = await server.history(parent)
    assert types(events) == [
        *_STARTED,
        "START_CHILD_WORKFLOW_EXECUTION_INITIATED",
        "CHILD_WORKFLOW_EXECUTION_STARTED",
        *_DECIDED,
        "CHILD_WORKFLOW_EXECUTION_COMPLETED",
        *_DECIDED,
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    completed = _attributes(events[9])
    assert completed.result == payloads("from the child")
    assert completed.workflow_execution == child_task.workflow_execution
    assert (completed.initiated_event_id, completed.started_event_id) == (5, 6)
    assert types(await server.history(child_task.workflow_execution)) == [
        *_STARTED,
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    (info,) = await server.list(workflow_id=child_id)
    assert info.parent_execution == parent


async def test_child_that_fails_is_terminated_or_times_out_tells_its_parent(server: Raw) -> None:
    failing, lasting, late = _new_id(), _new_id(), _new_id()
    fail = command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
        fail_workflow_execution_command_attributes=(
            command_pb2.FailWorkflowExecutionCommandAttributes(failure=application_failure())
        ),
    )
    parent = await _begin(
        server,
        start_child(failing),
        start_child(lasting),
        start_child(late, workflow_run_timeout=seconds(1)),
    )
    seen: set[str] = set()
    while failing not in seen:
        task = await server.poll_workflow()
        id_ = task.workflow_execution.workflow_id
        seen.add(id_)
        await server.decide(task, *([fail] if id_ == failing else []))
    await server.terminate(common_pb2.WorkflowExecution(workflow_id=lasting))

    async def ends() -> set[str]:
        events = await server.history(parent)
        return {name for name in types(events) if name.startswith("CHILD_WORKFLOW_EXECUTION_")}

    async def have_all() -> bool:
        return await ends() == {
            "CHILD_WORKFLOW_EXECUTION_STARTED",
            "CHILD_WORKFLOW_EXECUTION_FAILED",
            "CHILD_WORKFLOW_EXECUTION_TERMINATED",
            "CHILD_WORKFLOW_EXECUTION_TIMED_OUT",
        } or bool(await _decide_if_any(server, parent))

    await wait_until(have_all, 20, "the parent to be told")
    failed = [
        _attributes(event)
        for event in await server.history(parent)
        if event.HasField("child_workflow_execution_failed_event_attributes")
    ]
    assert failed[0].failure == application_failure()
    await server.terminate(parent)


async def _decide_if_any(server: Raw, parent: common_pb2.WorkflowExecution) -> None:
    described = await server.describe(parent)
    if described.HasField("pending_workflow_task"):
        await server.decide(await server.poll_workflow())


async def test_child_whose_id_is_taken_fails_and_the_other_run_is_untouched(server: Raw) -> None:
    other = await server.start_run()
    await server.decide(await server.poll_workflow())
    parent = await _begin(server, start_child(other.workflow_id))
    await server.decide(await server.poll_workflow(), complete_workflow())
    events = await server.history(parent)
    assert types(events)[4:9] == [
        "START_CHILD_WORKFLOW_EXECUTION_INITIATED",
        "START_CHILD_WORKFLOW_EXECUTION_FAILED",
        *_DECIDED,
    ]
    cause = history_pb2.START_CHILD_WORKFLOW_FAILED_CAUSE_WORKFLOW_ALREADY_EXISTS
    assert _attributes(events[5]).cause == cause
    assert len(await server.history(other)) == 4
    await server.terminate(other)


@pytest.mark.parametrize("name", ["TERMINATE", "REQUEST_CANCEL", "ABANDON"])
async def test_parent_that_closes_does_with_its_child_what_the_policy_says(
    server: Raw, name: str
) -> None:
    policy = workflow_pb2.ParentClosePolicy.Value(f"PARENT_CLOSE_POLICY_{name}")
    child_id = _new_id()
    parent = await _begin(server, start_child(child_id, parent_close_policy=policy))
    tasks = await _poll_both(server)
    child = tasks[child_id].workflow_execution
    await server.decide(tasks[child_id])
    (pending,) = (await server.describe(parent)).pending_children
    assert pending.workflow_execution == child
    assert pending.state == workflow_pb2.PENDING_CHILD_STATE_STARTED
    assert pending.parent_close_policy == policy
    await server.decide(tasks[parent.workflow_id], complete_workflow())
    await _closes_as(server, parent, COMPLETED)
    if name == "TERMINATE":
        await _closes_as(server, child, workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED)
    elif name == "REQUEST_CANCEL":
        task = await server.poll_workflow()
        assert task.workflow_execution == child
        asked = _attributes(task.history.events[4])
        assert asked.external_workflow_execution == parent
    else:
        # What is done to others of the same parent has been done by then.
        other = await _begin(server, complete_workflow())
        await _closes_as(server, other, COMPLETED)
        described = await server.describe(child)
        assert described.workflow_execution_info.parent_execution == parent
        assert len(await server.history(child)) == 4
    if name != "TERMINATE":
        await server.terminate(child)


async def test_child_that_goes_on_as_new_tells_its_parent_when_its_chain_ends(server: Raw) -> None:
    child_id = _new_id()
    parent = await _begin(server, start_child(child_id))
    tasks = await _poll_both(server)
    first = tasks[child_id].workflow_execution
    await server.decide(tasks[parent.workflow_id])
    await server.decide(tasks[child_id], continue_as_new())
    next_task = await server.poll_workflow()
    started = _attributes(next_task.history.events[0])
    assert started.continued_execution_run_id == first.run_id
    assert started.parent_workflow_execution == parent
    await server.decide(next_task, complete_workflow("from the next run"))
    await server.decide(await server.poll_workflow(), complete_workflow())
    events = await server.history(parent)
    assert types(events)[4:6] + types(events)[9:10] == [
        "START_CHILD_WORKFLOW_EXECUTION_INITIATED",
        "CHILD_WORKFLOW_EXECUTION_STARTED",
        "CHILD_WORKFLOW_EXECUTION_COMPLETED",
    ]
    assert _attributes(events[5]).workflow_execution.run_id == first.run_id
    assert _attributes(events[9]).workflow_execution == next_task.workflow_execution
    assert _attributes(events[9]).result == payloads("from the next run")


async def test_child_that_is_tried_again_fails_once_for_its_parent(server: Raw) -> None:
    child_id = _new_id()
    policy = common_pb2.RetryPolicy(initial_interval=seconds(0.01), maximum_attempts=2)
    parent = await _begin(server, start_child(child_id, retry_policy=policy))
    fail = command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
        fail_workflow_execution_command_attributes=(
            command_pb2.FailWorkflowExecutionCommandAttributes(failure=application_failure())
        ),
    )
    attempts: list[str] = []
    while len(attempts) < 2:
        task = await server.poll_workflow()
        if task.workflow_execution.workflow_id == child_id:
            attempts.append(task.workflow_execution.run_id)
            await server.decide(task, fail)
        else:
            await server.decide(task)
    await server.decide(await server.poll_workflow(), complete_workflow())
    events = await server.history(parent)
    (failed,) = [e for e in events if types([e]) == ["CHILD_WORKFLOW_EXECUTION_FAILED"]]
    assert _attributes(failed).workflow_execution.run_id == attempts[1]
    state = failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert _attributes(failed).retry_state == state


async def test_parent_that_closes_terminates_whatever_run_of_the_child_is_open(
    server: Raw,
) -> None:
    child_id = _new_id()
    parent = await _begin(server, start_child(child_id))
    tasks = await _poll_both(server)
    await server.decide(tasks[child_id], continue_as_new())
    next_run = (await server.poll_workflow()).workflow_execution
    assert next_run.run_id != tasks[child_id].workflow_execution.run_id
    await server.decide(tasks[parent.workflow_id], complete_workflow())
    await _closes_as(server, next_run, workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED)


async def test_signal_and_request_to_cancel_reach_a_run_in_another_namespace(server: Raw) -> None:
    namespace = f"other-{uuid.uuid4()}"
    await server.create_namespace(namespace)
    async with Raw(server.address, queue=server.queue, namespace=namespace) as other:
        run = await other.start_run()
        sender = await _begin(
            server,
            signal_run(run.workflow_id, namespace=namespace, input=payloads("hi")),
            cancel_run(run.workflow_id, namespace=namespace, reason="enough"),
        )
        await server.decide(await server.poll_workflow())
        events = await other.history(run)
        names = types(events)
        signaled = events[names.index("WORKFLOW_EXECUTION_SIGNALED")]
        assert _attributes(signaled).input == payloads("hi")
        assert _attributes(signaled).external_workflow_execution == sender
        asked = events[names.index("WORKFLOW_EXECUTION_CANCEL_REQUESTED")]
        assert _attributes(asked).reason == "enough"
        assert _attributes(asked).external_initiated_event_id == 6
    names = types(await server.history(sender))
    assert names[4:6] == [
        "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED",
        "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED",
    ]
    assert {
        "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED",
        "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED",
    } <= set(names)


async def test_child_in_another_namespace_tells_its_parent(server: Raw) -> None:
    namespace = f"other-{uuid.uuid4()}"
    await server.create_namespace(namespace)
    parent = await _begin(server, start_child(_new_id(), namespace=namespace))
    async with Raw(server.address, queue=server.queue, namespace=namespace) as other:
        task = await other.poll_workflow()
        first = _attributes(task.history.events[0])
        assert (first.parent_namespace, first.parent_workflow_execution) == ("default", parent)
        await other.decide(task, complete_workflow("from afar"))
    await server.decide(await server.poll_workflow())

    async def is_told() -> bool:
        return "CHILD_WORKFLOW_EXECUTION_COMPLETED" in types(await server.history(parent))

    await wait_until(is_told, 10, "the parent to be told")
    await server.terminate(parent)


@pytest.mark.parametrize("asks", [signal_run, cancel_run])
async def test_run_that_is_closed_missing_or_no_child_cannot_be_called(
    server: Raw, asks: Any
) -> None:
    closed = await _begin(server, complete_workflow())
    stranger = await server.start_run()
    await server.decide(await server.poll_workflow())
    sender = await _begin(
        server,
        asks(closed.workflow_id),
        asks(_new_id()),
        asks(stranger.workflow_id, child_workflow_only=True),
        asks(stranger.workflow_id, namespace="there-is-none"),
    )

    async def failures() -> list[Any] | None:
        events = await server.history(sender)
        found = [_attributes(e) for e in events if types([e])[0].endswith("_FAILED")]
        return found if len(found) == 4 else None

    found = await wait_until(failures, 10, "all to have failed")
    assert found is not None
    by_event = {each.initiated_event_id: each.cause for each in found}
    # Both enums have the same numbers for the same.
    not_found = (
        history_pb2.SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND
    )
    no_namespace = history_pb2.SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_NAMESPACE_NOT_FOUND
    assert [by_event[number] for number in sorted(by_event)] == [*[not_found] * 3, no_namespace]
    assert len(await server.history(stranger)) == 4
    for run in (sender, stranger):
        await server.terminate(run)


async def test_bad_child_names_the_command_and_its_field(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.decide(task, start_child("a"), start_child(""))
    assert detail_of(caught.value, "BadRequestDetail").field == "commands[1].workflow_id"
    await server.terminate(run)
