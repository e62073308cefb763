"""Polls, against a server that answers as the test says."""

import asyncio
import logging
import os
import signal
from datetime import timedelta
from typing import Any

import grpc
import pytest

from aetheris.api.v1.error_details_pb2 import NamespaceNotFoundDetail
from aetheris.api.v1.worker_service_pb2 import (
    ActivityTask,
    PollActivityTasksRequest,
    PollActivityTasksResponse,
    PollWorkflowTasksRequest,
    PollWorkflowTasksResponse,
)
from aetheris_client import Client, channels
from aetheris_client.errors import NamespaceNotFoundError
from aetheris_worker import Worker, activity, run_until_signal, workflow
from aetheris_worker.activities.runner import ActivityRunner
from aetheris_worker.session import MAX_CALLS_IN_FLIGHT
from tests.support.canned_server import CannedServer, Refusal
from tests.support.connections import connection_count
from tests.support.wait import wait_until
from tests.unit.worker.task_server import TaskServer, value_of, working


@activity.defn
async def add(left: int, right: int) -> int:
    return left + right


@workflow.defn
class Nothing:
    @workflow.run
    async def run(self) -> None: ...


async def test_polls_say_who_asks_for_what() -> None:
    server = TaskServer()
    async with working(
        server,
        workflows=[Nothing],
        activities=[add],
        namespace="space",
        identity="me",
        capabilities=["b", "a", "b"],
        max_concurrent_activities=7,
        max_concurrent_workflow_tasks=5,
    ) as worker:
        await wait_until(lambda: len(server.canned.requests) == 2)
    workflow_poll = server.canned.requests_of(PollWorkflowTasksRequest)[0]
    assert workflow_poll.namespace == "space"
    assert workflow_poll.task_queue == "queue"
    assert workflow_poll.sticky_task_queue == worker.config.sticky_task_queue
    assert workflow_poll.capabilities == ["a", "b"]
    assert workflow_poll.identity == "me"
    assert workflow_poll.max_tasks == 5
    activity_poll = server.canned.requests_of(PollActivityTasksRequest)[0]
    assert activity_poll.worker_instance_id == workflow_poll.worker_instance_id
    assert activity_poll.max_tasks == 4


async def test_worker_without_workflows_polls_for_none() -> None:
    server = TaskServer()
    async with working(server, activities=[add]):
        server.add_activity("add", 1, 2)
        await server.wait_answer()
    assert not server.canned.requests_of(PollWorkflowTasksRequest)


async def test_worker_without_a_free_slot_does_not_poll() -> None:
    server = TaskServer()
    release = asyncio.Event()

    @activity.defn
    async def hold() -> None:
        await release.wait()

    server.add_activity("hold")
    async with working(server, activities=[hold], max_concurrent_activities=1):
        await wait_until(server.activity_polls.empty)
        await asyncio.sleep(0)
        assert len(server.canned.requests_of(PollActivityTasksRequest)) == 1
        release.set()
        await server.wait_answer()
        await wait_until(lambda: len(server.canned.requests_of(PollActivityTasksRequest)) == 2)


async def test_first_poll_that_is_refused_ends_the_worker_with_the_reason() -> None:
    server = CannedServer()
    detail = NamespaceNotFoundDetail(namespace="nowhere")
    server.on("PollActivityTasks", Refusal(grpc.StatusCode.NOT_FOUND, "no", detail))
    async with server:
        worker = Worker(server.address, task_queue="queue", activities=[add], namespace="nowhere")
        with pytest.raises(NamespaceNotFoundError):
            await asyncio.wait_for(worker.run(), 10)


async def test_worker_that_fails_ends_the_body_of_its_block() -> None:
    server = CannedServer()
    server.on("PollActivityTasks", Refusal(grpc.StatusCode.PERMISSION_DENIED, "not you"))
    async with server:
        with pytest.raises(Exception, match="not you"):
            async with Worker(server.address, task_queue="queue", activities=[add]):
                await asyncio.sleep(60)
    own_task = asyncio.current_task()
    assert own_task is not None
    assert own_task.cancelling() == 0


