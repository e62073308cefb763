"""Workers of several builds: who gets whose workflow tasks, when runs are pinned or moved, and when
the build that a task queue prefers is changed.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import common_pb2, worker_service_pb2
from aetheris.api.v1.history_pb2 import HistoryEvent, UpdateRequest
from aetheris.api.v1.operator_service_pb2 import UpdateTaskQueueRequest
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY
from aetheris.api.v1.workflow_pb2 import UPDATE_STAGE_COMPLETED
from aetheris.api.v1.workflow_service_pb2 import (
    UpdateWorkflowOptionsRequest,
    UpdateWorkflowRequest,
)
from aetheris_client import Client
from aetheris_client.errors import InvalidArgumentError, WorkflowClosedError
from aetheris_worker import Worker, activity, workflow
from tests.support.processes import ServerProcess, Stopwatch
from tests.support.raw import (
    Raw,
    complete_workflow,
    detail_of,
    schedule_activity,
    start_timer,
    types,
)
from tests.support.wait import wait_until

# What nobody should get is waited for this long.
_MOMENT = 0.4


async def polls_nothing(server: Raw, build_id: str, **fields: Any) -> bool:
    """Whether a worker of a build, or of none, gets no workflow task."""
    return not await server.poll_workflows(_MOMENT, worker_version=build_id, **fields)


def poll(
    server: Raw, build_id: str, **fields: Any
) -> "asyncio.Task[worker_service_pb2.WorkflowTask]":
    """A poll of a worker of a build, which waits."""
    return asyncio.create_task(server.poll_workflow(worker_version=build_id, **fields))


async def wait_for_poll(server: Raw, build_id: str) -> None:
    """Until a worker of a build has a poll waiting."""

    async def waits() -> bool:
        pollers = (await server.describe_queue()).pollers
        return any(p.worker_version == build_id and p.waiting_poll_count for p in pollers)

    await wait_until(waits, 5, f"a poll of build {build_id}")


def builds(events: list[HistoryEvent]) -> list[str]:
    """Of the workflow tasks that were completed."""
    return [
        event.workflow_task_completed_event_attributes.worker_version
        for event in events
        if event.HasField("workflow_task_completed_event_attributes")
    ]


async def test_pinned_run_goes_to_workers_of_its_build_alone(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    assert await polls_nothing(server, "b2")
    assert await polls_nothing(server, "")
    task = await server.poll_workflow(worker_version="b1")
    await server.decide(task, complete_workflow(), worker_version="b1", workflow_version="v7")
    events = await server.history(run)
    assert types(events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    assert events[0].workflow_execution_started_event_attributes.pinned_build_id == "b1"
    completed = events[3].workflow_task_completed_event_attributes
    assert (completed.worker_version, completed.workflow_version) == ("b1", "v7")


async def test_run_that_is_not_pinned_goes_to_workers_of_any_build(server: Raw) -> None:
    for build_id in ("b1", ""):
        run = await server.start_run()
        task = await server.poll_workflow(worker_version=build_id)
        assert task.workflow_execution == run
        await server.decide(task, complete_workflow(), worker_version=build_id)


async def test_run_that_is_moved_while_its_task_waits_goes_to_the_other_build(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    assert await server.pin(run, "b2", reason="b1 is wrong", identity="ann") == "b2"
    assert await polls_nothing(server, "b1")
    task = await server.poll_workflow(worker_version="b2")
    await server.decide(task, complete_workflow(), worker_version="b2")
    events = await server.history(run)
    assert types(events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_OPTIONS_UPDATED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    updated = events[2].workflow_execution_options_updated_event_attributes
    assert (updated.pinned_build_id, updated.reason) == ("b2", "b1 is wrong")
    assert updated.identity == "ann"


async def test_poll_that_waits_gets_the_run_that_is_moved_to_its_build(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    waiting = poll(server, "b2")
    await wait_for_poll(server, "b2")
    await server.pin(run, "b2")
    assert (await waiting).workflow_execution == run


async def test_run_that_is_unpinned_goes_to_any_worker(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    assert await server.pin(run, "") == ""
    assert (await server.poll_workflow()).workflow_execution == run


async def test_run_that_is_moved_while_a_worker_decides_goes_on_at_the_other_build(
    server: Raw,
) -> None:
    run = await server.start_run(pinned_build_id="b1")
    task = await server.poll_workflow(worker_version="b1", sticky="s1")
    await server.pin(run, "b2")
    answer = await server.decide(
        task,
        worker_version="b1",
        sticky="s1",
        return_new_workflow_task=True,
        force_create_new_workflow_task=True,
    )
    assert not answer.HasField("workflow_task"), "it went along to the old build"
    assert await polls_nothing(server, "b1", sticky="s1")
    task = await server.poll_workflow(worker_version="b2")
    await server.decide(task, complete_workflow(), worker_version="b2")
    events = await server.history(run)
    assert types(events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_OPTIONS_UPDATED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    assert builds(events) == ["b1", "b2"]


async def test_run_whose_task_failed_is_tried_at_once_by_the_build_that_it_is_moved_to(
    server: Raw,
) -> None:
    run = await server.start_run(pinned_build_id="b1")
    for _ in range(3):
        await server.fail_decision(await server.poll_workflow(worker_version="b1"))
    watch = Stopwatch()
    await server.pin(run, "b2")
    task = await server.poll_workflow(worker_version="b2")
    assert watch.seconds < 1, "it backed off all the same"
    await server.decide(task, complete_workflow(), worker_version="b2")
    assert types(await server.history(run)) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_OPTIONS_UPDATED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]


async def test_default_build_gets_what_waits_already_and_what_comes(server: Raw) -> None:
    first = await server.start_run()
    assert await server.prefer("b2") == "b2"
    assert await polls_nothing(server, "b1")
    assert await polls_nothing(server, "")
    task = await server.poll_workflow(worker_version="b2")
    assert task.workflow_execution == first
    waiting = poll(server, "b1")
    await wait_for_poll(server, "b1")
    second = await server.start_run()
    third = await server.start_run(pinned_build_id="b1")
    assert (await waiting).workflow_execution == third
    task = await server.poll_workflow(worker_version="b2")
    assert task.workflow_execution == second


async def test_default_that_is_changed_wakes_polls_for_what_waits(server: Raw) -> None:
    await server.prefer("b1")
    run = await server.start_run()
    waiting = poll(server, "b2")
    await wait_for_poll(server, "b2")
    await server.prefer("b2")
    assert (await waiting).workflow_execution == run
    run = await server.start_run()
    waiting = poll(server, "")
    await wait_for_poll(server, "")
    assert await server.prefer("") == ""
    assert (await waiting).workflow_execution == run


async def test_sticky_worker_of_an_old_build_does_not_hold_a_run(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow(worker_version="b1", sticky="s1")
    await server.decide(task, start_timer("t", 0.2), worker_version="b1", sticky="s1")
    waiting = poll(server, "b1", sticky="s1", wait=3)
    await wait_for_poll(server, "b1")
    await server.prefer("b2")
    watch = Stopwatch()
    task = await server.poll_workflow(worker_version="b2")
    assert watch.seconds < 2, "it was kept for the worker that had it cached"
    assert task.workflow_execution == run
    assert types(task.history.events)[0] == "WORKFLOW_EXECUTION_STARTED"
    assert not waiting.done()
    await server.decide(task, complete_workflow(), worker_version="b2")
    with pytest.raises(AssertionError, match="no workflow task"):
        await waiting
    assert builds(await server.history(run)) == ["b1", "b2"]


async def test_result_of_an_activity_takes_no_task_along_to_an_old_build(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow(worker_version="b1", sticky="s1")
    await server.decide(task, schedule_activity(), worker_version="b1", sticky="s1")
    activity_task = await server.poll_activity()
    await server.prefer("b2")
    answer = await server.complete_activity(activity_task, sticky_task_queue="s1")
    assert not answer.HasField("workflow_task")
    task = await server.poll_workflow(worker_version="b2")
    assert task.workflow_execution == run


async def test_result_of_an_activity_takes_a_task_along_where_the_build_may_have_it(
    server: Raw,
) -> None:
    await server.prefer("b1")
    await server.start_run()
    task = await server.poll_workflow(worker_version="b1", sticky="s1")
    await server.decide(task, schedule_activity(), worker_version="b1", sticky="s1")
    answer = await server.complete_activity(await server.poll_activity(), sticky_task_queue="s1")
    assert answer.HasField("workflow_task")


async def test_activities_go_to_workers_of_any_build(server: Raw) -> None:
    await server.prefer("b2")
    run = await server.start_run(pinned_build_id="b1")
    task = await server.poll_workflow(worker_version="b1")
    await server.decide(task, schedule_activity(), worker_version="b1")
    activity_task = await server.poll_activity(worker_version="b3")
    await server.complete_activity(activity_task)
    events = await server.history(run)
    (started,) = [e for e in events if e.HasField("activity_task_started_event_attributes")]
    assert started.activity_task_started_event_attributes.worker_version == "b3"


async def test_query_is_asked_of_the_build_that_the_run_is_pinned_to(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    await server.decide(await server.poll_workflow(worker_version="b1"), worker_version="b1")
    asking = asyncio.create_task(server.query(run))
    assert await polls_nothing(server, "b2")
    task = await server.poll_workflow(worker_version="b1")
    assert task.HasField("query")
    answered = worker_service_pb2.QUERY_RESULT_TYPE_ANSWERED
    await server.answer_query(task, worker_service_pb2.WorkflowQueryResult(result_type=answered))
    await asking


async def test_query_that_waits_follows_the_run_that_is_moved(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    await server.decide(await server.poll_workflow(worker_version="b1"), worker_version="b1")
    asking = asyncio.create_task(server.query(run))
    assert await polls_nothing(server, "b2")
    await server.pin(run, "b2")
    task = await server.poll_workflow(worker_version="b2")
    assert task.HasField("query")
    answered = worker_service_pb2.QUERY_RESULT_TYPE_ANSWERED
    await server.answer_query(task, worker_service_pb2.WorkflowQueryResult(result_type=answered))
    await asking


async def test_update_that_waits_follows_the_run_that_is_moved(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    await server.decide(await server.poll_workflow(worker_version="b1"), worker_version="b1")
    asking = server.workflows.UpdateWorkflow(
        UpdateWorkflowRequest(
            namespace="default",
            workflow_execution=run,
            request=UpdateRequest(update_id="u", name="change"),
            wait_stage=UPDATE_STAGE_COMPLETED,
        )
    )
    assert await polls_nothing(server, "b2")
    await server.pin(run, "b2")
    task = await server.poll_workflow(worker_version="b2")
    assert [update.update_id for update in task.updates] == ["u"]
    await server.decide(task, worker_version="b2")
    assert (await asking).HasField("outcome")


async def test_task_of_a_build_that_is_gone_waits_and_describe_says_so(server: Raw) -> None:
    await server.prefer("b2")
    run = await server.start_run(pinned_build_id="b1")
    await server.start_run()
    assert await polls_nothing(server, "b3", identity="ann", capabilities=["gpu"])
    described = await server.describe(run)
    assert described.pinned_build_id == "b1"
    assert described.HasField("pending_workflow_task")

    async def find_backlog() -> Any:
        queue = await server.describe_queue()
        return queue if sum(backlog.backlog_count for backlog in queue.backlogs) == 2 else None

    queue = await wait_until(find_backlog, 5, "both tasks in the backlog")
    assert queue.default_build_id == "b2"
    assert [
        (backlog.pinned_build_id, list(backlog.capabilities), backlog.backlog_count)
        for backlog in queue.backlogs
    ] == [("", [], 1), ("b1", [], 1)]
    (poller,) = queue.pollers
    assert (poller.identity, poller.worker_version) == ("ann", "b3")
    assert list(poller.capabilities) == ["gpu"]
    activity_side = await server.describe_queue(TASK_QUEUE_TYPE_ACTIVITY)
    assert activity_side.default_build_id == ""


async def test_requests_that_come_again_change_nothing(server: Raw) -> None:
    run = await server.start_run()
    await server.pin(run, "b1", request_id="one")
    await server.pin(run, "b2", request_id="two")
    assert await server.pin(run, "b1", request_id="one") == "b2"
    assert types(await server.history(run)).count("WORKFLOW_EXECUTION_OPTIONS_UPDATED") == 2
    await server.prefer("b1", request_id="one")
    await server.prefer("b2", request_id="two")
    assert await server.prefer("b1", request_id="one") == "b2"
    await server.terminate(run)
    assert await server.pin(run, "b2", request_id="two") == "b2"


async def test_pin_that_holds_already_writes_nothing(server: Raw) -> None:
    run = await server.start_run(pinned_build_id="b1")
    assert await server.pin(run, "b1") == "b1"
    assert "WORKFLOW_EXECUTION_OPTIONS_UPDATED" not in types(await server.history(run))


async def test_bad_requests_are_refused_by_field_and_leave_nothing(server: Raw) -> None:
    run = await server.start_run()
    before = types(await server.history(run))
    long = "b" * 1_001
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("pinned_build_id", lambda: server.start_run(pinned_build_id=long)),
        ("pinned_build_id", lambda: server.pin(run, long)),
        (
            "pinned_build_id",
            lambda: server.workflows.UpdateWorkflowOptions(
                UpdateWorkflowOptionsRequest(namespace="default", workflow_execution=run)
            ),
        ),
        ("default_build_id", lambda: server.prefer(long)),
        (
            "default_build_id",
            lambda: server.operators.UpdateTaskQueue(
                UpdateTaskQueueRequest(namespace="default", task_queue=server.queue)
            ),
        ),
        (
            "capabilities[0]",
            lambda: server.poll_workflow(wait=0.1, capabilities=["build-id:b1"]),
        ),
        ("worker_version", lambda: server.poll_workflow(wait=0.1, worker_version=long)),
    ]
    for field, call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call()
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert detail_of(caught.value, "BadRequestDetail").field == field
    assert types(await server.history(run)) == before
    assert (await server.describe_queue()).default_build_id == ""


async def test_command_that_requires_a_build_by_its_capability_is_refused(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.decide(task, schedule_activity(capabilities=["build-id:b1"]))
    assert detail_of(caught.value, "BadRequestDetail").field.startswith("commands[0]")
    assert types(await server.history(run))[-1] == "WORKFLOW_TASK_FAILED"


async def test_move_of_a_run_that_is_not_there_or_has_closed_is_refused(server: Raw) -> None:
    nobody = common_pb2.WorkflowExecution(workflow_id=f"w-{secrets.token_hex(8)}")
    run = await server.start_run()
    await server.terminate(run)
    for execution, detail in ((nobody, "WorkflowNotFoundDetail"), (run, "WorkflowClosedDetail")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.pin(execution, "b1")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        detail_of(caught.value, detail)


# With the worker SDK.


@activity.defn
async def step() -> None:
    pass


@workflow.defn(name="Builds", version="v1")
class Builds:
    """Which build ran each part of it."""

    def __init__(self) -> None:
        self.goes_on = False
        self.seen: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        self.seen.append(workflow.build_id())
        await workflow.execute_activity(step, start_to_close_timeout=timedelta(seconds=10))
        self.seen.append(workflow.build_id())
        await workflow.wait_condition(lambda: self.goes_on)
        return [*self.seen, workflow.build_id(), workflow.info().pinned_build_id or ""]

    @workflow.signal
    def go_on(self) -> None:
        self.goes_on = True


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as connected:
        yield connected


def new_worker(client: Client, queue: str, build_id: str | None) -> Worker:
    return Worker(
        client, task_queue=queue, workflows=[Builds], activities=[step], build_id=build_id
    )


async def test_run_is_moved_from_worker_to_worker_and_replays_which_build_did_what(
    client: Client, server: Raw
) -> None:
    async with new_worker(client, server.queue, "b1"), new_worker(client, server.queue, "b2"):
        handle = await client.start_workflow(
            Builds.run, id=f"w-{secrets.token_hex(6)}", task_queue=server.queue,
            pinned_build_id="b1",
        )  # fmt: skip

        async def has_acted() -> bool:
            events = [event async for event in handle.history()]
            return "ACTIVITY_TASK_COMPLETED" in types(events) and builds(events) == ["b1", "b1"]

        await wait_until(has_acted, 10, "the activity")
        await handle.update_options(pinned_build_id="b2", reason="to try it")
        assert (await handle.describe()).pinned_build_id == "b2"
        await handle.signal(Builds.go_on)
        assert await handle.result() == ["b1", "b1", "b2", "b1"]
    events = [event async for event in handle.history()]
    assert builds(events) == ["b1", "b1", "b2"]
    completed = [
        event.workflow_task_completed_event_attributes
        for event in events
        if event.HasField("workflow_task_completed_event_attributes")
    ]
    assert {each.workflow_version for each in completed} == {"v1"}
    (started,) = [e for e in events if e.HasField("activity_task_started_event_attributes")]
    assert started.activity_task_started_event_attributes.worker_version == "b1"


async def test_runs_go_to_the_new_worker_once_its_build_is_the_default(
    client: Client, server: Raw
) -> None:
    async with new_worker(client, server.queue, None), new_worker(client, server.queue, "b2"):
        await client.operator.update_task_queue(server.queue, default_build_id="b2")
        for _ in range(4):
            handle = await client.start_workflow(
                Builds.run, id=f"w-{secrets.token_hex(6)}", task_queue=server.queue
            )
            await handle.signal(Builds.go_on)
            assert await handle.result() == ["b2", "b2", "b2", ""]


async def test_errors_of_the_client_name_what_is_wrong(client: Client, server: Raw) -> None:
    handle = await client.start_workflow(
        "Builds", id=f"w-{secrets.token_hex(6)}", task_queue=server.queue
    )
    with pytest.raises(InvalidArgumentError, match="pinned_build_id"):
        await handle.update_options(pinned_build_id="b" * 1_001)
    await handle.terminate()
    with pytest.raises(WorkflowClosedError):
        await handle.update_options(pinned_build_id="b1")
    with pytest.raises(InvalidArgumentError, match="default_build_id"):
        await client.operator.update_task_queue(server.queue, default_build_id="b" * 1_001)
    with pytest.raises(TypeError, match="'build_id': expected"):
        Worker(client, task_queue="q", workflows=[Builds], build_id=3)  # pyright: ignore[reportArgumentType]
