"""Timers.

    none ──started──► open ──fired──────► none
                        └────cancelled──► none

A timer that fires while a worker decides is closed at once, and its event is buffered. If the
decision cancels it, the buffered event is withdrawn: to the code it never fired.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import state_pb2
from aetheris_server.history.aggregates.records import find_unknown
from aetheris_server.history.state.command_checks import CommandRefusedError, check_id
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machine import Machine, OnEvent
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import (
    MAX_DURATION,
    ZERO,
    from_duration,
    from_timestamp,
    is_over_maximum,
    to_timestamp,
)

_TIMER_BYTES = 512
"""What one takes in memory."""

_BAD_START = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_TIMER_ATTRIBUTES


@dataclass(slots=True)
class TimerState:
    """A timer that has not fired."""

    timer_id: str
    started_event_id: int
    fire_time: datetime


# Commands.


@dataclass(slots=True)
class _Changed:
    """What earlier commands have made of the timers.

    Attributes:
        started: The started events of timers that they have started, by timer id.
        cancelled: Ids of timers that were open before, and that they have cancelled.
    """

    started: dict[str, int] = field(default_factory=dict[str, int])
    cancelled: set[str] = field(default_factory=set[str])

    def find_open(self, state: RunState, timer_id: str) -> int | None:
        """The started event of a timer that is open as things stand."""
        if timer_id in self.started:
            return self.started[timer_id]
        timer = state.timers.get(timer_id) if timer_id not in self.cancelled else None
        return timer.started_event_id if timer is not None else None

    def count_open(self, state: RunState) -> int:
        """How many timers are open as things stand."""
        return len(state.timers) - len(self.cancelled) + len(self.started)


def _start(commands: CommandPass, command: command_pb2.Command) -> None:
    given = command.start_timer_command_attributes
    _check_given(given, commands.limits)
    changed = commands.parts.make(_Changed)
    _check_free(commands, changed, given.timer_id)
    changed.started[given.timer_id] = commands.draft.add(
        history_pb2.EVENT_TYPE_TIMER_STARTED,
        history_pb2.TimerStartedEventAttributes(
            timer_id=given.timer_id,
            start_to_fire_timeout=given.start_to_fire_timeout,
            workflow_task_completed_event_id=commands.completed_id,
        ),
    )


def _check_given(given: command_pb2.StartTimerCommandAttributes, limits: RunLimits) -> None:
    check_id(given.timer_id, "timer_id", _BAD_START, limits)
    timeout = from_duration(given.start_to_fire_timeout)
    if timeout <= ZERO:
        raise CommandRefusedError(
            _BAD_START,
            f"start_to_fire_timeout is {timeout.total_seconds():g} s, expected more than zero",
        )
    if is_over_maximum(given.start_to_fire_timeout):
        raise CommandRefusedError(
            _BAD_START,
            f"start_to_fire_timeout is {given.start_to_fire_timeout.seconds} s, "
            f"expected at most {MAX_DURATION}",
        )


def _check_free(commands: CommandPass, changed: _Changed, timer_id: str) -> None:
    if changed.find_open(commands.state, timer_id) is not None:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_START_TIMER_DUPLICATE_ID,
            f"timer_id is {timer_id!r}, expected one that no open timer has",
        )
    count = changed.count_open(commands.state)
    if count >= commands.limits.max_pending_timers:
        raise CommandRefusedError(
            _BAD_START, f"{count} timers are open, the most that a run may have"
        )


def _cancel(commands: CommandPass, command: command_pb2.Command) -> None:
    timer_id = command.cancel_timer_command_attributes.timer_id
    changed = commands.parts.make(_Changed)
    started_id = changed.find_open(commands.state, timer_id)
    if started_id is None:
        started_id = _withdraw_fired(commands, timer_id)
    elif changed.started.pop(timer_id, None) is None:
        changed.cancelled.add(timer_id)
    commands.draft.add(
        history_pb2.EVENT_TYPE_TIMER_CANCELLED,
        history_pb2.TimerCancelledEventAttributes(
            timer_id=timer_id,
            started_event_id=started_id,
            workflow_task_completed_event_id=commands.completed_id,
            identity=commands.request.identity,
        ),
    )


def _withdraw_fired(commands: CommandPass, timer_id: str) -> int:
    """The timer fired while the worker decided: the buffered event is taken back."""
    for index, event in enumerate(commands.state.buffered_events):
        if (
            event.event_type == history_pb2.EVENT_TYPE_TIMER_FIRED
            and index not in commands.withdrawn
        ):
            fired = event.timer_fired_event_attributes
            if fired.timer_id == timer_id:
                commands.withdrawn.add(index)
                return fired.started_event_id
    raise CommandRefusedError(
        history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_CANCEL_TIMER_ATTRIBUTES,
        f"timer_id is {timer_id!r}, expected that of an open timer",
    )


# Events.


def _started(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.timer_started_event_attributes
    state.timers[attributes.timer_id] = TimerState(
        timer_id=attributes.timer_id,
        started_event_id=event.event_id,
        fire_time=(
            from_timestamp(event.event_time) + from_duration(attributes.start_to_fire_timeout)
        ),
    )
    state.held_bytes += _TIMER_BYTES


def _fired(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.timer_fired_event_attributes
    _close_one(state, attributes.timer_id, attributes.started_event_id)


def _cancelled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.timer_cancelled_event_attributes
    _close_one(state, attributes.timer_id, attributes.started_event_id)


def _close_one(state: RunState, timer_id: str, started_event_id: int) -> None:
    # Another timer may have taken the id before the buffered event gets its number.
    timer = state.timers.get(timer_id)
    if timer is not None and timer.started_event_id == started_event_id:
        del state.timers[timer_id]
        state.held_bytes -= _TIMER_BYTES


def _close(state: RunState) -> None:
    state.held_bytes -= _TIMER_BYTES * len(state.timers)
    state.timers.clear()


# Deadlines.


def _deadlines(state: RunState, _inflight: Inflight, _now: datetime) -> Iterable[datetime]:
    return [timer.fire_time for timer in state.timers.values()]


def _new_deadlines(state: RunState, event: history_pb2.HistoryEvent) -> Iterable[datetime]:
    timer = state.timers.get(event.timer_started_event_attributes.timer_id)
    return (timer.fire_time,) if timer is not None else ()


def _fire_due(draft: Draft, state: RunState, _inflight: Inflight, _at: float) -> None:
    due = sorted(
        (timer for timer in state.timers.values() if timer.fire_time <= draft.now),
        key=lambda timer: (timer.fire_time, timer.started_event_id),
    )
    for timer in due:
        draft.add_or_buffer(
            history_pb2.EVENT_TYPE_TIMER_FIRED,
            history_pb2.TimerFiredEventAttributes(
                timer_id=timer.timer_id, started_event_id=timer.started_event_id
            ),
        )
    if due:
        draft.ensure_workflow_task()


# Snapshots, and what users see.


def _save(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    for timer in state.timers.values():
        snapshot.timers.add(
            timer_id=timer.timer_id,
            started_event_id=timer.started_event_id,
            fire_time=to_timestamp(timer.fire_time),
        )


def _load(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    for timer in snapshot.timers:
        state.timers[timer.timer_id] = TimerState(
            timer.timer_id, timer.started_event_id, from_timestamp(timer.fire_time)
        )
    state.held_bytes += _TIMER_BYTES * len(state.timers)


def _find_unknown(snapshot: state_pb2.RunSnapshot) -> str | None:
    found = (find_unknown(timer) for timer in snapshot.timers)
    return next((unknown for unknown in found if unknown is not None), None)


def _describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    response.pending_timers.extend(
        workflow_pb2.PendingTimerInfo(
            timer_id=timer.timer_id,
            fire_time=to_timestamp(timer.fire_time),
            started_event_id=timer.started_event_id,
        )
        for timer in state.timers.values()
    )


def _waits(
    state: RunState, _inflight: Inflight, _now: datetime
) -> Iterable[workflow_pb2.WaitReason]:
    return [
        workflow_pb2.WaitReason(
            kind=workflow_pb2.WAIT_KIND_TIMER,
            subject=timer.timer_id,
            until_time=to_timestamp(timer.fire_time),
        )
        for timer in state.timers.values()
    ]


MACHINE = Machine(
    name="timer",
    commands={
        command_pb2.COMMAND_TYPE_START_TIMER: _start,
        command_pb2.COMMAND_TYPE_CANCEL_TIMER: _cancel,
    },
    events={
        history_pb2.EVENT_TYPE_TIMER_STARTED: OnEvent(_started, deadlines=_new_deadlines),
        history_pb2.EVENT_TYPE_TIMER_FIRED: OnEvent(_fired),
        history_pb2.EVENT_TYPE_TIMER_CANCELLED: OnEvent(_cancelled),
    },
    deadlines=_deadlines,
    decide_due=_fire_due,
    close=_close,
    save=_save,
    load=_load,
    find_unknown=_find_unknown,
    describe=_describe,
    waits=_waits,
)