async def test_polls_that_fail_are_repeated_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = TaskServer()
    refusal = Refusal(grpc.StatusCode.UNAVAILABLE, "restarting")
    answer: Any = server._poll_activity_tasks
    server.canned.on("PollActivityTasks", refusal, refusal, refusal, answer)
    server.add_activity("add", 1, 2)
    with caplog.at_level(logging.INFO, "aetheris.worker"):
        async with working(server, activities=[add]):
            completed = (await server.wait_answer()).activity_task_completed
    assert value_of(completed.result) == 3
    # The first line says what the worker is.
    assert [record.getMessage() for record in caplog.records][1:] == [
        "activity polls fail, trying on: UNAVAILABLE: restarting",
        "activity polls succeed again",
    ]


async def test_refusal_after_the_first_poll_is_only_a_failure_like_others() -> None:
    server = TaskServer()
    answer: Any = server._poll_activity_tasks
    server.canned.on(
        "PollActivityTasks",
        PollActivityTasksResponse(),
        Refusal(grpc.StatusCode.NOT_FOUND),
        answer,
    )
    server.add_activity("add", 1, 2)
    async with working(server, activities=[add]):
        await server.wait_answer()


async def test_tasks_that_have_arrived_when_the_worker_stops_are_still_done() -> None:
    server = TaskServer()
    worker: Worker | None = None

    async def answer_and_stop(_: PollActivityTasksRequest) -> PollActivityTasksResponse:
        response = server.activity_polls.get_nowait()
        assert worker is not None
        # The response and the end of the worker meet.
        asyncio.get_running_loop().call_soon(worker._shutdown_requested.set)
        return response

    server.canned.on("PollActivityTasks", answer_and_stop)
    server.canned.on("PollWorkflowTasks", PollWorkflowTasksResponse())
    server.add_activity("add", 1, 2)
    async with server.canned:
        worker = Worker(server.canned.address, task_queue="queue", activities=[add])
        await asyncio.wait_for(worker.run(), 10)
    # Whether the tasks were in time depends on the network; what was taken must be answered.
    assert len(server.answers) <= 1


async def test_signal_shuts_all_workers_down() -> None:
    server = TaskServer()
    started = asyncio.Event()

    @activity.defn
    async def hold() -> str:
        started.set()
        await activity.wait_for_cancelled()
        return "never"

    server.add_activity("hold")
    async with server.canned:
        workers = [
            Worker(
                server.canned.address,
                task_queue="queue",
                activities=[hold],
                graceful_shutdown_timeout=timedelta(0),
            )
            for _ in range(2)
        ]
        running = asyncio.create_task(run_until_signal(*workers, signals=[signal.SIGUSR1]))
        await started.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(running, 10)
    assert server.answers[-1].HasField("activity_task_failed")
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


async def test_worker_runs_only_once() -> None:
    server = TaskServer()
    async with working(server, activities=[add]) as worker:
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="runs only once"):
            await worker.run()


async def test_task_whose_handler_raises_does_not_end_the_polls(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = TaskServer()
    start = ActivityRunner.start
    errors: list[BaseException] = [KeyError("broken"), asyncio.CancelledError()]

    def start_or_fail(runner: ActivityRunner, task: ActivityTask) -> None:
        if errors:
            raise errors.pop()
        start(runner, task)

    monkeypatch.setattr(ActivityRunner, "start", start_or_fail)
    for _ in range(3):
        server.add_activity("add", 1, 2)
    async with working(server, activities=[add], max_concurrent_activities=1):
        completed = (await server.wait_answer()).activity_task_completed
    assert value_of(completed.result) == 3
    assert caplog.text.count("task of the activity poll could not be handled") == 2


async def test_poll_that_is_cancelled_by_nobody_is_an_error() -> None:
    server = TaskServer()
    async with server.canned:
        client = await Client.connect(server.canned.address)
        worker = Worker(client, task_queue="queue", activities=[add])
        running = asyncio.create_task(worker.run())
        await wait_until(lambda: len(server.canned.requests) == 1)
        await client.close()
        with pytest.raises(RuntimeError, match="the connection was closed"):
            await asyncio.wait_for(running, 10)


async def test_workers_that_share_a_client_have_room_for_their_own_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "CALLS_PER_CHANNEL", MAX_CALLS_IN_FLIGHT)
    monkeypatch.setattr(channels, "IDLE_TIMEOUT", 0.1)
    server = TaskServer()
    async with server.canned, await Client.connect(server.canned.address) as client:
        port = server.canned.port
        options: dict[str, Any] = {"task_queue": "queue", "activities": [add]}
        async with Worker(client, **options):
            async with Worker(client, **options):
                await wait_until(lambda: connection_count(port) == 3, what="a channel for each")
            await wait_until(lambda: connection_count(port) == 2, what="the second one's end")
