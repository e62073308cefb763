"""Workflow code that blocks: its task fails, all others go on, and nothing grows without end."""

import asyncio
import gc
import io
import logging
import os
import pdb  # noqa: T100 - the debugger of the test
import sysconfig
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from aetheris.api.v1.worker_service_pb2 import TaskAnswer
from aetheris_worker import activity, session, workflow
from aetheris_worker.activities import watchdog
from aetheris_worker.runtime import call_site
from aetheris_worker.runtime.errors import DeadlockError, RunEvictedError
from aetheris_worker.workflow_tasks import threads
from aetheris_worker.workflow_tasks.deciding import Step
from aetheris_worker.workflow_tasks.lanes import RunLanes
from aetheris_worker.workflow_tasks.threads import WorkflowThreads
from tests.support.history_builder import HistoryBuilder
from tests.support.wait import wait_until
from tests.unit.worker.task_server import TaskServer, working

MINUTE = timedelta(minutes=1)


def never_ends() -> None:
    while True:
        pass


@workflow.defn
class Blocks:
    """In code of Python's own, or in C code, which nothing can stop but its gate."""

    gate: ClassVar[threading.Event] = threading.Event()

    @workflow.run
    async def run(self, how: str) -> None:
        if how == "python":
            never_ends()
        if how == "c":
            self.gate.wait(30)  # the user's line
        if how == "wait":
            await workflow.wait_condition(lambda: False)


@workflow.defn
class Catches:
    """Code that catches what takes it out of its thread, so many times."""

    is_over: ClassVar[bool] = False
    caught: ClassVar[int] = 0

    @workflow.run
    async def run(self, times: int) -> None:
        while Catches.caught < times and not Catches.is_over:
            try:
                spin_until_over()
            except RunEvictedError:
                Catches.caught += 1


def spin_until_over() -> None:
    """By itself: what is raised at the end of a loop passes a `try` around it in Python 3.13."""
    while not Catches.is_over:
        pass


@workflow.defn
class Quick:
    @workflow.run
    async def run(self) -> None: ...


@workflow.defn
class Follows:
    """Gives control back after every moment of work, if it can."""

    @workflow.signal
    def moment(self) -> None:
        spend_a_moment()

    @workflow.run
    async def run(self, count: int) -> None:
        async def turn() -> None:
            spend_a_moment()

        await asyncio.gather(*(turn() for _ in range(count)))


@workflow.defn
class WakesItself:
    @workflow.run
    async def run(self) -> None:
        async def turn() -> None:
            await asyncio.sleep(0)

        while True:
            await turn()


def spend_a_moment() -> None:
    with workflow.unsafe.sandbox_unrestricted():
        time.sleep(0.06)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LIMIT", 0.5)
    monkeypatch.setattr(threads, "RELIEF", 0.05)


def task_of(server: TaskServer, workflow_type: str, number: int, *arguments: Any) -> None:
    history = HistoryBuilder(workflow_type, *arguments, run_id=f"run-{number}")
    history.task_started()
    task = server.task_of(history)
    task.task_token = f"{workflow_type} {number}".encode()
    server.workflow_tasks.put_nowait(task)


def failure_message(answer: TaskAnswer) -> str:
    assert answer.HasField("workflow_task_failed"), answer
    return answer.workflow_task_failed.failure.message


