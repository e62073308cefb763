import asyncio
import contextvars
import gc
import socket
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import ClassVar

import pytest

from aetheris_worker import workflow
from aetheris_worker.runtime.errors import ForbiddenCallError, RunEvictedError
from aetheris_worker.runtime.machines.timer import Timers
from tests.unit.worker.driver import Session, evict_all

MINUTE = timedelta(minutes=1)


@workflow.defn
class UsesAsyncio:
    """Every tool of asyncio that workflow code is promised."""

    @workflow.run
    async def run(self) -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        lock = asyncio.Lock()
        ready = asyncio.Event()

        async def produce(name: str) -> None:
            await ready.wait()
            async with lock:
                await asyncio.sleep(1)
                await queue.put(name)

        async with asyncio.TaskGroup() as group:
            for name in ("a", "b"):
                group.create_task(produce(name))
            ready.set()
        got = [await queue.get(), queue.get_nowait()]
        try:
            async with asyncio.timeout(3):
                await asyncio.sleep(60)
        except TimeoutError:
            got.append("timeout")
        try:
            await asyncio.wait_for(asyncio.sleep(60), 3)
        except TimeoutError:
            got.append("wait_for")
        return got


def test_asyncio_tools_run_on_durable_timers() -> None:
    session = Session(UsesAsyncio)
    assert session.step() == ["timer 1 1s"]
    session.history.timer_fired("1")
    assert session.step() == ["timer 2 1s"]
    session.history.timer_fired("2")
    assert session.step() == ["timer 3 3s", "timer 4 60s"]
    session.history.timer_fired("3")
    assert session.step()[0] == "cancel timer 4"
    while not session.machine.is_closed:
        session.history.timer_fired(min(session.machine.run.parts.make(Timers).open))
        session.step()
    assert session.result() == ["a", "b", "timeout", "wait_for"]
    session.replay()


@workflow.defn
class CancelsMany:
    """Puts many tasks into sets, whose order asyncio goes by."""

    @workflow.run
    async def run(self) -> None:
        tasks = [
            asyncio.create_task(
                workflow.execute_activity(f"a{number}", start_to_close_timeout=MINUTE)
            )
            for number in range(20)
        ]
        await asyncio.wait(tasks, timeout=1)
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(asyncio.sleep(100 + number))
            group.create_task(self.fail())

    async def fail(self) -> None:
        await asyncio.sleep(1)
        raise TimeoutError("on purpose")


def test_tasks_in_sets_keep_their_order_over_replays() -> None:
    session = Session(CancelsMany)
    first = session.step()
    assert first == ["timer 1 1s", *(f"activity {n + 1} a{n}" for n in range(20))]
    session.history.timer_fired("1")
    session.step()
    session.history.timer_fired("22")
    assert session.step()[:20] == [f"cancel timer {number}" for number in range(2, 22)]
    session.replay()


@workflow.defn
class Forbidden:
    @workflow.run
    async def run(self, what: str) -> None:
        loop = asyncio.get_running_loop()
        if what == "thread":
            await asyncio.to_thread(print)
        if what == "connect":
            await asyncio.open_connection("localhost", 1)
        if what == "dns":
            await loop.getaddrinfo("localhost", 1)
        if what == "process":
            await asyncio.create_subprocess_exec("true")
        if what == "socket":
            with socket.socket() as plain:
                await loop.sock_connect(plain, ("localhost", 1))
        if what == "threadsafe":
            loop.call_soon_threadsafe(print)


@pytest.mark.parametrize(
    "what, call",
    [
        ("thread", "loop.run_in_executor"),
        ("connect", "loop.create_connection"),
        ("dns", "loop.getaddrinfo"),
        ("process", "loop.subprocess_exec"),
        ("socket", "loop.sock_connect"),
        ("threadsafe", "loop.call_soon_threadsafe"),
    ],
)
def test_call_that_needs_the_world_fails_the_task_naming_its_place(what: str, call: str) -> None:
    with pytest.raises(ForbiddenCallError, match=f"may not call {call} ") as caught:
        Session(Forbidden, what).step()
    assert caught.value.call == call
    assert "test_loop.py" in caught.value.call_site
    assert caught.value.call_site.endswith("in run")


async def test_run_inside_another_loop_leaves_it_as_it_was() -> None:
    outer, outer_task = asyncio.get_running_loop(), asyncio.current_task()
    session = Session(UsesAsyncio)
    session.step()
    assert asyncio.get_running_loop() is outer
    assert asyncio.current_task() is outer_task
    await asyncio.sleep(0)


@workflow.defn
class ResistsEviction:
    """Tries everything on its way out."""

    did: list[str]

    @workflow.run
    async def run(self) -> None:
        ResistsEviction.did = []
        try:
            await workflow.wait_condition(lambda: False)
        finally:
            self.did.append("finally")
            for attempt in (self.schedule, self.start_timer, self.start_task, self.sleep):
                try:
                    await attempt()
                except RunEvictedError:
                    self.did.append(attempt.__name__)

    async def schedule(self) -> None:
        workflow.start_activity("work", start_to_close_timeout=MINUTE)

    async def start_timer(self) -> None:
        asyncio.get_running_loop().call_later(1, print)

    async def start_task(self) -> None:
        await asyncio.create_task(self.schedule())

    async def sleep(self) -> None:
        await asyncio.sleep(1)


