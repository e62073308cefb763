"""One timer of a run.

A timer that is cancelled in the activation that started it leaves no command at all.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.commands import CommandLog
from aetheris_worker.runtime.errors import HistoryError
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.parts import Parts, RunPart, RunScope
from aetheris_worker.runtime.transitions import next_state

_MICROSECONDS: Final = 1_000_000


class TimerStage(IntEnum):
    """Where a timer stands."""

    STARTING = 1
    WITHDRAWN = 2
    STARTED = 3
    CANCELLING = 4
    CANCELLED = 5
    FIRED = 6


class TimerInput(IntEnum):
    """What can happen to it."""

    CANCEL = 1
    START_RECORDED = 2
    CANCEL_RECORDED = 3
    FIRE = 4


TRANSITIONS: Final[dict[tuple[TimerStage, TimerInput], TimerStage]] = {
    (TimerStage.STARTING, TimerInput.START_RECORDED): TimerStage.STARTED,
    (TimerStage.STARTING, TimerInput.CANCEL): TimerStage.WITHDRAWN,
    (TimerStage.STARTED, TimerInput.FIRE): TimerStage.FIRED,
    (TimerStage.STARTED, TimerInput.CANCEL): TimerStage.CANCELLING,
    (TimerStage.CANCELLING, TimerInput.CANCEL_RECORDED): TimerStage.CANCELLED,
    # asyncio cancels handles of callbacks that ran long ago.
    (TimerStage.FIRED, TimerInput.CANCEL): TimerStage.FIRED,
}


class TimerMachine:
    """Sends StartTimer, and CancelTimer if it is cancelled before it fires."""

    def __init__(
        self,
        timer_id: str,
        delay: float,
        on_fire: Callable[[], None],
        open_timers: "dict[str, TimerMachine]",
        commands: CommandLog,
    ) -> None:
        self.timer_id = timer_id
        self.delay = delay
        self.state = TimerStage.STARTING
        self._on_fire = on_fire
        self._open_timers = open_timers
        self._commands = commands
        open_timers[timer_id] = self
        commands.add(StartTimerCommand(self))

    def cancel(self) -> None:
        """The code does not want it any more."""
        self.move(TimerInput.CANCEL)
        self._open_timers.pop(self.timer_id, None)
        if self.state is TimerStage.CANCELLING:
            self._commands.add(CancelTimerCommand(self))

    def fire(self) -> None:
        """TIMER_FIRED is in the history."""
        self.move(TimerInput.FIRE)
        del self._open_timers[self.timer_id]
        self._on_fire()

    def move(self, cause: TimerInput) -> None:
        """Follow the table."""
        self.state = next_state(TRANSITIONS, self.state, cause, f"timer {self.timer_id!r}")


class Timers(RunPart):
    """The timers of one run.

    Attributes:
        open: Those that have neither fired nor been cancelled, by id.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.open: dict[str, TimerMachine] = {}
        self._count = 0

    @property
    def is_waiting(self) -> bool:
        return bool(self.open)

    def start(self, delay: float, on_fire: Callable[[], None]) -> TimerMachine:
        """Start one, in seconds."""
        self._count += 1
        return TimerMachine(str(self._count), delay, on_fire, self.open, self.scope.commands)

    def fire(self, timer_id: str, event_id: int) -> None:
        """The event is in the history: the timer has fired."""
        machine = self.open.get(timer_id)
        if machine is None:
            raise HistoryError(f"event {event_id} fires timer {timer_id!r}, which is not open")
        machine.fire()


class StartTimerCommand:
    """Start it."""

    event_type: int = history_pb2.EVENT_TYPE_TIMER_STARTED

    def __init__(self, timer: TimerMachine) -> None:
        self._timer = timer

    @property
    def is_withdrawn(self) -> bool:
        return self._timer.state is TimerStage.WITHDRAWN

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_START_TIMER)
        attributes = command.start_timer_command_attributes
        attributes.timer_id = self._timer.timer_id
        # Whole microseconds: a deadline computed from `time()` carries a float's rounding error.
        # At least one: the server refuses a timer of no length.
        micros = max(1, round(self._timer.delay * _MICROSECONDS))
        attributes.start_to_fire_timeout.FromMicroseconds(micros)
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        return event.timer_started_event_attributes.timer_id == self._timer.timer_id

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._timer.move(TimerInput.START_RECORDED)

    def describe(self) -> str:
        return f"started timer {self._timer.timer_id!r}"


class CancelTimerCommand:
    """Cancel it."""

    event_type: int = history_pb2.EVENT_TYPE_TIMER_CANCELLED
    is_withdrawn: bool = False

    def __init__(self, timer: TimerMachine) -> None:
        self._timer = timer

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_CANCEL_TIMER)
        command.cancel_timer_command_attributes.timer_id = self._timer.timer_id
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        return event.timer_cancelled_event_attributes.timer_id == self._timer.timer_id

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._timer.move(TimerInput.CANCEL_RECORDED)

    def describe(self) -> str:
        return f"cancelled timer {self._timer.timer_id!r}"


def _fired(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    parts.make(Timers).fire(event.timer_fired_event_attributes.timer_id, event.event_id)


def _describe_started(event: HistoryEvent) -> str:
    return f"the start of timer {event.timer_started_event_attributes.timer_id!r}"


def _describe_cancelled(event: HistoryEvent) -> str:
    return f"the end of timer {event.timer_cancelled_event_attributes.timer_id!r}"


MACHINE: Final = Machine(
    name="timer",
    commands={
        history_pb2.EVENT_TYPE_TIMER_STARTED: _describe_started,
        history_pb2.EVENT_TYPE_TIMER_CANCELLED: _describe_cancelled,
    },
    events={history_pb2.EVENT_TYPE_TIMER_FIRED: _fired},
)
