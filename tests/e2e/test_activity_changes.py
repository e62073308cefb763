"""What is done to an open activity from outside, on a real server and with a real worker."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from aetheris.api.v1 import common_pb2, worker_service_pb2, workflow_pb2
from aetheris_client import Client
from aetheris_client.activity_options import ActivityOptionsUpdate
from aetheris_client.errors import ActivityNotFoundError
from aetheris_worker import RetryPolicy, Worker, activity, workflow
from tests.support.processes import ServerProcess
from tests.support.raw import Raw, complete_workflow, schedule_activity, seconds, types
from tests.support.wait import wait_until

_NOTHING_COMES = 1.0
_PAUSED = worker_service_pb2.ACTIVITY_CANCELLATION_REASON_PAUSED


async def _start_activity(server: Raw, **attributes: Any) -> common_pb2.WorkflowExecution:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity("a", **attributes))
    return run


async def _heartbeat(
    server: Raw, task: worker_service_pb2.ActivityTask
) -> worker_service_pb2.RecordActivityTaskHeartbeatResponse:
    return await server.workers.RecordActivityTaskHeartbeat(
        worker_service_pb2.RecordActivityTaskHeartbeatRequest(
            namespace=server.namespace, task_token=task.task_token
        )
    )


async def test_paused_activity_is_given_out_once_it_is_unpaused(server: Raw) -> None:
    run = await _start_activity(server)
    await asyncio.sleep(0.5)
    await server.change_activity("PauseActivity", run, reason="look", identity="operator")
    assert not (await server.poll_activities(_NOTHING_COMES)).tasks
    (pending,) = (await server.describe(run)).pending_activities
    assert pending.state == workflow_pb2.PENDING_ACTIVITY_STATE_PAUSED
    assert (pending.pause_info.reason, pending.pause_info.identity) == ("look", "operator")
    await server.change_activity("UnpauseActivity", run)
    await server.complete_activity(await server.poll_activity())
    await server.decide(await server.poll_workflow(), complete_workflow())
    assert types(await server.history(run)) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "ACTIVITY_TASK_SCHEDULED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]


async def test_worker_is_told_of_a_pause_by_its_poll_and_by_its_heartbeat(server: Raw) -> None:
    run = await _start_activity(server)
    task = await server.poll_activity(worker_instance_id="one")
    polling = asyncio.create_task(server.poll_activities(10, worker_instance_id="one"))
    await asyncio.sleep(0.2)
    await server.change_activity("PauseActivity", run)
    (notice,) = (await polling).cancellations
    assert (notice.reason, notice.attempt) == (_PAUSED, task.attempt_number)
    told = await _heartbeat(server, task)
    assert (told.activity_paused, told.activity_reset, told.cancel_requested) == (
        True,
        False,
        False,
    )
    await server.change_activity("ResetActivity", run, keep_paused=True)
    told = await _heartbeat(server, task)
    assert (told.activity_paused, told.activity_reset) == (True, True)
    await server.complete_activity(task)
    assert types((await server.poll_workflow()).history.events)[-3:-1] == [
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
    ]


async def test_reset_activity_begins_with_its_first_attempt_and_the_old_task_is_gone(
    server: Raw,
) -> None:
    run = await _start_activity(server, retry_policy={"initial_interval": seconds(600)})
    task = await server.poll_activity()
    await server.fail_activity(task)
    await server.change_activity("ResetActivity", run)
    again = await server.poll_activity()
    assert (again.attempt, again.attempt_number) == (1, 3)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.complete_activity(task)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    await server.complete_activity(again)


async def test_waiting_activity_is_moved_to_another_queue(server: Raw) -> None:
    run = await _start_activity(server)
    await asyncio.sleep(0.5)
    other = f"{server.queue}-other"
    changed = await server.change_activity(
        "UpdateActivityOptions",
        run,
        activity_options={"task_queue": {"name": other}, "heartbeat_timeout": seconds(3)},
        update_mask={"paths": ["task_queue", "heartbeat_timeout"]},
    )
    assert changed.activity_options.task_queue.name == other
    assert changed.activity_options.start_to_close_timeout == seconds(60)
    assert not (await server.poll_activities(_NOTHING_COMES)).tasks
    async with Raw(server.address, queue=other) as elsewhere:
        task = await elsewhere.poll_activity()
    assert (task.attempt, task.heartbeat_timeout) == (1, seconds(3))


async def test_bad_changes_are_refused_by_their_field_and_write_nothing(server: Raw) -> None:
    run = await _start_activity(server)
    before = len(await server.history(run))
    for verb in ("PauseActivity", "UnpauseActivity", "ResetActivity"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await server.change_activity(verb, run, "nothing")
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        assert "no open activity 'nothing'" in (refused.value.details() or "")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await server.change_activity(
            "UpdateActivityOptions", run, update_mask={"paths": ["start_to_close_timeout"]}
        )
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "activity_options" in (refused.value.details() or "")
    assert len(await server.history(run)) == before
    (pending,) = (await server.describe(run)).pending_activities
    assert not pending.changes


# With the worker and the client.


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as connected:
        yield connected


class Attempts:
    """Runs until it is told to stop; the last one ends by itself."""

    def __init__(self) -> None:
        self.begun = 0
        self.seen: list[activity.CancellationDetails | None] = []

    @activity.defn
    async def work(self) -> str:
        self.begun += 1
        if self.begun > 1:
            return "done"
        try:
            await asyncio.Event().wait()
        finally:
            self.seen.append(activity.cancellation_details())
        return "never"


@workflow.defn
class OneActivity:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity_method(
            Attempts.work,
            start_to_close_timeout=timedelta(seconds=60),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )


async def test_pause_interrupts_a_running_activity_which_begins_anew_when_it_goes_on(
    client: Client,
) -> None:
    queue, attempts = f"queue-{secrets.token_hex(4)}", Attempts()
    async with Worker(
        client, task_queue=queue, workflows=[OneActivity], activities=[attempts.work]
    ):
        handle = await client.start_workflow(
            OneActivity.run, id=f"w-{secrets.token_hex(4)}", task_queue=queue
        )
        await wait_until(lambda: attempts.begun == 1, 20, "the activity to begin")
        (pending,) = (await handle.describe()).pending_activities
        await handle.pause_activity(pending.activity_id, reason="too hot")
        await wait_until(lambda: len(attempts.seen) == 1, 20, "the activity to be interrupted")
        assert attempts.seen == [activity.CancellationDetails(paused=True)]

        async def has_ended() -> bool:
            (found,) = (await handle.describe()).pending_activities
            return found.state == "PAUSED"

        await wait_until(has_ended, 20, "the attempt to end")
        (pending,) = (await handle.describe()).pending_activities
        assert pending.attempt == 1
        assert pending.pause is not None
        assert pending.pause.reason == "too hot"
        options = await handle.update_activity_options(
            pending.activity_id, ActivityOptionsUpdate(heartbeat_timeout=timedelta(seconds=7))
        )
        assert options.heartbeat_timeout == timedelta(seconds=7)
        with pytest.raises(ActivityNotFoundError):
            await handle.reset_activity("nothing")
        await handle.unpause_activity(pending.activity_id)
        assert await handle.result() == "done"


async def test_reset_interrupts_a_running_activity_which_begins_anew(client: Client) -> None:
    queue, attempts = f"queue-{secrets.token_hex(4)}", Attempts()
    async with Worker(
        client, task_queue=queue, workflows=[OneActivity], activities=[attempts.work]
    ):
        handle = await client.start_workflow(
            OneActivity.run, id=f"w-{secrets.token_hex(4)}", task_queue=queue
        )
        await wait_until(lambda: attempts.begun == 1, 20, "the activity to begin")
        (pending,) = (await handle.describe()).pending_activities
        await handle.reset_activity(pending.activity_id)
        assert await handle.result() == "done"
        assert attempts.seen == [activity.CancellationDetails(reset=True)]
