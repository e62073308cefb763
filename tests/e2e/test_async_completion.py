"""Activities that are answered from elsewhere than their worker: by token, and by id."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from datetime import timedelta

import grpc
import pytest

from aetheris.api.v1 import worker_service_pb2 as worker_pb
from aetheris.api.v1.error_details_pb2 import TaskNotFoundDetail
from aetheris_client import Client, WorkflowHandle
from aetheris_client.errors import (
    ActivityError,
    ApplicationError,
    CancelledError,
    InvalidArgumentError,
    TaskNotFoundError,
    WorkflowNotFoundError,
)
from aetheris_worker import RetryPolicy, Worker, activity, workflow
from aetheris_worker.workflow import ActivityCancellationType
from tests.support.processes import ServerProcess
from tests.support.raw import Raw, code_of, detail_of, schedule_activity
from tests.support.wait import wait_until

LONG = timedelta(seconds=30)
LOOPS: list[asyncio.AbstractEventLoop] = []
# Of the test that runs: a queue belongs to one event loop.
QUEUES: "list[asyncio.Queue[activity.ActivityInfo]]" = []


async def next_info() -> activity.ActivityInfo:
    """Of the next attempt that lets go."""
    return await QUEUES[-1].get()


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as client:
        yield client


@activity.defn
async def elsewhere() -> str:
    QUEUES[-1].put_nowait(activity.info())
    activity.raise_complete_async()


@activity.defn
def elsewhere_in_thread() -> str:
    loop, queue = LOOPS[-1], QUEUES[-1]
    loop.call_soon_threadsafe(queue.put_nowait, activity.info())
    activity.raise_complete_async()


@workflow.defn
class Waits:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(
            name,
            activity_id="answer",
            start_to_close_timeout=LONG,
            heartbeat_timeout=LONG,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=10)),
            result_type=str,
        )


@pytest.fixture
async def run(client: Client) -> AsyncGenerator[WorkflowHandle[str]]:
    """A run whose activity is answered from elsewhere, and its worker, with one place."""
    QUEUES.append(asyncio.Queue())
    LOOPS.append(asyncio.get_running_loop())
    queue = f"async-{uuid.uuid4()}"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Waits],
        activities=[elsewhere, elsewhere_in_thread],
        max_concurrent_activities=1,
    ):
        yield await client.start_workflow(Waits.run, "elsewhere", id=queue, task_queue=queue)


async def test_activity_is_completed_by_its_token(client: Client, run: WorkflowHandle[str]) -> None:
    info = await next_info()
    handle = client.get_async_activity_handle(task_token=info.task_token)
    await handle.heartbeat("half")
    await handle.complete("by token")
    assert await run.result() == "by token"
    with pytest.raises(TaskNotFoundError):
        await handle.complete("again")


async def test_activity_is_completed_by_its_id(client: Client, run: WorkflowHandle[str]) -> None:
    await next_info()
    handle = client.get_async_activity_handle(
        workflow_id=run.id, run_id=run.run_id, activity_id="answer"
    )
    await handle.complete("by id")
    assert await run.result() == "by id"
    with pytest.raises(TaskNotFoundError, match="the run has closed"):
        await handle.heartbeat()


async def test_worker_has_its_place_free(client: Client, run: WorkflowHandle[str]) -> None:
    first = await next_info()
    # The worker has one place, and the first attempt is open.
    queue = run.id
    other = await client.start_workflow(
        Waits.run, "elsewhere_in_thread", id=f"{queue}-2", task_queue=queue
    )
    second = await next_info()
    for info in (second, first):
        await client.get_async_activity_handle(task_token=info.task_token).complete(
            info.workflow_id
        )
    assert await run.result() == run.id
    assert await other.result() == other.id


async def test_failure_leads_to_another_attempt_that_has_the_details(
    client: Client, run: WorkflowHandle[str]
) -> None:
    first = await next_info()
    handle = client.get_async_activity_handle(task_token=first.task_token)
    await handle.fail(ApplicationError("not so", type="Wrong"), "page 7")
    second = await next_info()
    assert second.attempt == 2
    assert second.heartbeat_details == ("page 7",)
    # By its token it is the first attempt still; by its id the one that there is now.
    with pytest.raises(TaskNotFoundError, match="attempt 1 is over"):
        await handle.complete("late")
    by_id = client.get_async_activity_handle(workflow_id=run.id, activity_id="answer")
    await by_id.fail(ApplicationError("never", type="Wrong", non_retryable=True))
    with pytest.raises(Exception, match="failed") as caught:
        await run.result()
    assert isinstance(caught.value.__cause__, ActivityError)


async def test_activity_is_told_to_cancel_by_its_heartbeat(
    client: Client, run: WorkflowHandle[str]
) -> None:
    await next_info()
    handle = client.get_async_activity_handle(workflow_id=run.id, activity_id="answer")
    with pytest.raises(InvalidArgumentError):
        await handle.report_cancellation()
    await run.cancel()

    async def is_told() -> bool:
        try:
            await handle.heartbeat()
        except CancelledError:
            return True
        return False

    await wait_until(is_told, what="the request to cancel")
    await handle.report_cancellation("cleaned up")
    with pytest.raises(Exception, match="cancelled"):
        await run.result()


async def test_unknown_run_and_activity_are_told(client: Client, run: WorkflowHandle[str]) -> None:
    info = await next_info()
    with pytest.raises(WorkflowNotFoundError):
        await client.get_async_activity_handle(workflow_id="nobody", activity_id="a").complete()
    with pytest.raises(TaskNotFoundError, match="no open activity has the id 'other'"):
        await client.get_async_activity_handle(workflow_id=run.id, activity_id="other").complete()
    await client.get_async_activity_handle(task_token=info.task_token).complete("done")
    assert await run.result() == "done"


@pytest.mark.parametrize(
    "named, message",
    [
        ({}, "expected task_token, or workflow_id and activity_id"),
        ({"workflow_id": "w"}, "expected task_token, or workflow_id and activity_id"),
        ({"task_token": b"t", "workflow_id": "w"}, "not both"),
    ],
)
async def test_handle_is_named_in_one_way(
    client: Client, named: dict[str, str], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        client.get_async_activity_handle(**named)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "reference, field",
    [
        (worker_pb.ActivityReference(activity_id="a"), "activity.workflow_id"),
        (worker_pb.ActivityReference(workflow_id="w"), "activity.activity_id"),
        (
            worker_pb.ActivityReference(workflow_id="w", run_id="x", activity_id="a"),
            "activity.run_id",
        ),
    ],
)
async def test_bad_reference_is_refused_by_field(
    server: Raw, reference: worker_pb.ActivityReference, field: str
) -> None:
    request = worker_pb.RespondActivityTaskCompletedRequest(namespace="default", activity=reference)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.workers.RespondActivityTaskCompleted(request)
    assert code_of(caught.value) == grpc.StatusCode.INVALID_ARGUMENT
    assert field in (caught.value.details() or "")


async def test_activity_that_nobody_has_taken_is_completed_by_its_id(server: Raw) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity("a"))
    reference = worker_pb.ActivityReference(workflow_id=run.workflow_id, activity_id="a")
    request = worker_pb.RespondActivityTaskCompletedRequest(
        namespace="default", activity=reference, identity="somebody"
    )
    await server.workers.RespondActivityTaskCompleted(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.workers.RespondActivityTaskCompleted(request)
    assert code_of(caught.value) == grpc.StatusCode.NOT_FOUND
    assert detail_of(caught.value, TaskNotFoundDetail.DESCRIPTOR.name) is not None
    events = (await server.poll_workflow()).history.events
    (started,) = [e for e in events if e.HasField("activity_task_started_event_attributes")]
    assert started.activity_task_started_event_attributes.identity == "somebody"