@pytest.mark.parametrize("how", ["python", "c"])
async def test_code_that_blocks_fails_its_task_and_holds_up_no_other_run(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = TaskServer()
    Blocks.gate.clear()
    task_of(server, "Blocks", 1, how)
    for number in range(2, 6):
        task_of(server, "Quick", number)
    async with working(server, workflows=[Blocks, Quick]):
        try:
            await server.wait_answer(5)
        finally:
            Blocks.gate.set()
    # In any order: on a busy machine one of them may be slow enough to get a thread of its own.
    tokens = {answer.workflow_task_completed.task_token for answer in server.answers[:4]}
    assert tokens == {f"Quick {number}".encode() for number in range(2, 6)}
    message = failure_message(server.answers[4])
    assert message.startswith("potential deadlock: workflow code of Blocks 'w' has not given")
    place = message.splitlines()[1]
    assert __file__ in place
    assert ("the user's line" if how == "c" else "never_ends") in place
    assert "aetheris_worker" not in message.replace(__file__, "")
    assert message in caplog.text


@pytest.mark.parametrize("kind", ["signals", "turns"])
async def test_one_task_that_takes_long_and_gets_on_is_no_deadlock(kind: str) -> None:
    server = TaskServer()
    # In all 1.2 s, and the limit is 0.5.
    history = HistoryBuilder("Follows", 20 if kind == "turns" else 0)
    for _ in range(20 if kind == "signals" else 0):
        history.signaled("moment")
    history.task_started()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, workflows=[Follows]):
        answer = await server.wait_answer(1)
    assert answer.HasField("workflow_task_completed"), failure_message(answer)


async def test_code_that_only_wakes_itself_is_a_deadlock() -> None:
    server = TaskServer()
    task_of(server, "WakesItself", 1)
    task_of(server, "Quick", 2)
    async with working(server, workflows=[WakesItself, Quick]):
        assert (await server.wait_answer(1)).HasField("workflow_task_completed")
        assert "potential deadlock" in failure_message(await server.wait_answer(2))
        await wait_until(lambda: len(workflow_threads()) == 1, what="the stuck thread's end")


async def test_code_that_loops_for_ever_is_taken_out_of_its_thread() -> None:
    server = TaskServer()
    task_of(server, "Blocks", 1, "python")
    before = threading.active_count()
    async with working(server, workflows=[Blocks, Quick]):
        await server.wait_answer(1)
        running = workflow_threads
        await wait_until(lambda: len(running()) == 1, what="the stuck thread's end")
        # The next attempt is tried.
        task_of(server, "Blocks", 1, "python")
        assert "potential deadlock" in failure_message(await server.wait_answer(2))
    await wait_until(lambda: not workflow_threads(), what="the end of all threads")
    assert threading.active_count() <= before + 1


def workflow_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == threads.NAME]


async def test_run_that_hangs_takes_one_thread_however_often_it_is_tried() -> None:
    server = TaskServer()
    Blocks.gate.clear()
    async with working(server, workflows=[Blocks, Quick]):
        try:
            task_of(server, "Blocks", 1, "c")
            await server.wait_answer(1)
            for number in range(2, 5):
                task_of(server, "Blocks", 1, "c")
                message = failure_message(await server.wait_answer(number))
                assert "still blocks a thread" in message
            assert len(workflow_threads()) == 2
        finally:
            Blocks.gate.set()
        await wait_until(lambda: len(workflow_threads()) == 1, what="the stuck thread's end")
        task_of(server, "Blocks", 1, "c")
        assert (await server.wait_answer(5)).HasField("workflow_task_completed")


class Gates:
    """Jobs that block until they are let go."""

    def __init__(self, stage: WorkflowThreads) -> None:
        self.stage = stage
        self.gate = threading.Event()
        self.ends: list[tuple[str, BaseException | None]] = []
        self.cleaned: list[str] = []

    def add(self, label: str, *, blocks: bool) -> None:
        self.stage.submit(
            label,
            (lambda: self.gate.wait(30)) if blocks else (lambda: True),
            lambda _, error: self.ends.append((label, error)),
            lambda: self.cleaned.append(label),
        )


