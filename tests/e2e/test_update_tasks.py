"""Updates on the wire: the workflow tasks that bring them, and what is refused."""

import asyncio

import grpc
import grpc.aio
import pytest

from aetheris.api.v1 import common_pb2, workflow_pb2
from tests.support.raw import (
    Raw,
    application_failure,
    complete_workflow,
    detail_of,
    start_timer,
    text_of,
    types,
)
from tests.support.runs import accept_update, complete_update, continue_as_new
from tests.support.wait import wait_until

ADMITTED = workflow_pb2.UPDATE_STAGE_ADMITTED
ACCEPTED = workflow_pb2.UPDATE_STAGE_ACCEPTED
COMPLETED = workflow_pb2.UPDATE_STAGE_COMPLETED
BEGUN = [
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "TIMER_STARTED",
]
REJECTED = {"update_id": "u1", "failure": application_failure("no")}


async def idle_run(server: Raw) -> common_pb2.WorkflowExecution:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), start_timer("t", 600))
    return run


async def names_of(server: Raw, run: common_pb2.WorkflowExecution) -> list[str]:
    return types(await server.history(run))


async def test_speculative_task_is_discarded_when_all_is_rejected(server: Raw) -> None:
    run = await idle_run(server)
    for _ in range(2):
        asking = asyncio.create_task(server.update(run))
        task = await server.poll_workflow()
        assert task.is_speculative
        assert [update.name for update in task.updates] == ["update"]
        assert types(task.history.events)[-2:] == BEGUN[1:3]
        decided = await server.decide(task, update_rejections=[REJECTED], is_discardable=True)
        assert decided.is_discarded
        answer = await asking
        assert (answer.stage, answer.outcome.failure.message) == (COMPLETED, "no")
        with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
            await server.decide(task, update_rejections=[REJECTED], is_discardable=True)
    assert await names_of(server, run) == BEGUN


async def test_signal_beside_a_discarded_task_comes_in_the_next(server: Raw) -> None:
    run = await idle_run(server)
    asking = asyncio.create_task(server.update(run))
    task = await server.poll_workflow()
    await server.signal(run)
    decided = await server.decide(
        task,
        update_rejections=[REJECTED],
        is_discardable=True,
        return_new_workflow_task=True,
        sticky="sticky",
    )
    assert decided.is_discarded
    assert types(decided.workflow_task.history.events)[-3:] == [
        "WORKFLOW_EXECUTION_SIGNALED",
        *BEGUN[1:3],
    ]
    assert (await asking).outcome.HasField("failure")
    await server.decide(decided.workflow_task)
    assert await names_of(server, run) == [*BEGUN, "WORKFLOW_EXECUTION_SIGNALED", *BEGUN[1:4]]


async def test_update_that_the_worker_ignores_is_rejected(server: Raw) -> None:
    run = await idle_run(server)
    asking = asyncio.create_task(server.update(run))
    await server.decide(await server.poll_workflow())
    answer = await asking
    assert answer.outcome.failure.application_failure_info.type == "UnhandledUpdate"
    assert await names_of(server, run) == [*BEGUN, *BEGUN[1:4]]


async def test_stages_are_told_as_they_are_reached(server: Raw) -> None:
    run = await idle_run(server)
    assert (await server.update(run, stage=ADMITTED)).stage == ADMITTED
    assert (await server.update(run, wait=0.1)).stage == ADMITTED
    described = await server.describe(run)
    assert [pending.stage for pending in described.pending_updates] == [ADMITTED]
    await server.decide(await server.poll_workflow(), accept_update())
    accepted = await server.update(run, stage=ACCEPTED)
    assert accepted.stage == ACCEPTED
    assert accepted.workflow_execution == run
    assert (await server.poll_update(run, wait=0.1)).stage == ACCEPTED
    described = await server.describe(run)
    assert [pending.accepted_event_id for pending in described.pending_updates] == [9]
    polling = asyncio.create_task(server.poll_update(run))
    await server.signal(run)
    await server.decide(await server.poll_workflow(), complete_update())
    assert text_of((await polling).outcome.success) == "done"
    assert not (await server.describe(run)).pending_updates