def test_evicted_code_can_do_nothing_to_the_run() -> None:
    session = Session(ResistsEviction)
    session.step()
    session.machine.evict()
    assert ResistsEviction.did == ["finally", "schedule", "start_timer", "start_task", "sleep"]
    assert session.machine.run.commands.seal() == []


@workflow.defn
class NeverLeaves:
    @workflow.run
    async def run(self) -> None:
        stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for _ in range(150):
            try:
                await stuck
            except BaseException:  # noqa: BLE001 - what it is about
                continue


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@workflow.defn
class Resets:
    """Sets a context variable for as long as it waits, as loggers and tracers do."""

    ends: ClassVar[list[str]] = []

    @workflow.run
    async def run(self) -> None:
        token = VARIABLE.set("set")
        try:
            await asyncio.sleep(60)
        finally:
            VARIABLE.reset(token)
            self.ends.append(VARIABLE.get())


def test_evicted_code_can_reset_its_context_variables() -> None:
    session = Session(Resets)
    session.step()
    session.machine.evict()
    assert Resets.ends == ["unset"]


def test_code_that_swallows_eviction_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    session = Session(NeverLeaves)
    session.step()
    session.machine.evict()
    assert session.machine.run.loop.live_tasks() == []
    evict_all()
    del session
    gc.collect()
    assert unraisable == []


@workflow.defn
class GeneratesAsync:
    @workflow.run
    async def run(self) -> list[int]:
        async def numbers() -> AsyncIterator[int]:
            for number in range(3):
                await asyncio.sleep(0)
                yield number

        async for _ in numbers():
            break
        return [number async for number in numbers()]


def test_unfinished_async_generator_does_no_harm() -> None:
    session = Session(GeneratesAsync)
    assert session.step() == ["complete"]
    assert session.result() == [0, 1, 2]


@workflow.defn
class BadCondition:
    @workflow.run
    async def run(self, how: str) -> str:
        items: list[int] = []
        asyncio.get_running_loop().call_soon(items.append, 1)

        def predicate() -> bool:
            if how == "raises" and items:
                raise KeyError("in the predicate")
            if how == "changes":
                asyncio.get_running_loop().call_later(1, print)
            return False

        try:
            await workflow.wait_condition(predicate)
        except KeyError as error:
            return str(error)
        return ""


def test_condition_that_raises_raises_where_it_is_awaited() -> None:
    session = Session(BadCondition, "raises")
    assert session.step() == ["complete"]
    assert session.result() == "'in the predicate'"


def test_condition_that_changes_the_run_is_refused() -> None:
    with pytest.raises(Exception, match="starting a timer is not allowed here"):
        Session(BadCondition, "changes").step()


def test_workflow_functions_outside_of_a_workflow_say_so() -> None:
    with pytest.raises(workflow.NotInWorkflowError, match=r"workflow\.now was called outside"):
        workflow.now()
    assert not workflow.in_workflow()


@workflow.defn
class InOrderOfCompletion:
    @workflow.run
    async def run(self) -> list[int]:
        async def after(seconds: int) -> int:
            await workflow.sleep(seconds)
            return seconds

        got = [await item for item in workflow.as_completed([after(n) for n in (3, 1, 2)])]
        pending = [asyncio.create_task(after(seconds)) for seconds in (5, 4)]
        done, left = await workflow.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        assert (done, left) == ([pending[1]], [pending[0]])
        return got


def test_as_completed_and_wait_keep_the_given_order() -> None:
    session = Session(InOrderOfCompletion)
    assert session.step() == ["timer 1 3s", "timer 2 1s", "timer 3 2s"]
    for timer in ("2", "3", "1"):
        session.history.timer_fired(timer)
    assert session.step() == ["timer 4 5s", "timer 5 4s"]
    session.history.timer_fired("5")
    assert session.step() == ["complete"]
    assert session.result() == [1, 2, 3]
    session.replay()


@workflow.defn
class CallsItselfAgain:
    """Two callbacks that only call for themselves, beside a condition and one that counts."""

    @workflow.run
    async def run(self) -> list[str]:
        loop, stopped, turns, said = asyncio.get_running_loop(), [False], [0], list[str]()

        def repeat(name: str) -> None:
            turns[0] += 1
            if not stopped[0]:
                loop.call_soon(repeat, name)

        def once() -> None:
            said.append("once")

        for name in ("a", "b"):
            loop.call_soon(repeat, name)
        for _ in range(3_000):
            loop.call_soon(once)
        await workflow.wait_condition(lambda: turns[0] > 1_500)
        said.append("condition")
        await workflow.sleep(1)
        stopped[0] = True
        return said


def test_callbacks_that_only_call_for_themselves_leave_the_loop_idle() -> None:
    session = Session(CallsItselfAgain)
    assert session.step() == ["timer 1 1s"]
    session.history.timer_fired("1")
    assert session.step() == ["complete"]
    assert session.result() == ["once"] * 3_000 + ["condition"]
    session.replay()