async def test_threads_that_hang_are_bounded_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = WorkflowThreads(max_threads=3)
    gates = Gates(stage)
    for label in ("a", "b", "c"):
        gates.add(label, blocks=True)
    gates.add("last", blocks=False)
    await wait_until(lambda: len(gates.ends) == 3, what="three deadlocks")
    assert all(isinstance(error, DeadlockError) for _, error in gates.ends)
    assert not stage.is_idle
    assert len(workflow_threads()) == 3
    assert caplog.text.count("all 3 threads for workflow code hang") == 1
    assert "until one comes back: a, b, c" in caplog.text
    gates.gate.set()
    await stage.wait_idle()
    assert gates.ends[-1] == ("last", None)
    await wait_until(lambda: sorted(gates.cleaned) == ["a", "b", "c"], what="the clean-up")
    stage.stop()
    await wait_until(lambda: not workflow_threads(), what="the end of all threads")


async def test_clean_up_that_hangs_holds_up_nobody() -> None:
    stage = WorkflowThreads()
    gates = Gates(stage)
    let_go = threading.Event()

    def clean_up() -> None:
        let_go.wait(30)

    stage.submit(
        "loops", never_ends, lambda _, error: gates.ends.append(("loops", error)), clean_up
    )
    await wait_until(lambda: len(gates.ends) == 1, what="the deadlock")
    # Its thread cleans up, and so does nothing that the next one that blocks could wait for.
    gates.add("blocks", blocks=True)
    gates.add("last", blocks=False)
    try:
        await wait_until(lambda: ("last", None) in gates.ends, what="the last job")
    finally:
        let_go.set()
        gates.gate.set()
        stage.stop()
    await wait_until(lambda: not workflow_threads(), what="the end of all threads")


async def test_runs_whose_hanging_code_came_back_are_not_kept() -> None:
    server = TaskServer()
    async with working(server, workflows=[Blocks]):
        for number in range(1, 4):
            Blocks.gate.clear()
            task_of(server, "Blocks", number, "c")
            await server.wait_answer(number)
            Blocks.gate.set()
            await wait_until(lambda: len(workflow_threads()) == 1, what="the stuck thread's end")
        # Runs that never come again would stay in memory for good.
        gc.collect()
        steps = [item for item in gc.get_objects() if isinstance(item, Step)]
    assert len(steps) <= 1


async def test_work_that_takes_long_and_gets_on_is_no_deadlock() -> None:
    stage = WorkflowThreads(limit=0.2)
    done, gate = [0], threading.Event()

    def work() -> int:
        # Four times the limit, a part of it in each place.
        for number in range(1, 9):
            gate.wait(0.1)
            done[0] = number
        return done[0]

    assert await stage.run("long", work, lambda: None, lambda: done[0]) == 8
    stage.stop()


async def test_nothing_is_raised_into_code_of_python_itself() -> None:
    # As logging is while it holds its lock, which all threads want.
    names: dict[str, Any] = {}
    source = "def wait_busily(over):\n    while not over: pass"
    exec(compile(source, f"{sysconfig.get_path('stdlib')}/logging/x.py", "exec"), names)
    over, places, cleaned = list[bool](), list[str](), threading.Event()

    def work() -> None:
        try:
            names["wait_busily"](over)
        except RunEvictedError:
            places.append("library")
            raise
        try:
            never_ends()
        except RunEvictedError:
            places.append("own")
            raise

    stage = WorkflowThreads()
    running = asyncio.create_task(stage.run("locks", work, cleaned.set))
    with pytest.raises(DeadlockError):
        await asyncio.wait_for(running, 10)
    # It has been seen there several times more.
    await asyncio.wait([asyncio.create_task(asyncio.to_thread(cleaned.wait, threads.LIMIT))])
    over.append(True)
    await wait_until(cleaned.is_set, what="the end of the job")
    assert places == ["own"]
    stage.stop()


async def test_code_at_a_breakpoint_is_not_given_up() -> None:
    stage = WorkflowThreads()
    reader, writer = os.pipe()

    def stops() -> str:
        with open(reader) as typed:
            pdb.Pdb(stdin=typed, stdout=io.StringIO(), nosigint=True, readrc=False).set_trace()
        return "went on"

    running = asyncio.create_task(stage.run("debugged", stops, lambda: None))
    try:
        # Others go on meanwhile; nobody is hurried.
        assert await stage.run("other", lambda: 1, lambda: None) == 1
        await asyncio.wait([running], timeout=3 * threads.LIMIT)
        assert not running.done()
    finally:
        os.write(writer, b"continue\n")
        os.close(writer)
    assert await asyncio.wait_for(running, 10) == "went on"
    stage.stop()


