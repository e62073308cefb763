"""What workflow code can ask of its run: time, chance, what it was started with; and its parts, by
which machines serve the rest.

Every request gets its id from a counter of the run, so the same code asks for the same ids again.
"""

import asyncio
import random
import uuid
from collections.abc import Callable
from functools import cached_property

from aetheris.api.v1.history_pb2 import HistoryEvent, WorkflowExecutionStartedEventAttributes
from aetheris_client.converter import DataConverter
from aetheris_worker.runtime.activation import Activation
from aetheris_worker.runtime.commands import CommandLog
from aetheris_worker.runtime.errors import HistoryError
from aetheris_worker.runtime.info import RunId, WorkflowInfo, read_info
from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.machines.properties import Properties
from aetheris_worker.runtime.machines.signal import SignalBox
from aetheris_worker.runtime.machines.timer import TimerMachine, Timers
from aetheris_worker.runtime.machines.update import UpdateBox
from aetheris_worker.runtime.parts import Parts, RunScope
from aetheris_worker.runtime.queries import QueryBox
from aetheris_worker.runtime.random_numbers import RandomNumbers
from aetheris_worker.runtime.registry import RUN_MACHINES


class WorkflowRun:
    """The run behind the functions of `aetheris_worker.workflow`.

    What it is made of does not refer back to it, but for its loop until that is taken down. So a
    run that is over is freed at once, and not left to the garbage collector with all it holds.

    Attributes:
        is_replaying: The code repeats what it did before; nothing it does is new.
        history_length: Events up to the current workflow task.
        history_bytes: What they take at the server, before that task.
        suggests_continue_as_new: The server finds the history long.
        replayed: What the code repeats now; None where it does not, or does not run.
        cancel_requested: Somebody asked the run to cancel.
        parts: What machines keep of it.
        signals: Its signals and their handlers; one of its parts.
        run_method: Of the workflow's class.
        queries: Who answers its queries; another.
    """

    def __init__(self, run_id: RunId, converter: DataConverter, build_id: str = "") -> None:
        self.id = run_id
        self._own_build_id = build_id
        self.converter = converter
        self.commands = CommandLog(RUN_MACHINES.describe)
        self.loop = WorkflowLoop(self, self._start_timer, run_id.run_id)
        self.parts = Parts(RunScope(self.loop, self.commands, converter))
        self.is_replaying = False
        self.replayed: Activation | None = None
        self.history_length = 0
        self.history_bytes = 0
        self.suggests_continue_as_new = False
        self.cancel_requested = False
        self.first_event: HistoryEvent | None = None
        self.signals = self.parts.make(SignalBox)
        self.run_method: Callable[..., object] | None = None
        self.queries = self.parts.make(QueryBox)

    # For workflow code.

    @cached_property
    def info(self) -> WorkflowInfo:
        """What it was started with."""
        return read_info(self.id, self._started_event(), self.converter)

    @property
    def started(self) -> WorkflowExecutionStartedEventAttributes:
        """What its first event says."""
        return self._started_event().workflow_execution_started_event_attributes

    @cached_property
    def properties(self) -> Properties:
        """Its memo and search attributes; one of its parts."""
        properties = self.parts.make(Properties)
        properties.begin(self.started)
        return properties

    @cached_property
    def task_queue(self) -> str:
        """Its task queue."""
        return self.started.task_queue.name

    @property
    def build_id(self) -> str:
        """The build whose worker makes, or made, the current decision; empty where it said none."""
        return self._own_build_id if self.replayed is None else self.replayed.build_id

    def random(self) -> random.Random:
        """The run's own source of random numbers."""
        self.loop.check_writable("drawing random numbers")
        first_seed = self.started.original_execution_run_id or self.id.run_id
        return self.parts.make(RandomNumbers).source(first_seed)

    def uuid4(self) -> uuid.UUID:
        """A UUID from that source."""
        return uuid.UUID(int=self.random().getrandbits(128), version=4)

    @property
    def all_handlers_finished(self) -> bool:
        """No async handler is at work."""
        updates = self.parts.find(UpdateBox)
        return self.signals.all_finished and (updates is None or updates.all_finished)

    async def wait_condition(
        self, predicate: Callable[[], bool], timeout_seconds: float | None
    ) -> None:
        """Return once the predicate holds; asked now, whenever the run has moved, and when the time
        is up: what came before that in the same activation has moved the run.

        Raises:
            TimeoutError: The time was up first.
        """
        if self.loop.holds(predicate):
            return
        future = self.loop.add_condition(predicate)
        if timeout_seconds is None:
            await future
            return
        timer = self.loop.call_later(timeout_seconds, self._time_out, predicate, future)
        try:
            await future
        finally:
            timer.cancel()

    def _time_out(self, predicate: Callable[[], bool], future: "asyncio.Future[None]") -> None:
        if future.done():
            return
        try:
            holds = self.loop.holds(predicate)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised where it is awaited
            future.set_exception(error)
            return
        if holds:
            future.set_result(None)
        else:
            future.set_exception(TimeoutError("the condition did not hold in time"))

    # For replay.

    def set_replaying(self, is_replaying: bool) -> None:
        """Whether the code repeats, from now on, what it did before."""
        self.is_replaying = self.signals.is_silent = is_replaying

    def _start_timer(self, delay: float, on_fire: Callable[[], None]) -> TimerMachine:
        return self.parts.make(Timers).start(delay, on_fire)

    def _started_event(self) -> HistoryEvent:
        if self.first_event is None:
            raise HistoryError("the history does not begin with WORKFLOW_EXECUTION_STARTED")
        return self.first_event
