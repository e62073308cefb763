"""Local activities against a real server: what is written, and what goes on beside them."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from aetheris.api.v1 import failure_pb2
from aetheris.api.v1.history_pb2 import History
from aetheris_client import Client
from aetheris_client.errors import (
    ActivityError,
    ApplicationError,
    WorkflowFailedError,
)
from aetheris_worker import RetryPolicy, Worker, activity, workflow
from aetheris_worker.testing import Replayer
from aetheris_worker.workflow import ActivityCancellationType
from tests.support.processes import ServerProcess
from tests.support.raw import types
from tests.support.wait import wait_until

LONG = timedelta(seconds=30)
CALLS: list[str] = []


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as client:
        yield client


@pytest.fixture
def queue() -> str:
    return f"local-{uuid.uuid4()}"


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def new_id() -> str:
    return f"local-{uuid.uuid4()}"


@activity.defn
async def add_one(number: int) -> int:
    CALLS.append(f"add_one {number}")
    assert activity.info().is_local
    return number + 1


@activity.defn
def double(number: int) -> int:
    CALLS.append(f"double {number}")
    activity.heartbeat("nobody hears it")
    return 2 * number


@activity.defn
async def pause(seconds: float) -> str:
    CALLS.append(f"pause {seconds}")
    await asyncio.sleep(seconds)
    return f"paused {seconds}"


@activity.defn
async def remote(number: int) -> int:
    assert not activity.info().is_local
    return number


ACTIVITIES = [add_one, double, pause, remote]


async def history_of(client: Client, workflow_id: str) -> History:
    handle = client.get_workflow_handle(workflow_id)
    return History(events=[event async for event in handle.history()])


@workflow.defn
class Chain:
    @workflow.run
    async def run(self, steps: int) -> int:
        number = 0
        for step in range(steps):
            called = add_one if step % 2 == 0 else double
            number = await workflow.execute_local_activity(
                called, number, start_to_close_timeout=LONG
            )
        return number


async def test_chain_is_a_task_and_a_marker_for_each_step(client: Client, queue: str) -> None:
    id_ = new_id()
    async with Worker(client, task_queue=queue, workflows=[Chain], activities=ACTIVITIES):
        assert await client.execute_workflow(Chain.run, 3, id=id_, task_queue=queue) == 3
    history = await history_of(client, id_)
    assert types(history.events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        *(
            "WORKFLOW_TASK_STARTED",
            "WORKFLOW_TASK_COMPLETED",
            "MARKER_RECORDED",
            "WORKFLOW_TASK_SCHEDULED",
        )
        * 3,
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    assert CALLS == ["add_one 0", "double 1", "add_one 2"]
    Replayer(workflows=[Chain]).replay(history)
    assert len(CALLS) == 3


@workflow.defn
class Together:
    """Two that end together, one later, and a remote one and a timer beside them."""

    @workflow.run
    async def run(self) -> list[object]:
        slow = workflow.start_local_activity(pause, 0.8, start_to_close_timeout=LONG)
        beside = asyncio.create_task(
            workflow.execute_activity(remote, 7, start_to_close_timeout=LONG)
        )
        timer = asyncio.create_task(workflow.sleep(0.1))
        both = await asyncio.gather(
            workflow.execute_local_activity(add_one, 1, start_to_close_timeout=LONG),
            workflow.execute_local_activity(add_one, 2, start_to_close_timeout=LONG),
        )
        await timer
        return [*both, await beside, slow.done(), await slow]


async def test_local_activities_that_end_together_share_a_record(
    client: Client, queue: str
) -> None:
    id_ = new_id()
    async with Worker(client, task_queue=queue, workflows=[Together], activities=ACTIVITIES):
        result = await client.execute_workflow(Together.run, id=id_, task_queue=queue)
    assert result == [2, 3, 7, False, "paused 0.8"]
    history = await history_of(client, id_)
    names = types(history.events)
    assert names[2:9] == [
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "ACTIVITY_TASK_SCHEDULED",
        "TIMER_STARTED",
        "MARKER_RECORDED",
        "MARKER_RECORDED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    # What came of the others did not wait for the slow one, which began once.
    assert names.index("TIMER_FIRED") < len(names) - 1 - names[::-1].index("MARKER_RECORDED")
    assert CALLS.count("pause 0.8") == 1
    Replayer(workflows=[Together]).replay(history)


@workflow.defn
class Slow:
    @workflow.run
    async def run(self, seconds: float) -> str:
        return await workflow.execute_local_activity(pause, seconds, start_to_close_timeout=LONG)


@pytest.mark.parametrize("cached", [100, 0])
async def test_long_local_activity_keeps_its_task_by_signs_of_life(
    client: Client, queue: str, cached: int
) -> None:
    id_ = new_id()
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Slow],
        activities=ACTIVITIES,
        max_cached_workflows=cached,
    ):
        result = await client.execute_workflow(
            Slow.run, 2.5, id=id_, task_queue=queue, task_timeout=timedelta(seconds=1)
        )
    assert result == "paused 2.5"
    assert CALLS == ["pause 2.5"]
    names = types((await history_of(client, id_)).events)
    assert names.count("WORKFLOW_TASK_COMPLETED") == 5
    assert "WORKFLOW_TASK_TIMED_OUT" not in names


ATTEMPTS: list[int] = []


@activity.defn
async def flaky(fails: int, delay: float) -> int:
    attempt = activity.info().attempt
    ATTEMPTS.append(attempt)
    if attempt <= fails:
        raise ApplicationError(
            "not yet",
            type="Flaky",
            next_retry_delay=timedelta(seconds=delay) if delay else None,
        )
    return attempt


@workflow.defn
class Retries:
    @workflow.run
    async def run(self, fails: int, delay: float) -> int:
        return await workflow.execute_local_activity(
            flaky,
            fails,
            delay,
            start_to_close_timeout=LONG,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=10),
                maximum_attempts=3,
                non_retryable_error_types=["Final"],
            ),
            local_retry_threshold=timedelta(milliseconds=500),
        )


async def test_short_waits_between_attempts_leave_no_trace(client: Client, queue: str) -> None:
    ATTEMPTS.clear()
    id_ = new_id()
    async with Worker(client, task_queue=queue, workflows=[Retries], activities=[flaky]):
        assert await client.execute_workflow(Retries.run, 2, 0.0, id=id_, task_queue=queue) == 3
    assert ATTEMPTS == [1, 2, 3]
    assert types((await history_of(client, id_)).events).count("MARKER_RECORDED") == 1


async def test_long_wait_between_attempts_is_a_timer(client: Client, queue: str) -> None:
    ATTEMPTS.clear()
    id_ = new_id()
    async with Worker(client, task_queue=queue, workflows=[Retries], activities=[flaky]):
        assert await client.execute_workflow(Retries.run, 1, 0.6, id=id_, task_queue=queue) == 2
    assert ATTEMPTS == [1, 2]
    history = await history_of(client, id_)
    assert types(history.events)[4:] == [
        "MARKER_RECORDED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "TIMER_STARTED",
        "TIMER_FIRED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "MARKER_RECORDED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    Replayer(workflows=[Retries]).replay(history)


async def test_last_failure_reaches_the_code(client: Client, queue: str) -> None:
    async with Worker(client, task_queue=queue, workflows=[Retries], activities=[flaky]):
        with pytest.raises(WorkflowFailedError) as caught:
            await client.execute_workflow(Retries.run, 9, 0.0, id=new_id(), task_queue=queue)
    error = caught.value.__cause__
    assert isinstance(error, ActivityError)
    assert error.activity_type == "flaky"
    assert error.retry_state == failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert isinstance(error.__cause__, ApplicationError)
    assert error.__cause__.type == "Flaky"


@workflow.defn
class Hurried:
    @workflow.run
    async def run(self, to_close: float, in_all: float) -> str:
        try:
            return await workflow.execute_local_activity(
                pause,
                5.0,
                start_to_close_timeout=timedelta(seconds=to_close),
                schedule_to_close_timeout=timedelta(seconds=in_all),
                retry_policy=RetryPolicy(
                    initial_interval=timedelta(milliseconds=10), maximum_attempts=2
                ),
            )
        except ActivityError as error:
            return f"{error.__cause__} after {len(CALLS)}"


@pytest.mark.parametrize(
    "to_close, in_all, end",
    [
        (0.1, 9.0, "local activity START_TO_CLOSE timeout after 2"),
        (9.0, 0.1, "local activity SCHEDULE_TO_CLOSE timeout after 1"),
    ],
)
async def test_time_limits_are_kept(
    client: Client, queue: str, to_close: float, in_all: float, end: str
) -> None:
    async with Worker(client, task_queue=queue, workflows=[Hurried], activities=ACTIVITIES):
        result = await client.execute_workflow(
            Hurried.run, to_close, in_all, id=new_id(), task_queue=queue
        )
    assert result == end


STOPPED: list[str] = []


@activity.defn
async def until_stopped() -> str:
    CALLS.append("began")
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        STOPPED.append(str(activity.cancel_reason()))
        raise
    return "ended"


@workflow.defn
class Cancels:
    @workflow.run
    async def run(self, how: ActivityCancellationType) -> str:
        handle = workflow.start_local_activity(
            until_stopped, start_to_close_timeout=LONG, cancellation_type=how
        )
        await workflow.sleep(0.05)
        handle.cancel()
        try:
            return await handle
        except asyncio.CancelledError:
            return "cancelled"


@pytest.mark.parametrize(
    "how, markers",
    [
        (ActivityCancellationType.TRY_CANCEL, 0),
        (ActivityCancellationType.WAIT_CANCELLATION_COMPLETED, 1),
    ],
)
async def test_local_activity_is_cancelled_by_its_code(
    client: Client, queue: str, how: ActivityCancellationType, markers: int
) -> None:
    STOPPED.clear()
    id_ = new_id()
    async with Worker(client, task_queue=queue, workflows=[Cancels], activities=[until_stopped]):
        result = await client.execute_workflow(Cancels.run, how, id=id_, task_queue=queue)
        await wait_until(lambda: bool(STOPPED), what="the activity to stop")
    assert result == "cancelled"
    assert STOPPED == ["CancelReason.REQUESTED"]
    history = await history_of(client, id_)
    assert types(history.events).count("MARKER_RECORDED") == markers
    Replayer(workflows=[Cancels]).replay(history)


async def test_terminated_run_stops_its_local_activities(client: Client, queue: str) -> None:
    STOPPED.clear()
    async with Worker(client, task_queue=queue, workflows=[Cancels], activities=[until_stopped]):
        handle = await client.start_workflow(
            Cancels.run,
            ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            id=new_id(),
            task_queue=queue,
        )
        await wait_until(lambda: bool(CALLS), what="the activity to begin")
        await handle.terminate()
        await wait_until(lambda: bool(STOPPED), what="the activity to stop")


async def test_worker_that_shuts_down_hands_its_run_on(client: Client, queue: str) -> None:
    STOPPED.clear()
    handle = await client.start_workflow(Chain.run, 1, id=new_id(), task_queue=queue)
    async with Worker(client, task_queue=queue, workflows=[Chain], activities=ACTIVITIES):
        await handle.result()
    slow = await client.start_workflow(Slow.run, 0.7, id=new_id(), task_queue=queue)
    CALLS.clear()
    async with Worker(client, task_queue=queue, workflows=[Slow], activities=ACTIVITIES):
        await wait_until(lambda: bool(CALLS), what="the activity to begin")
    # It has ended within the grace, and its result is kept.
    began = time.monotonic()
    async with Worker(client, task_queue=queue, workflows=[Slow], activities=ACTIVITIES):
        assert await slow.result() == "paused 0.7"
    assert time.monotonic() - began < 5
    assert CALLS == ["pause 0.7"]


async def test_worker_that_cannot_wait_leaves_the_activity_to_another(
    client: Client, queue: str
) -> None:
    slow = await client.start_workflow(Slow.run, 3.0, id=new_id(), task_queue=queue)
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Slow],
        activities=ACTIVITIES,
        graceful_shutdown_timeout=timedelta(0),
    ):
        await wait_until(lambda: bool(CALLS), what="the activity to begin")
    began = time.monotonic()
    async with Worker(client, task_queue=queue, workflows=[Slow], activities=ACTIVITIES):
        await wait_until(lambda: len(CALLS) == 2, what="the activity to begin again")
        # Not by the timeout of the task.
        assert time.monotonic() - began < 8
        assert await slow.result() == "paused 3.0"


async def test_activity_that_the_worker_does_not_have_fails_the_task(
    client: Client, queue: str
) -> None:
    handle = await client.start_workflow(Chain.run, 1, id=new_id(), task_queue=queue)
    async with Worker(client, task_queue=queue, workflows=[Chain], activities=[double]):

        async def is_told() -> bool:
            pending = (await handle.describe()).pending_workflow_task
            return pending is not None and "local activity types ['add_one']" in str(pending)

        await wait_until(is_told, what="the failure")
    async with Worker(client, task_queue=queue, workflows=[Chain], activities=ACTIVITIES):
        assert await handle.result() == 1


@workflow.defn
class Crowded:
    @workflow.run
    async def run(self) -> list[str]:
        first = workflow.start_local_activity(pause, 0.5, start_to_close_timeout=LONG)
        second = workflow.start_local_activity(
            pause,
            0.1,
            start_to_close_timeout=LONG,
            schedule_to_start_timeout=timedelta(seconds=0.1),
        )
        third = workflow.start_local_activity(pause, 0.2, start_to_close_timeout=LONG)
        try:
            await second
        except ActivityError as error:
            return [str(error.__cause__), await first, await third]
        return []


async def test_worker_runs_so_many_at_a_time(client: Client, queue: str) -> None:
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Crowded],
        activities=ACTIVITIES,
        max_concurrent_local_activities=1,
    ):
        result = await client.execute_workflow(Crowded.run, id=new_id(), task_queue=queue)
    assert result == ["local activity SCHEDULE_TO_START timeout", "paused 0.5", "paused 0.2"]
    assert CALLS == ["pause 0.5", "pause 0.2"]


@activity.defn
async def lets_go() -> None:
    activity.raise_complete_async()


@workflow.defn
class LetsGo:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_local_activity(lets_go, start_to_close_timeout=LONG)


async def test_local_activity_cannot_be_completed_from_elsewhere(
    client: Client, queue: str
) -> None:
    async with Worker(client, task_queue=queue, workflows=[LetsGo], activities=[lets_go]):
        with pytest.raises(WorkflowFailedError) as caught:
            await client.execute_workflow(LetsGo.run, id=new_id(), task_queue=queue)
    error = caught.value.__cause__
    assert isinstance(error, ActivityError)
    assert isinstance(error.__cause__, ApplicationError)
    assert error.__cause__.type == "LocalActivity"