async def test_worker_ends_though_all_threads_hang(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads.WorkflowThreads.__init__, "__defaults__", (None, None, 1))
    monkeypatch.setattr(session, "EVICTION_GRACE", 0.3)
    server = TaskServer()
    Blocks.gate.clear()
    task_of(server, "Blocks", 1, "wait")
    try:
        async with working(server, workflows=[Blocks]):
            await server.wait_answer(1)
            task_of(server, "Blocks", 2, "c")
            await server.wait_answer(2)
    finally:
        Blocks.gate.set()
    assert "keeps cached runs from being taken down" in caplog.text


@pytest.mark.parametrize("times", [3, 1_000])
async def test_code_that_catches_what_takes_it_out_does_not_outlive_its_worker_unsaid(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, times: int
) -> None:
    monkeypatch.setattr(Catches, "caught", 0)
    monkeypatch.setattr(Catches, "is_over", False)
    server = TaskServer()
    task_of(server, "Catches", 1, times)
    try:
        async with working(server, workflows=[Catches]):
            await server.wait_answer(1)
        if times == 3:
            await wait_until(lambda: not workflow_threads(), what="the end of all threads")
            assert "cannot be ended" not in caplog.text
        else:
            assert "given up and cannot be ended runs on in 1 threads" in caplog.text
    finally:
        Catches.is_over = True
    await wait_until(lambda: not workflow_threads(), what="the end of all threads")


async def test_result_or_error_of_a_step_is_delivered_once_and_in_order() -> None:
    stage = WorkflowThreads()
    ends: list[object] = []

    def fail() -> None:
        raise KeyError("x")

    for number in range(100):
        stage.submit("a", lambda n=number: n, lambda value, _: ends.append(value), lambda: None)
    stage.submit("a", fail, lambda _, error: ends.append(type(error)), lambda: None)
    await stage.wait_idle()
    assert ends == [*range(100), KeyError]
    with pytest.raises(KeyError):
        await stage.run("a", fail, lambda: None)
    stage.stop()


def test_lane_lets_one_in_at_a_time_in_order() -> None:
    lanes, begun = RunLanes(), list[str]()

    def begin(name: str) -> Callable[[], None]:
        return lambda: begun.append(name)

    lanes.enter("r", begin("a"))
    lanes.enter("r", begin("b"))
    lanes.enter("r", begin("c"))
    lanes.enter("other", begin("x"))
    assert begun == ["a", "x"]
    lanes.leave("r")
    assert begun == ["a", "x", "b"]
    lanes.leave("r")
    lanes.leave("r")
    lanes.enter("r", begin("d"))
    assert begun == ["a", "x", "b", "c", "d"]


@activity.defn
async def blocks_the_loop() -> None:
    time.sleep(0.6)  # noqa: ASYNC251 - what it is about


async def test_async_activity_that_blocks_the_loop_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "LIMIT", 0.1)
    server = TaskServer()
    server.add_activity("blocks_the_loop")
    with caplog.at_level(logging.ERROR):
        async with working(server, activities=[blocks_the_loop]):
            await server.wait_answer(1)
            await asyncio.sleep(0)
    assert caplog.text.count("activity 'blocks_the_loop' blocks the event loop") == 1
    assert "time.sleep(0.6)" in caplog.text


def test_project_whose_name_begins_with_the_workers_is_not_the_worker() -> None:
    own = call_site.__file__
    folder = Path(own).parents[1]
    assert call_site.is_of_worker(own)
    assert not call_site.is_of_worker(f"{folder}_app/orders.py")
    assert call_site.is_of_user(f"{folder}_app/orders.py")
