"""What a worker says of itself, and how it ends."""

import asyncio
import logging
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from aetheris.api.v1.worker_service_pb2 import (
    PollActivityTasksRequest,
    ShutdownWorkerRequest,
)
from aetheris_worker import Worker, activity, workflow
from aetheris_worker.activities import saturation
from aetheris_worker.activities.threads import ActivityThreads
from aetheris_worker.session import CANCEL_GRACE
from tests.support.wait import wait_until
from tests.unit.worker.task_server import TaskServer, working

ROOT = Path(__file__).parents[3]
MARGIN = 5.0


@activity.defn
async def nothing() -> None: ...


@activity.defn
def plain() -> None: ...


@workflow.defn
class Idle:
    @workflow.run
    async def run(self) -> None: ...


async def test_process_ends_on_sigterm_though_a_thread_activity_hangs() -> None:
    server = TaskServer()
    server.add_activity("blocks")
    async with server.canned:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.unit.worker.blocking_worker", server.canned.address),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"blocking\n"
            process.terminate()
            async with asyncio.timeout(0.2 + CANCEL_GRACE + MARGIN):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, said.decode()
    assert "given up at shutdown: blocks of workflow 'w', whose thread goes on" in said.decode()
    failure = server.answers[0].activity_task_failed.failure
    assert failure.application_failure_info.type == "WorkerShutdown"


async def test_worker_says_at_start_who_it_is_and_what_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = TaskServer()
    with caplog.at_level(logging.INFO):
        async with working(
            server, workflows=[Idle], activities=[nothing], capabilities=["gpu"], identity="me"
        ):
            pass
    (line,) = [record for record in caplog.records if record.message.startswith("worker me")]
    assert line.levelno == logging.INFO
    assert line.message == (
        f"worker me of {server.canned.address}: namespace 'default', task queue 'queue', "
        "workflows ['Idle'], activities ['nothing'], capabilities ['gpu']"
    )


async def test_pool_with_fewer_threads_than_slots_is_said_at_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ThreadPoolExecutor(2) as pool:
        async with working(TaskServer(), activities=[nothing, plain], activity_executor=pool):
            pass
    assert "activity_executor has 2 threads and max_concurrent_activities is 100" in caplog.text
    assert caplog.text.rstrip().endswith("their timeouts run: plain")


async def test_hung_activities_that_hold_all_slots_are_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(saturation, "LIMIT", 0.2)
    gate = threading.Event()

    @activity.defn
    def hangs() -> None:
        gate.wait(30)

    server = TaskServer()
    server.add_activity("hangs", scheduled_event_id=5)
    server.add_activity("hangs", scheduled_event_id=6)
    async with working(server, activities=[hangs], max_concurrent_activities=2):
        try:
            await wait_until(lambda: "slots have been taken" in caplog.text)
        finally:
            gate.set()
        await server.wait_answer(2)
    assert caplog.text.count("slots have been taken") == 1
    assert "They are taken by: hangs (2)" in caplog.text


async def test_worker_that_ends_says_so_with_the_last_polls_whose_answers_came() -> None:
    server = TaskServer()
    server.add_activity("nothing", scheduled_event_id=5)
    server.add_activity("nothing", scheduled_event_id=6)
    async with working(server, activities=[nothing]) as worker:
        await server.wait_answer(2)
        await wait_until(lambda: len(server.canned.requests_of(PollActivityTasksRequest)) == 3)
        polls = server.canned.requests_of(PollActivityTasksRequest)
    assert [(poll.poll_number, poll.received_poll_number) for poll in polls] == [
        (1, 0),
        (2, 1),
        (3, 2),
    ]
    (goodbye,) = server.canned.requests_of(ShutdownWorkerRequest)
    assert goodbye.worker_instance_id == worker.config.instance_id == polls[0].worker_instance_id
    assert (goodbye.received_activity_poll_number, goodbye.received_workflow_poll_number) == (2, 0)
    assert goodbye.sticky_task_queue == worker.config.sticky_task_queue


def test_activity_threads_are_as_many_as_are_needed_and_no_more() -> None:
    threads: Executor = ActivityThreads(2)
    gate = threading.Event()
    held = [threads.submit(gate.wait, 30) for _ in range(3)]
    assert not any(future.done() for future in held)
    gate.set()
    assert [future.result(10) for future in held] == [True, True, True]
    names = {threads.submit(lambda: threading.current_thread().name).result(10) for _ in range(5)}
    assert names <= {"aetheris-activity-1", "aetheris-activity-2"}

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        threads.submit(fail).result(10)
    threads.shutdown()
    with pytest.raises(RuntimeError):
        threads.submit(gate.wait)


class Stays:
    """An activity that swallows its cancellation until it is let go."""

    def __init__(self) -> None:
        self.is_running = asyncio.Event()
        self.let_go = asyncio.Event()

    @activity.defn
    async def stays(self) -> None:
        self.is_running.set()
        while not self.let_go.is_set():
            with suppress(asyncio.CancelledError):
                await self.let_go.wait()


def own_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("aetheris")]


async def test_worker_that_is_cancelled_twice_leaves_no_thread_of_its_own() -> None:
    server, stubborn = TaskServer(), Stays()
    server.add_activity("stays")
    async with server.canned:
        worker = Worker(server.canned.address, task_queue="queue", activities=[stubborn.stays])
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(stubborn.is_running.wait(), MARGIN)
        running.cancel()
        # It waits for the activity now, which it has cancelled too.
        await asyncio.wait([running], timeout=0.5)
        assert not running.done()
        running.cancel()
        await asyncio.wait([running], timeout=MARGIN)
        stubborn.let_go.set()
        assert running.done()
        await wait_until(lambda: not own_threads(), what="the end of all threads")