async def test_updates_go_along_with_a_task_that_is_pending(server: Raw) -> None:
    run = await server.start_run()
    asking = asyncio.create_task(server.update(run))
    await wait_until(lambda: _is_pending(server, run), 10, "the update")
    task = await server.poll_workflow()
    assert not task.is_speculative
    assert len(task.updates) == 1
    await server.decide(task, accept_update(), complete_update(), start_timer("t", 600))
    assert (await asking).stage == COMPLETED
    assert await names_of(server, run) == [
        *BEGUN[:4],
        "WORKFLOW_EXECUTION_UPDATE_ACCEPTED",
        "WORKFLOW_EXECUTION_UPDATE_COMPLETED",
        "TIMER_STARTED",
    ]


async def _is_pending(server: Raw, run: common_pb2.WorkflowExecution) -> bool:
    return bool((await server.describe(run)).pending_updates)


async def test_update_of_a_run_that_closes_is_told_so(server: Raw) -> None:
    run = await idle_run(server)
    first = asyncio.create_task(server.update(run, "u1"))
    task = await server.poll_workflow()
    late = asyncio.create_task(server.update(run, "u2"))
    await wait_until(lambda: _has_pending(server, run, 2), 10, "both updates")
    await server.decide(task, accept_update("u1"), complete_workflow())
    failure = (await first).outcome.failure
    assert failure.application_failure_info.type == "AcceptedUpdateCompletedWorkflow"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await late
    assert detail_of(refused.value, "WorkflowClosedDetail").run_id == run.run_id
    assert (await server.update(run, "u1")).outcome.failure == failure


async def _has_pending(server: Raw, run: common_pb2.WorkflowExecution, count: int) -> bool:
    return len((await server.describe(run)).pending_updates) == count


async def test_refused_updates_say_why(server: Raw) -> None:
    run = await idle_run(server)
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await server.poll_update(run, "none")
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
    assert detail_of(unknown.value, "UpdateNotFoundDetail").update_id == "none"
    for number in range(10):
        await server.update(run, f"u{number}", stage=ADMITTED)
    with pytest.raises(grpc.aio.AioRpcError) as full:
        await server.update(run, "one-more", stage=ADMITTED)
    assert full.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "10 updates" in detail_of(full.value, "UpdateLimitDetail").reason
    paused = await idle_run_of_its_own(server)
    await server.pause(paused)
    with pytest.raises(grpc.aio.AioRpcError) as held:
        await server.update(paused)
    assert held.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert detail_of(held.value, "WorkflowNotReadyDetail").reason == "it is paused"


async def idle_run_of_its_own(server: Raw) -> common_pb2.WorkflowExecution:
    """One whose first workflow task another worker would take; nobody does."""
    return await server.start_run()


async def test_update_that_waits_when_the_run_goes_on_goes_to_the_new_run(server: Raw) -> None:
    run = await idle_run(server)
    newest = common_pb2.WorkflowExecution(workflow_id=run.workflow_id)
    first = asyncio.create_task(server.update(newest, "u1"))
    task = await server.poll_workflow()
    late = asyncio.create_task(server.update(newest, "u2"))
    await wait_until(lambda: _has_pending(server, run, 2), 10, "both updates")
    await server.decide(task, accept_update("u1"), complete_update("u1"), continue_as_new())
    assert (await first).workflow_execution == run
    following = await server.poll_workflow()
    if not following.updates:
        # It was faster than the one who waits.
        await server.decide(following)
        following = await server.poll_workflow()
    assert [update.update_id for update in following.updates] == ["u2"]
    await server.decide(following, accept_update("u2"), complete_update("u2"))
    answer = await late
    assert answer.stage == COMPLETED
    assert answer.workflow_execution == following.workflow_execution
    assert answer.workflow_execution.run_id != run.run_id
    # The one before has it; the new run does not do it again.
    assert (await server.update(newest, "u1")).workflow_execution == run
