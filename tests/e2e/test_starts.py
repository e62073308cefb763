"""Who may start what: request ids, workflow ids, policies."""

import asyncio
import uuid

import grpc
import pytest

from aetheris.api.v1 import workflow_pb2
from tests.support.raw import Raw, complete_workflow, detail_of

_REJECT = workflow_pb2.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
_FAILED_ONLY = workflow_pb2.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE_FAILED_ONLY
_USE_EXISTING = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
_TERMINATE = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING


@pytest.fixture
def workflow_id() -> str:
    return f"w-{uuid.uuid4()}"


async def test_start_repeated_with_its_request_id_answers_with_the_same_run(
    server: Raw, workflow_id: str
) -> None:
    answers = await asyncio.gather(
        *(server.start(workflow_id, request_id="same") for _ in range(10))
    )
    assert len({answer.run_id for answer in answers}) == 1
    assert all(answer.started for answer in answers)
    assert len(await server.list(workflow_id=workflow_id)) == 1


async def test_start_repeated_after_the_end_answers_with_the_same_run(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start(workflow_id, request_id="same")
    await server.decide(await server.poll_workflow(), complete_workflow())
    assert (await server.start(workflow_id, request_id="same")).run_id == first.run_id


async def test_start_repeated_after_another_run_answers_with_its_own(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start(workflow_id, request_id="one")
    await server.decide(await server.poll_workflow(), complete_workflow())
    second = await server.start(workflow_id, request_id="two")
    assert (await server.start(workflow_id, request_id="one")).run_id == first.run_id
    await server.decide(await server.poll_workflow(), complete_workflow())
    assert (await server.start(workflow_id, request_id="one")).run_id == first.run_id
    assert (await server.start(workflow_id, request_id="two")).run_id == second.run_id
    assert len(await server.list(workflow_id=workflow_id)) == 2


async def test_start_while_a_run_is_open_is_refused_with_its_id(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start(workflow_id, request_id="first")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.start(workflow_id)
    assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    detail = detail_of(caught.value, "WorkflowAlreadyStartedDetail")
    assert (detail.run_id, detail.start_request_id) == (first.run_id, "first")


async def test_starts_at_once_make_one_run(server: Raw, workflow_id: str) -> None:
    answers = await asyncio.gather(
        *(server.start(workflow_id) for _ in range(20)), return_exceptions=True
    )
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    assert len(await server.list(workflow_id=workflow_id)) == 1


async def test_start_with_use_existing_answers_with_the_open_run(
    server: Raw, workflow_id: str
) -> None:
    first = await server.start(workflow_id)
    answer = await server.start(workflow_id, workflow_id_conflict_policy=_USE_EXISTING)
    assert (answer.run_id, answer.started) == (first.run_id, False)


async def test_starts_with_terminate_existing_leave_one_open(server: Raw, workflow_id: str) -> None:
    await asyncio.gather(
        *(server.start(workflow_id, workflow_id_conflict_policy=_TERMINATE) for _ in range(8))
    )
    listed = await server.list(workflow_id=workflow_id)
    running = workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
    assert len(listed) == 8
    assert [info.status for info in listed].count(running) == 1
    # The newest first.
    assert listed[0].status == running


async def test_reuse_policies_judge_how_the_last_run_ended(server: Raw, workflow_id: str) -> None:
    await server.start(workflow_id)
    await server.decide(await server.poll_workflow(), complete_workflow())
    for policy in (_REJECT, _FAILED_ONLY):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.start(workflow_id, workflow_id_reuse_policy=policy)
        assert caught.value.code() == grpc.StatusCode.ALREADY_EXISTS
    again = await server.start(workflow_id)
    run = (await server.list(workflow_id=workflow_id))[0].execution
    assert run.run_id == again.run_id
    await server.terminate(run)
    await server.start(workflow_id, workflow_id_reuse_policy=_FAILED_ONLY)
