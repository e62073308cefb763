"""Local activities: they run in the worker, beside the workflow task that asks for them.

    starting ──end of the activation──► running ──marker──► closed
       │                                  │  ▲ └─ marker of a long wait ──► backing off ─┐
       │ cancel                    cancel │  └────────── starting ◄──── timer fires ─────┘
       ▼                                  ▼
    withdrawn            cancel requested (waits for the marker), or let go (no marker)

The code gives no command: what came of it is recorded as a marker, with the task in which it ended,
and the code learns of it in the task after that. So a result is on disk before the code goes on. A
history that has no marker for one has it run again.
"""

from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Any, Final, cast

from aetheris.api.v1 import failure_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure, RetryState
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.failure import from_failure
from aetheris_client.options import check_options, check_text
from aetheris_client.retry import RetryPolicy
from aetheris_worker.durations import check_timeout
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.commands import event_type_name
from aetheris_worker.runtime.errors import NondeterminismError, fault_behind
from aetheris_worker.runtime.machine import RunCode
from aetheris_worker.runtime.machines.activity import ActivityCancellationType, ActivityHandle
from aetheris_worker.runtime.markers import MarkerKind, marker_command, read_data, read_field
from aetheris_worker.runtime.parts import Parts, RunPart, RunScope
from aetheris_worker.runtime.transitions import next_state

NAME: Final = "local_activity"
_RESULT: Final = "result"


@dataclass(frozen=True, slots=True)
class LocalActivityOptions:
    """How one is to be run; at least one of schedule_to_close and start_to_close is set."""

    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    local_retry_threshold: timedelta
    cancellation_type: ActivityCancellationType

    def check(self, activity_type: str) -> None:
        """Refuse what cannot be run, where the code asks for it.

        Raises:
            TypeError: An option is of the wrong kind.
            ValueError: A timeout is out of range, or neither schedule_to_close nor start_to_close
                is set.
        """
        check_text("the name of a local activity", activity_type)
        if self.start_to_close_timeout is None and self.schedule_to_close_timeout is None:
            raise ValueError(
                f"local activity {activity_type!r}: expected start_to_close_timeout or "
                "schedule_to_close_timeout"
            )
        check_timeout("schedule_to_close_timeout", self.schedule_to_close_timeout)
        check_timeout("schedule_to_start_timeout", self.schedule_to_start_timeout)
        check_timeout("start_to_close_timeout", self.start_to_close_timeout)
        check_timeout("local_retry_threshold", self.local_retry_threshold)
        policy = cast(object, self.retry_policy)
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise TypeError(
                f"local activity: option 'retry_policy': expected a RetryPolicy, found {policy!r}"
            )


class LocalActivityStage(IntEnum):
    """Where one stands, in the eyes of its workflow."""

    STARTING = 1
    WITHDRAWN = 2
    RUNNING = 3
    CANCEL_REQUESTED = 4
    LET_GO = 5
    BACKING_OFF = 6
    CLOSED = 7


class LocalActivityInput(IntEnum):
    """What can happen to it."""

    RUN = 1
    CANCEL = 2
    LET_GO = 3
    BACK_OFF = 4
    TRY_AGAIN = 5
    CLOSE = 6


TRANSITIONS: Final[dict[tuple[LocalActivityStage, LocalActivityInput], LocalActivityStage]] = {
    (LocalActivityStage.STARTING, LocalActivityInput.RUN): LocalActivityStage.RUNNING,
    (LocalActivityStage.STARTING, LocalActivityInput.CANCEL): LocalActivityStage.WITHDRAWN,
    (LocalActivityStage.STARTING, LocalActivityInput.LET_GO): LocalActivityStage.WITHDRAWN,
    (LocalActivityStage.RUNNING, LocalActivityInput.CANCEL): LocalActivityStage.CANCEL_REQUESTED,
    (LocalActivityStage.RUNNING, LocalActivityInput.LET_GO): LocalActivityStage.LET_GO,
    (LocalActivityStage.RUNNING, LocalActivityInput.BACK_OFF): LocalActivityStage.BACKING_OFF,
    (LocalActivityStage.RUNNING, LocalActivityInput.CLOSE): LocalActivityStage.CLOSED,
    # Asking again asks for nothing new.
    (
        LocalActivityStage.CANCEL_REQUESTED,
        LocalActivityInput.CANCEL,
    ): LocalActivityStage.CANCEL_REQUESTED,
    (LocalActivityStage.CANCEL_REQUESTED, LocalActivityInput.CLOSE): LocalActivityStage.CLOSED,
    # It had failed before it was asked.
    (LocalActivityStage.CANCEL_REQUESTED, LocalActivityInput.BACK_OFF): LocalActivityStage.CLOSED,
    (LocalActivityStage.BACKING_OFF, LocalActivityInput.TRY_AGAIN): LocalActivityStage.STARTING,
    # Nothing runs that could be waited for.
    (LocalActivityStage.BACKING_OFF, LocalActivityInput.CANCEL): LocalActivityStage.WITHDRAWN,
    (LocalActivityStage.BACKING_OFF, LocalActivityInput.LET_GO): LocalActivityStage.WITHDRAWN,
}

