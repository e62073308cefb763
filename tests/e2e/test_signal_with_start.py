"""A signal for the open run of a workflow id, or for one that begins with it."""

import asyncio
import uuid

import grpc
import pytest

from aetheris.api.v1 import common_pb2, workflow_pb2
from tests.support.raw import Raw, complete_workflow, payloads, seconds, types

_REJECT = workflow_pb2.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
_FAIL = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_FAIL
_TERMINATE = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING


@pytest.fixture
def workflow_id() -> str:
    return f"w-{uuid.uuid4()}"


def _run(workflow_id: str, run_id: str = "") -> common_pb2.WorkflowExecution:
    return common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=run_id)


async def _signals(server: Raw, workflow_id: str, run_id: str = "") -> list[str]:
    return [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in await server.history(_run(workflow_id, run_id))
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]


async def test_signal_with_start_of_an_unused_id_begins_a_run_with_it(
    server: Raw, workflow_id: str
) -> None:
    answer = await server.signal_with_start(
        workflow_id, "go", payloads("x"), request_id="r", input=payloads("in")
    )
    assert answer.started
    task = await server.poll_workflow()
    assert types(task.history.events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
    ]
    signaled = task.history.events[1].workflow_execution_signaled_event_attributes
    assert (signaled.signal_name, signaled.input) == ("go", payloads("x"))
    assert signaled.request_id == "r"


async def test_signal_with_start_of_an_open_run_only_signals(server: Raw, workflow_id: str) -> None:
    first = await server.start(workflow_id)
    answer = await server.signal_with_start(workflow_id, "go")
    assert (answer.run_id, answer.started) == (first.run_id, False)
    task = await server.poll_workflow()
    assert types(task.history.events)[1:3] == [
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_SIGNALED",
    ]


async def test_signal_with_start_repeated_starts_and_signals_once(
    server: Raw, workflow_id: str
) -> None:
    answers = await asyncio.gather(
        *(server.signal_with_start(workflow_id, "go", request_id="same") for _ in range(10))
    )
    assert {answer.run_id for answer in answers} == {answers[0].run_id}
    assert all(answer.started for answer in answers)
    assert await _signals(server, workflow_id) == ["go"]


async def test_signal_with_start_of_many_at_once_starts_one_run_with_all_signals(
    server: Raw, workflow_id: str
) -> None:
    answers = await asyncio.gather(
        *(server.signal_with_start(workflow_id, f"s{number}") for number in range(10))
    )
    assert [answer.started for answer in answers].count(True) == 1
    assert len({answer.run_id for answer in answers}) == 1
    assert sorted(await _signals(server, workflow_id)) == [f"s{number}" for number in range(10)]


async def test_signal_with_start_repeated_after_the_end_answers_with_the_run_that_took_it(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start(workflow_id)
    signalled = await server.signal_with_start(workflow_id, "go", request_id="same")
    await server.decide(await server.poll_workflow(), complete_workflow())

    again = await server.signal_with_start(workflow_id, "go", request_id="same")

    assert again == signalled
    assert again.run_id == first.run_id
    assert len(await server.list(workflow_id=workflow_id)) == 1


async def test_signal_with_start_after_the_end_starts_another_run(
    server: Raw, workflow_id: str
) -> None:
    first = await server.signal_with_start(workflow_id, "one")
    await server.decide(await server.poll_workflow(), complete_workflow())
    second = await server.signal_with_start(workflow_id, "two")
    assert second.started
    assert second.run_id != first.run_id
    assert await _signals(server, workflow_id) == ["two"]


async def test_signal_with_start_that_the_reuse_policy_forbids_writes_nothing(
    server: Raw, workflow_id: str
) -> None:
    await server.start(workflow_id)
    await server.decide(await server.poll_workflow(), complete_workflow())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.signal_with_start(workflow_id, workflow_id_reuse_policy=_REJECT)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(await server.list(workflow_id=workflow_id)) == 1


async def test_signal_with_start_may_replace_the_open_run(server: Raw, workflow_id: str) -> None:
    first = await server.start(workflow_id)
    answer = await server.signal_with_start(
        workflow_id, "go", workflow_id_conflict_policy=_TERMINATE
    )
    assert answer.started
    ended = await server.result(_run(workflow_id, first.run_id))
    assert ended is not None
    assert ended.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED
    assert await _signals(server, workflow_id, answer.run_id) == ["go"]


async def test_signal_with_start_waits_for_the_delay_of_its_own_run(
    server: Raw, workflow_id: str
) -> None:
    await server.signal_with_start(workflow_id, "go", start_delay=seconds(3600))
    assert types(await server.history(_run(workflow_id))) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_EXECUTION_SIGNALED",
    ]


async def test_signal_with_start_of_a_delayed_run_ends_the_delay(
    server: Raw, workflow_id: str
) -> None:
    await server.start(workflow_id, start_delay=seconds(3600))
    await server.signal(_run(workflow_id), "waits")
    assert await server.poll_workflows(0.2) == []
    await server.signal_with_start(workflow_id, "go")
    task = await server.poll_workflow()
    assert types(task.history.events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
    ]


async def test_signal_with_start_may_wait_for_the_result(server: Raw, workflow_id: str) -> None:
    call = asyncio.create_task(
        server.signal_with_start(workflow_id, result_wait_timeout=seconds(20))
    )
    await server.decide(await server.poll_workflow(), complete_workflow("done"))
    answer = await call
    assert answer.result.result == payloads("done")


async def test_signal_with_start_refused_names_the_field(server: Raw, workflow_id: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"start\.workflow_id_conflict_policy"):
        await server.signal_with_start(workflow_id, workflow_id_conflict_policy=_FAIL)
    with pytest.raises(grpc.aio.AioRpcError, match="signal_name"):
        await server.signal_with_start(workflow_id, "")
    assert await server.list(workflow_id=workflow_id) == []
