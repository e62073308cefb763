"""Runs a workflow's code along its history.

Events go in, in order and without gaps; for each activation the code runs until it waits, and its
commands are compared with the events that record them. Only the commands of the last workflow task,
the one in hand, are new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from aetheris.api.v1 import history_pb2
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import HistoryEvent, UpdateRequest
from aetheris_client.converter import DataConverter
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.activation import Activation, activations_of
from aetheris_worker.runtime.commands import ProducedCommand, event_type_name
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.entry import WorkflowEntry
from aetheris_worker.runtime.errors import HistoryError, ReadOnlyError, StrayError
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.machines.local_activity import LocalActivities
from aetheris_worker.runtime.machines.update import UpdateBox
from aetheris_worker.runtime.parts import RunPart
from aetheris_worker.runtime.registry import RUN_MACHINES
from aetheris_worker.runtime.run import WorkflowRun

# So many turns of the loop count as progress in one workflow task. Enough to begin ten thousand
# activities at once; code that wakes itself for ever has as many within seconds.
_MAX_TURNS: Final = 100_000


class RunMachine:
    """One run in memory.

    After any error it is in between two states, and only fit for `evict`.

    Attributes:
        started_event_id: The start of the last workflow task that the code has seen; the next
            events continue after it. 0 at first.
        last_event_id: The last event that it was told of: the next ones follow.
        is_tainted: A query handler tried to change the run: its state may not be what replay gives.
        version: Of the definition; empty where it says none.
    """

    def __init__(
        self,
        definition: WorkflowDefinition,
        run_id: RunId,
        converter: DataConverter,
        build_id: str = "",
    ) -> None:
        """Args:
        definition: Of the code.
        run_id: Of the run.
        converter: For what goes in and out.
        build_id: Of this worker; empty where nobody says.
        """
        guard.install()
        self.run = WorkflowRun(run_id, converter, build_id)
        self.started_event_id = 0
        self.is_tainted = False
        self.version = definition.version
        self._entry = WorkflowEntry(definition, self.run)
        self.last_event_id = 0
        self._before: _Position | None = None

    @property
    def progress(self) -> int:
        """Changes as long as the code gives control back: with every event that it is told of, and
        every turn of its loop. Not for ever where it only wakes itself. May be asked in any thread.
        """
        return self.last_event_id + min(self.run.loop.turn_count, _MAX_TURNS)

    @property
    def is_closed(self) -> bool:
        """The code has ended the run."""
        return self._entry.closing is not None

    @property
    def unhandled_signal_count(self) -> int:
        """Signals that no handler of the code has taken."""
        return self.run.signals.waiting_count

    @property
    def is_ahead(self) -> bool:
        """The task in hand has rejected its updates, and the code has not run. If the server
        discards the task, `fall_back`; else the run is only fit for `evict`.
        """
        return self._before is not None

    def take_rejections(self) -> Sequence[tuple[str, BaseException]]:
        """The updates of the task in hand that the code has not accepted, by id, and why."""
        updates = self.run.parts.find(UpdateBox)
        return updates.take_rejections() if updates is not None else ()

    def fall_back(self) -> None:
        """The task in hand has never been."""
        before = self._before
        assert before is not None
        self.started_event_id, self.last_event_id, self.run.loop.now = before.place
        self.run.history_length, self.run.suggests_continue_as_new = before.shown
        self._before = None

    @property
    def waits_for_world(self) -> bool:
        """The code waits for something that is not in this worker: an event."""
        run = self.run
        parts = (cast(RunPart, part) for part in run.parts.values())
        return run.loop.has_conditions or any(part.is_waiting for part in parts)

    @property
    def local_activities(self) -> LocalActivities | None:
        """Those that the code has asked for; None if it never has."""
        return self.run.parts.find(LocalActivities)

    def advance(
        self,
        events: Sequence[HistoryEvent],
        updates: Sequence[UpdateRequest] = (),
        *,
        is_speculative: bool = False,
        is_whole: bool = True,
    ) -> Sequence[ProducedCommand]:
        """Run the code through these events.

        Args:
            events: What follows `last_event_id`; the last one starts the task in hand. Or the
                history of a run up to now, for a look at it: then no command is new.
            updates: Those that the task in hand has brought.
            is_speculative: It is there for them alone.
            is_whole: The events do not end in the middle of a task's commands, so the last commands
                must be among them.

        Returns:
            The commands of the task in hand, in order; none if there is none.

        Raises:
            NondeterminismError: The code does not do what the history says it did.
            HistoryError: The events are not a history.
            StrayError: The code raised what is not an Exception.
            Exception: Whatever the code raised that does not end the run.
        """
        commands: Sequence[ProducedCommand] = ()
        with _ONLY_EXCEPTIONS:
            for activation in activations_of(events):
                if not activation.is_replay:
                    activation.updates.extend(updates)
                commands = self._advance(activation, is_whole, is_speculative)
        return commands

    def query(self, name: str, arguments: Payloads) -> Payloads | None:
        """Ask the code as it stands; see WorkflowEntry.query."""
        try:
            with _ONLY_EXCEPTIONS:
                return self._entry.query(name, arguments)
        except ReadOnlyError:
            self.is_tainted = True
            raise

    def site_of_command(self, index: int) -> str:
        """See CommandLog.site_of."""
        return self.run.commands.site_of(index)

    def evict(self) -> None:
        """Take the code down; see WorkflowLoop.evict."""
        # What `finally` blocks log now would not be true.
        self.run.set_replaying(True)
        self.run.loop.evict()
        self._entry.let_go()

    def _advance(
        self, activation: Activation, is_whole: bool, is_speculative: bool
    ) -> Sequence[ProducedCommand]:
        run = self.run
        run.set_replaying(activation.is_replay)
        is_first = self.last_event_id == 0
        after_commands = self._apply(activation.events)
        if is_whole or activation.started is not None:
            run.commands.check_all_recorded(after_commands)
        judged_count = 0
        if is_speculative and not activation.is_replay and run.loop.is_idle:
            judged_count = self._judge(activation)
            if self.is_ahead:
                return ()
        for index, request in enumerate(activation.updates):
            if index >= judged_count - 1:
                is_judged = activation.is_replay or index == judged_count - 1
                self._entry.update(request, is_judged=is_judged)
        if is_first:
            if run.first_event is None:
                raise HistoryError("the history does not begin with WORKFLOW_EXECUTION_STARTED")
            first = run.first_event.workflow_execution_started_event_attributes
            self._entry.begin(first.input)
        if activation.started is None:
            return ()
        self._set_clock(activation.started)
        run.replayed = activation if activation.is_replay else None
        try:
            run.loop.run_until_idle(self._entry.is_over)
        finally:
            # It refers to the whole history.
            run.replayed = None
        self._entry.check_alive()
        if self._entry.error is not None:
            raise self._entry.error
        produced = run.commands.seal()
        for end_activation in RUN_MACHINES.end_activation:
            end_activation(run.parts)
        return () if activation.is_replay else produced

    def _judge(self, activation: Activation) -> int:
        """Judge the updates of a task that is there for them alone, up to the first that is
        accepted; the code has not moved then. If none is, it does not.

        Returns:
            How many were judged.
        """
        assert activation.started is not None
        run = self.run
        # Scheduled and started: the two events that a task has of its own.
        before = _Position(
            (self.started_event_id, activation.started.event_id - 2, run.loop.now),
            (run.history_length, run.suggests_continue_as_new),
        )
        self._set_clock(activation.started)
        for index, request in enumerate(activation.updates):
            if self._entry.judge(request):
                return index + 1
        self._before = before
        return len(activation.updates)

    def _apply(self, events: Sequence[HistoryEvent]) -> HistoryEvent | None:
        """Returns the event behind the last task's commands."""
        after_commands: HistoryEvent | None = None
        command_events = RUN_MACHINES.commands
        for event in events:
            if event.event_id != self.last_event_id + 1:
                raise HistoryError(
                    f"event {event.event_id} follows event {self.last_event_id}: events are missing"
                )
            self.last_event_id = event.event_id
            kind = event.event_type
            if kind in command_events:
                self._take_command_event(event)
                after_commands = None
                continue
            if after_commands is None and kind != history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                after_commands = event
            self._apply_other(event)
        return after_commands

    def _take_command_event(self, event: HistoryEvent) -> None:
        take = RUN_MACHINES.takes.get(event.event_type)
        if take is None or not take(self.run.parts, self._entry, event):
            self.run.commands.match(event)

    def _apply_other(self, event: HistoryEvent) -> None:
        kind = event.event_type
        if kind in RUN_MACHINES.ignored:
            return
        apply = RUN_MACHINES.events.get(kind)
        if apply is None:
            raise HistoryError(
                f"event {event.event_id} ({event_type_name(kind)}) is not known to this worker; "
                "a newer one is needed"
            )
        apply(self.run.parts, self._entry, event)

    def _set_clock(self, started: HistoryEvent) -> None:
        attributes = started.workflow_task_started_event_attributes
        time = (
            attributes.started_time if attributes.HasField("started_time") else started.event_time
        )
        # Whole microseconds: datetimes hold no more.
        now = time.seconds + time.nanos // 1_000 / 1_000_000
        # Clocks of servers differ; a run's time never goes back.
        self.run.loop.now = max(now, self.run.loop.now)
        self.run.history_length = started.event_id
        self.run.history_bytes = attributes.history_bytes
        self.run.suggests_continue_as_new = attributes.suggest_continue_as_new
        self.started_event_id = started.event_id


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a run stands.

    Attributes:
        place: Its started_event_id, last_event_id and time.
        shown: What its code is told of the history: its length, and whether it is long.
    """

    place: tuple[int, int, float]
    shown: tuple[int, bool]


class _OnlyExceptions:
    """Lets nothing of the code's pass that the worker would take for its own end."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None and not isinstance(error, (Exception, KeyboardInterrupt)):
            raise StrayError(error) from error


_ONLY_EXCEPTIONS: Final = _OnlyExceptions()
