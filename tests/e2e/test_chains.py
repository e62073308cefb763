"""Chains of runs, by the events that a real server writes: continue-as-new, retries, whose runs."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import common_pb2, failure_pb2, history_pb2, workflow_pb2, workflow_service_pb2
from tests.support.raw import (
    Raw,
    application_failure,
    complete_workflow,
    detail_of,
    payloads,
    seconds,
    text_of,
    types,
)
from tests.support.runs import (
    continue_as_new,
    fail_workflow,
    memo,
    search_attributes,
    upsert_memo,
    upsert_search_attributes,
)

_POLICY = common_pb2.RetryPolicy(initial_interval=seconds(0.05), maximum_attempts=3)
_FAILED_ONLY = workflow_pb2.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY
_USE_EXISTING = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
_TERMINATE = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING


@pytest.fixture
def workflow_id() -> str:
    return f"w-{uuid.uuid4()}"


def _run(workflow_id: str, run_id: str = "") -> common_pb2.WorkflowExecution:
    return common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=run_id)


async def _continue(server: Raw, **given: Any) -> common_pb2.WorkflowExecution:
    """Have the run of the next task go on as new; the run that does."""
    task = await server.poll_workflow()
    await server.decide(task, continue_as_new(**given))
    result = await server.result(task.workflow_execution)
    assert result is not None
    assert result.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
    return _run(task.workflow_execution.workflow_id, result.new_execution_run_id)


async def test_continue_as_new_writes_the_end_of_one_run_and_the_start_of_the_next(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start_run(workflow_id=workflow_id, input=payloads("one"), memo=memo(a="1"))
    following = await _continue(server, input=payloads("two"))
    assert types(await server.history(first)) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
    ]
    # It waits for the rest of its first second: then its task is there.
    task = await server.poll_workflow()
    assert task.workflow_execution == following
    await server.decide(task, complete_workflow("end"))
    events = await server.history(following)
    assert types(events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    started = events[0].workflow_execution_started_event_attributes
    assert text_of(started.input) == "two"
    assert started.first_execution_run_id == started.continued_execution_run_id == first.run_id
    assert started.memo == memo(a="1")
    ended = await server.result(following)
    assert ended is not None
    assert text_of(ended.result) == "end"
    described = (await server.describe(first)).workflow_execution_info
    assert described.new_execution_run_id == following.run_id
    described = (await server.describe(following)).workflow_execution_info
    assert described.continued_execution_run_id == first.run_id
    listed = {info.execution.run_id: info for info in await server.list(workflow_id=workflow_id)}
    assert listed.keys() == {first.run_id, following.run_id}
    assert all(info.first_execution_run_id == first.run_id for info in listed.values())
    assert all(info.memo == memo(a="1") for info in listed.values())


async def test_continue_as_new_behind_a_signal_shows_it_to_the_code_first(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start_run(workflow_id=workflow_id)
    task = await server.poll_workflow()
    await server.signal(_run(workflow_id), "late")
    with pytest.raises(grpc.aio.AioRpcError, match="events came that its code has not seen"):
        await server.decide(task, continue_as_new())
    again = await server.poll_workflow()
    assert again.workflow_execution == first
    await server.decide(again, continue_as_new(input=payloads("with the signal")))
    assert types(await server.history(first)) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
    ]


async def test_failed_run_is_tried_again_until_it_completes(server: Raw, workflow_id: str) -> None:
    first = await server.start_run(
        workflow_id=workflow_id, input=payloads("in"), retry_policy=_POLICY
    )
    await server.decide(await server.poll_workflow(), fail_workflow(application_failure("no")))
    result = await server.result(first)
    assert result is not None
    assert result.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED
    assert result.failure == application_failure("no")
    failed = (await server.history(first))[-1].workflow_execution_failed_event_attributes
    assert failed.retry_state == failure_pb2.RETRY_STATE_IN_PROGRESS
    assert failed.new_execution_run_id == result.new_execution_run_id
    task = await server.poll_workflow()
    assert task.workflow_execution == _run(workflow_id, result.new_execution_run_id)
    started = task.history.events[0].workflow_execution_started_event_attributes
    assert (started.attempt, text_of(started.input)) == (2, "in")
    assert started.continued_failure == application_failure("no")
    assert started.first_workflow_task_backoff == seconds(0.05)
    info = (await server.describe(task.workflow_execution)).workflow_execution_info
    assert (info.attempt, info.continued_execution_run_id) == (2, first.run_id)
    await server.decide(task, complete_workflow("at last"))
    ended = await server.result(task.workflow_execution)
    assert ended is not None
    assert (text_of(ended.result), ended.new_execution_run_id) == ("at last", "")


async def test_run_behind_its_deadline_is_tried_again(server: Raw, workflow_id: str) -> None:
    first = await server.start_run(
        workflow_id=workflow_id, retry_policy=_POLICY, workflow_run_timeout=seconds(0.3)
    )
    result = await server.result(first)
    assert result is not None
    assert result.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_TIMED_OUT
    ended = await server.result(_run(workflow_id, result.new_execution_run_id))
    assert ended is not None
    last = await server.result(_run(workflow_id, ended.new_execution_run_id))
    assert last is not None
    assert last.new_execution_run_id == ""
    closed = (await server.history(_run(workflow_id)))[-1]
    timed_out = closed.workflow_execution_timed_out_event_attributes
    assert timed_out.retry_state == failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert len(await server.list(workflow_id=workflow_id)) == 3


async def test_retry_that_waits_is_ended_by_terminate(server: Raw, workflow_id: str) -> None:
    policy = common_pb2.RetryPolicy(initial_interval=seconds(3600))
    await server.start_run(workflow_id=workflow_id, retry_policy=policy)
    await server.decide(await server.poll_workflow(), fail_workflow(application_failure()))
    await server.terminate(_run(workflow_id))
    assert types(await server.history(_run(workflow_id))) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_EXECUTION_TERMINATED",
    ]


# Whose run it is.


_CALLS: dict[str, Callable[[Raw, str, str], Coroutine[Any, Any, Any]]] = {
    "signal": lambda server, id_, first: server.signal(_run(id_), first_execution_run_id=first),
    "cancel": lambda server, id_, first: server.cancel(_run(id_), first_execution_run_id=first),
    "terminate": lambda server, id_, first: server.terminate(
        _run(id_), first_execution_run_id=first
    ),
    "pause": lambda server, id_, first: server.workflows.PauseWorkflow(
        workflow_service_pb2.PauseWorkflowRequest(
            namespace="default", workflow_execution=_run(id_), first_execution_run_id=first
        )
    ),
    "unpause": lambda server, id_, first: server.workflows.UnpauseWorkflow(
        workflow_service_pb2.UnpauseWorkflowRequest(
            namespace="default", workflow_execution=_run(id_), first_execution_run_id=first
        )
    ),
    "query": lambda server, id_, first: server.query(_run(id_), first_execution_run_id=first),
    "result": lambda server, id_, first: server.workflows.PollWorkflowResult(
        workflow_service_pb2.PollWorkflowResultRequest(
            namespace="default",
            workflow_execution=_run(id_),
            first_execution_run_id=first,
            wait_timeout=seconds(0.01),
        )
    ),
}


@pytest.mark.parametrize("call", _CALLS)
async def test_call_bound_to_a_chain_is_refused_where_another_has_the_id(
    server: Raw, workflow_id: str, call: str
) -> None:
    first = await server.start_run(workflow_id=workflow_id)
    await server.terminate(first)
    second = await server.start_run(workflow_id=workflow_id)
    before = await server.history(second)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _CALLS[call](server, workflow_id, first.run_id)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    detail = detail_of(caught.value, "WorkflowNotFoundDetail")
    assert (detail.workflow_id, detail.run_id) == (workflow_id, first.run_id)
    assert await server.history(second) == before


@pytest.mark.parametrize("call", _CALLS)
async def test_chain_that_is_no_run_id_is_refused_by_its_field(
    server: Raw, workflow_id: str, call: str
) -> None:
    await server.start_run(workflow_id=workflow_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _CALLS[call](server, workflow_id, "no-uuid")
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert detail_of(caught.value, "BadRequestDetail").field == "first_execution_run_id"


@pytest.mark.parametrize("call", ["signal", "cancel", "terminate", "result"])
async def test_call_bound_to_a_chain_reaches_its_newest_run(
    server: Raw, workflow_id: str, call: str
) -> None:
    first = await server.start_run(workflow_id=workflow_id)
    following = await _continue(server)
    await _CALLS[call](server, workflow_id, first.run_id)
    expected = {
        "signal": "WORKFLOW_EXECUTION_SIGNALED",
        "cancel": "WORKFLOW_EXECUTION_CANCEL_REQUESTED",
        "terminate": "WORKFLOW_EXECUTION_TERMINATED",
        "result": "WORKFLOW_EXECUTION_STARTED",
    }
    assert expected[call] in types(await server.history(following))


async def test_request_that_the_run_before_has_recorded_is_not_recorded_again(
    server: Raw, workflow_id: str
) -> None:
    await server.start_run(workflow_id=workflow_id)
    await server.signal(_run(workflow_id), "once", request_id="signal")
    await server.cancel(_run(workflow_id), request_id="cancel")
    following = await _continue(server)
    await server.signal(_run(workflow_id), "once", request_id="signal")
    await server.cancel(_run(workflow_id), request_id="cancel")
    assert types(await server.history(following)) == ["WORKFLOW_EXECUTION_STARTED"]
    await server.signal(_run(workflow_id), "twice", request_id="another")
    assert types(await server.history(following)) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_EXECUTION_SIGNALED",
    ]


async def test_signal_with_start_repeated_after_the_run_went_on_is_not_recorded_again(
    server: Raw, workflow_id: str
) -> None:
    first = await server.signal_with_start(workflow_id, request_id="both")
    following = await _continue(server)
    again = await server.signal_with_start(workflow_id, request_id="both")
    assert (again.run_id, again.started) == (first.run_id, True)
    assert types(await server.history(following)) == ["WORKFLOW_EXECUTION_STARTED"]
    other = await server.signal_with_start(workflow_id, request_id="another")
    assert (other.run_id, other.started) == (following.run_id, False)
    assert other.first_execution_run_id == first.first_execution_run_id == first.run_id


async def test_start_repeated_after_the_run_went_on_answers_with_the_first(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start(workflow_id, request_id="same")
    assert first.first_execution_run_id == first.run_id
    following = await _continue(server)
    again = await server.start(workflow_id, request_id="same")
    assert (again.run_id, again.started) == (first.run_id, True)
    used = await server.start(workflow_id, workflow_id_conflict_policy=_USE_EXISTING)
    assert (used.run_id, used.started) == (following.run_id, False)
    assert used.first_execution_run_id == first.run_id


async def test_starts_racing_with_a_run_that_goes_on_never_make_a_second_open_one(
    server: Raw, workflow_id: str
) -> None:
    await server.start_run(workflow_id=workflow_id)
    task = await server.poll_workflow()

    _, *refusals = await asyncio.gather(
        server.decide(task, continue_as_new()),
        *(server.start(workflow_id) for _ in range(20)),
        return_exceptions=True,
    )
    errors = [error for error in refusals if isinstance(error, grpc.aio.AioRpcError)]
    assert [error.code() for error in errors] == [grpc.StatusCode.ALREADY_EXISTS] * 20
    replaced, used = await asyncio.gather(
        server.start(workflow_id, workflow_id_conflict_policy=_TERMINATE),
        server.start(workflow_id, workflow_id_conflict_policy=_USE_EXISTING),
    )
    assert replaced.started
    assert not used.started
    infos = await server.list(workflow_id=workflow_id)
    is_open = workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
    assert [info.execution.run_id for info in infos if info.status == is_open] == [replaced.run_id]
    assert len(infos) == 3


async def _close(server: Raw, run: common_pb2.WorkflowExecution, how: str) -> None:
    match how:
        case "COMPLETED":
            await server.decide(await server.poll_workflow(), complete_workflow())
        case "FAILED":
            await server.decide(await server.poll_workflow(), fail_workflow(application_failure()))
        case "TERMINATED":
            await server.terminate(run)
        case _:
            assert how == "TIMED_OUT"
    result = await server.result(run)
    assert result is not None
    assert workflow_pb2.WorkflowExecutionStatus.Name(result.status).endswith(how)


@pytest.mark.parametrize("how", ["COMPLETED", "FAILED", "TERMINATED", "TIMED_OUT"])
async def test_id_of_a_closed_run_is_free_unless_it_completed_where_only_failed_ones_count(
    server: Raw, workflow_id: str, how: str
) -> None:
    timeout = seconds(0.3) if how == "TIMED_OUT" else None
    run = await server.start_run(workflow_id=workflow_id, workflow_run_timeout=timeout)
    await _close(server, run, how)
    start = server.start(workflow_id, workflow_id_reuse_policy=_FAILED_ONLY)
    if how != "COMPLETED":
        assert (await start).started
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await start
    assert detail_of(caught.value, "WorkflowAlreadyStartedDetail").run_id == run.run_id


# Notes.


async def test_notes_that_the_code_changes_are_shown_and_go_along(
    server: Raw, workflow_id: str
) -> None:
    run = await server.start_run(
        workflow_id=workflow_id,
        memo=memo(a="1", b="2"),
        search_attributes=search_attributes(place='"here"'),
    )
    await server.decide(
        await server.poll_workflow(),
        upsert_memo(a="", c="3"),
        upsert_search_attributes(place="", kind='"x"'),
        force_create_new_workflow_task=True,
    )
    listed = (await server.list(workflow_id=workflow_id))[0]
    described = (await server.describe(run)).workflow_execution_info
    for info in (listed, described):
        assert info.memo == memo(b="2", c="3")
        assert {
            name: value.data for name, value in info.search_attributes.indexed_fields.items()
        } == {"kind": b'"x"'}
    following = await _continue(server)
    started = (await server.history(following))[0].workflow_execution_started_event_attributes
    assert started.memo == memo(b="2", c="3")
    assert started.search_attributes == search_attributes(kind='"x"')
    assert types(await server.history(run)) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_PROPERTIES_MODIFIED",
        "UPSERT_WORKFLOW_SEARCH_ATTRIBUTES",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
    ]


async def test_bad_notes_fail_the_task_with_the_cause_and_the_field(
    server: Raw, workflow_id: str
) -> None:
    run = await server.start_run(workflow_id=workflow_id)
    task = await server.poll_workflow()
    with pytest.raises(grpc.aio.AioRpcError, match="expected JSON") as caught:
        await server.decide(task, upsert_memo(a="1"), upsert_search_attributes(a="{"))
    assert detail_of(caught.value, "BadRequestDetail").field == (
        "commands[1].search_attributes.indexed_fields['a']"
    )
    failed = (await server.history(run))[-1].workflow_task_failed_event_attributes
    assert failed.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES
    assert not (await server.describe(run)).workflow_execution_info.memo.fields
