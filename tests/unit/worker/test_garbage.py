"""A run or an attempt that is over is freed at once: nothing of it refers to itself."""

import asyncio
import weakref
from datetime import timedelta

from aetheris.api.v1.worker_service_pb2 import ActivityTask
from aetheris_client.converter import DataConverter
from aetheris_worker import workflow
from aetheris_worker.activities.attempt import Attempt
from aetheris_worker.activities.heartbeat import Heartbeater
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.replay import RunMachine
from tests.support.garbage import garbage_of
from tests.support.history_builder import HistoryBuilder


@workflow.defn
class Busy:
    """An activity, a timer, a condition and a signal."""

    def __init__(self) -> None:
        self._names: list[str] = []

    @workflow.run
    async def run(self) -> str:
        await workflow.execute_activity("work", start_to_close_timeout=timedelta(seconds=10))
        await asyncio.sleep(5)
        await workflow.wait_condition(lambda: bool(self._names))
        return self._names[0]

    @workflow.signal
    async def note(self, name: str) -> None:
        self._names.append(name)


def test_run_that_is_over_leaves_no_garbage() -> None:
    history = HistoryBuilder("Busy")
    history.task()
    history.activity_completed(history.activity_scheduled("1", "work"))
    history.task()
    history.timer_started("1")
    history.timer_fired("1")
    history.signaled("note", "Ada")
    history.task_started()
    definition, converter = WorkflowDefinition.of(Busy), DataConverter.default()

    def run() -> None:
        machine = RunMachine(definition, RunId("default", "workflow", "run"), converter)
        commands = [command.to_proto() for command in machine.advance(history.events)]
        assert machine.is_closed, commands
        machine.evict()

    assert not garbage_of(run)


async def test_attempt_that_is_over_holds_its_task_no_longer() -> None:
    class _Task:
        def cancel(self) -> None:
            """As asyncio's."""

    beats = Heartbeater(asyncio.get_running_loop(), 1.0, lambda _: None)
    attempt = Attempt(
        ActivityTask(), "default", "queue", DataConverter.default(), beats, is_async=True
    )
    task = _Task()
    attempt.on_cancel(task.cancel)
    held = weakref.ref(task)
    del task
    assert held() is not None
    attempt.close()
    assert held() is None