_IS_FOR_WORKER: Final = frozenset(
    {
        LocalActivityStage.STARTING,
        LocalActivityStage.RUNNING,
        LocalActivityStage.CANCEL_REQUESTED,
    }
)


@dataclass(frozen=True, slots=True)
class LocalActivityRequest:
    """What the worker is to run.

    Attributes:
        number: Which of the run's local activities it is, from 1.
        attempt: The first one that is to be made, from 1.
        elapsed: Seconds since the code asked for it, as the run's time goes.
    """

    number: int
    activity_id: str
    activity_type: str
    arguments: Payloads | None
    options: LocalActivityOptions
    attempt: int
    elapsed: float


class Outcome(StrEnum):
    """How it ended; in histories, so the values never change."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BACKING_OFF = "backing_off"


_OUTCOMES: Final = frozenset(outcome.value for outcome in Outcome)


@dataclass(frozen=True, slots=True)
class LocalActivityOutcome:
    """What came of a request.

    Attributes:
        attempt: The last one that was made.
        backoff: Seconds until the next attempt, where that is for a timer of the run; else 0.
    """

    request: LocalActivityRequest
    attempt: int
    outcome: Outcome
    result: Payloads | None = None
    failure: Failure | None = None
    retry_state: RetryState.ValueType = failure_pb2.RETRY_STATE_UNSPECIFIED
    backoff: float = 0.0

    def to_command(self) -> Command:
        """The marker that records it."""
        data: dict[str, object] = {
            "id": self.request.number,
            "activity_id": self.request.activity_id,
            "activity_type": self.request.activity_type,
            "attempt": self.attempt,
            "outcome": self.outcome.value,
        }
        if self.retry_state:
            data["retry_state"] = int(self.retry_state)
        if self.backoff:
            data["backoff"] = self.backoff
        return marker_command(NAME, data, {_RESULT: self.result}, self.failure)


class LocalActivityMachine:
    """One local activity. Gives no command of its own."""

    def __init__(
        self,
        number: int,
        activity_id: str,
        activity_type: str,
        arguments: Payloads | None,
        options: LocalActivityOptions,
        result_type: object,
        owner: "LocalActivities",
    ) -> None:
        self.number = number
        self.activity_id = activity_id
        self.activity_type = activity_type
        self.state = LocalActivityStage.STARTING
        self.handle: ActivityHandle[Any] = ActivityHandle(
            owner.scope.loop, activity_id, self.cancel
        )
        self._arguments = arguments
        self._options = options
        self._result_type = result_type
        self._owner = owner
        self._attempt = 1
        self._start_time = owner.scope.loop.now

    def request(self) -> LocalActivityRequest | None:
        """What the worker is to do about it now; None while it waits for its timer."""
        if self.state not in _IS_FOR_WORKER:
            return None
        elapsed = self._owner.scope.loop.now - self._start_time
        return LocalActivityRequest(
            self.number,
            self.activity_id,
            self.activity_type,
            self._arguments,
            self._options,
            self._attempt,
            elapsed,
        )

    def cancel(self) -> bool:
        """The code does not want it any more; whether it waits no longer either."""
        self._owner.scope.loop.check_writable("cancelling a local activity")
        how = self._options.cancellation_type
        waits = how is ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        self.move(LocalActivityInput.CANCEL if waits else LocalActivityInput.LET_GO)
        if self.state is LocalActivityStage.CANCEL_REQUESTED:
            return False
        self._owner.forget(self)
        self.handle.let_go()
        if how is ActivityCancellationType.ABANDON and self.state is LocalActivityStage.LET_GO:
            self._owner.abandoned.add(self.number)
        return True

    def end(self, event: HistoryEvent) -> None:
        """The marker is in the history."""
        if read_field(event, "outcome", _is_outcome) == Outcome.BACKING_OFF:
            self._back_off(event)
            return
        self.move(LocalActivityInput.CLOSE)
        self._close(event)

    def move(self, cause: LocalActivityInput) -> None:
        """Follow the table."""
        subject = f"local activity {self.activity_id!r}"
        self.state = next_state(TRANSITIONS, self.state, cause, subject)

    def _back_off(self, event: HistoryEvent) -> None:
        self.move(LocalActivityInput.BACK_OFF)
        if self.state is LocalActivityStage.CLOSED:
            self._owner.forget(self)
            self.handle.let_go()
            self.handle.end_cancelled()
            return
        self._attempt = read_field(event, "attempt", _is_count) + 1
        backoff: float = read_field(event, "backoff", _is_positive)
        # What is called when it fires is not the code's.
        timer = self._owner.scope.loop.call_later(backoff, self._try_again, context=Context())
        self._owner.backoff_timers[self.number] = timer

    def _try_again(self) -> None:
        self._owner.backoff_timers.pop(self.number, None)
        self.move(LocalActivityInput.TRY_AGAIN)

    def _close(self, event: HistoryEvent) -> None:
        marker = event.marker_recorded_event_attributes
        self._owner.forget(self)
        self.handle.let_go()
        if self.handle.done():
            return
        match Outcome(read_data(event)["outcome"]):
            case Outcome.COMPLETED:
                self._complete(marker.details.get(_RESULT))
            case Outcome.CANCELLED:
                self.handle.end_cancelled()
            case _:
                self._fail(marker.failure, read_data(event).get("retry_state", 0))

    def _complete(self, result: Payloads | None) -> None:
        # Types are code too: a default that they take from the clock would be another on replay.
        was_guarded = guard.enter()
        try:
            values = self._owner.scope.converter.from_payloads(result, [self._result_type])
        except Exception as error:  # noqa: BLE001 - converters raise what they please
            self.handle.set_exception(fault_behind(error))
        else:
            self.handle.set_result(values[0] if values else None)
        finally:
            guard.leave(was_guarded)

    def _fail(self, cause: Failure, retry_state: RetryState.ValueType) -> None:
        failure = Failure(message=f"local activity {self.activity_type!r} failed", cause=cause)
        info = failure.activity_failure_info
        info.activity_type.name = self.activity_type
        info.activity_id = self.activity_id
        info.retry_state = retry_state
        self.handle.set_exception(from_failure(failure, self._owner.scope.converter))


class LocalActivities(RunPart):
    """The local activities of one run.

    Attributes:
        open: Those that the code waits for, by number.
        abandoned: Numbers of those that run on and that the code waits for no longer. The worker
            stops all others that are not open.
        backoff_timers: Of those that wait for their next attempt.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.open: dict[int, LocalActivityMachine] = {}
        self.abandoned: set[int] = set()
        self.backoff_timers: dict[int, Any] = {}
        self._count = 0

    def start(
        self,
        activity_type: str,
        arguments: Sequence[object],
        options: LocalActivityOptions,
        activity_id: str | None,
        argument_types: Sequence[object],
        result_type: object,
    ) -> ActivityHandle[Any]:
        """Have one run.

        Raises:
            ValueError: See LocalActivityOptions.check.
            PayloadEncodeError: An argument has no encoding.
        """
        scope = self.scope
        scope.loop.check_writable("starting a local activity")
        options.check(activity_type)
        check_options("activity", activity_id=activity_id)
        payloads = scope.converter.to_payloads(arguments, argument_types)
        self._count += 1
        machine = LocalActivityMachine(
            self._count,
            activity_id or str(self._count),
            activity_type,
            payloads,
            options,
            result_type,
            self,
        )
        self.open[machine.number] = machine
        return machine.handle

    def requests(self) -> list[LocalActivityRequest]:
        """What the worker is to have at work now, oldest first."""
        requests = (machine.request() for machine in self.open.values())
        return [request for request in requests if request is not None]

    def cancel_requested(self) -> set[int]:
        """Numbers of those of them that are asked to cancel."""
        asked = LocalActivityStage.CANCEL_REQUESTED
        return {number for number, machine in self.open.items() if machine.state is asked}

    def end_activation(self) -> None:
        """The code has given control back: what it has started and kept runs now."""
        for machine in self.open.values():
            if machine.state is LocalActivityStage.STARTING:
                machine.move(LocalActivityInput.RUN)

    def forget(self, machine: LocalActivityMachine) -> None:
        """The code waits for it no longer."""
        self.open.pop(machine.number, None)
        timer = self.backoff_timers.pop(machine.number, None)
        if timer is not None:
            timer.cancel()

    def end(self, event: HistoryEvent) -> None:
        """The marker is in the history."""
        number: int = read_field(event, "id", _is_count)
        self.abandoned.discard(number)
        machine = self.open.get(number)
        if machine is None:
            raise _disagreement(event, "has no such local activity open")
        if read_data(event).get("activity_type") != machine.activity_type:
            started = f"{machine.activity_id!r} of type {machine.activity_type!r}"
            raise _disagreement(event, f"started local activity {started}")
        machine.end(event)


def _disagreement(event: HistoryEvent, produced: str) -> NondeterminismError:
    return NondeterminismError(
        event.event_id, event_type_name(event.event_type), _describe(event), produced
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


def _is_outcome(value: object) -> bool:
    return value in _OUTCOMES


def _take(parts: Parts, _: RunCode, event: HistoryEvent) -> bool:
    parts.make(LocalActivities).end(event)
    return True


def _describe(event: HistoryEvent) -> str:
    data = read_data(event)
    return (
        f"what came of local activity {data.get('activity_id')!r} "
        f"of type {data.get('activity_type')!r}"
    )


def end_activation(parts: Parts) -> None:
    """See LocalActivities.end_activation."""
    part = parts.find(LocalActivities)
    if part is not None:
        part.end_activation()


KIND: Final = MarkerKind(name=NAME, describe=_describe, take=_take)
