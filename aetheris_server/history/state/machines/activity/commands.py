"""What the run's code commands of its activities."""

from dataclasses import dataclass, field

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris_server.history.state.command_checks import CommandRefusedError
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.machines.activity.checks import check_activity, fill_activity
from aetheris_server.history.state.run import RunState


@dataclass(slots=True)
class _Changed:
    """What earlier commands have made of the activities.

    Attributes:
        scheduled_ids: The activity ids that they have taken.
        cancel_requested_ids: Scheduled events of those that they have asked to cancel.
    """

    scheduled_ids: set[str] = field(default_factory=set[str])
    cancel_requested_ids: set[int] = field(default_factory=set[int])


def schedule(commands: CommandPass, command: command_pb2.Command) -> None:
    """Schedule an activity."""
    given = command.schedule_activity_task_command_attributes
    check_activity(given, commands.limits)
    changed = commands.parts.make(_Changed)
    _check_new(commands, changed, given.activity_id)
    attributes = fill_activity(given, commands.state.started)
    attributes.workflow_task_completed_event_id = commands.completed_id
    event_id = commands.draft.add(history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, attributes)
    changed.scheduled_ids.add(given.activity_id)
    if given.request_eager_execution and attributes.task_queue.name == commands.state.task_queue:
        commands.decision.eager_event_ids.append(event_id)


def _check_new(commands: CommandPass, changed: _Changed, activity_id: str) -> None:
    state = commands.state
    if activity_id in state.activity_ids or activity_id in changed.scheduled_ids:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_SCHEDULE_ACTIVITY_DUPLICATE_ID,
            f"activity_id is {activity_id!r}, expected one that no open activity has",
        )
    pending = len(state.activities) + len(changed.scheduled_ids)
    if pending >= commands.limits.max_pending_activities:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PENDING_ACTIVITIES_LIMIT_EXCEEDED,
            f"{pending} activities are open, the most that a run may have",
        )


def request_cancel(commands: CommandPass, command: command_pb2.Command) -> None:
    """Ask an activity to cancel.

    One that nobody has closes at once, behind the events of all commands.
    """
    scheduled_id = command.request_cancel_activity_task_command_attributes.scheduled_event_id
    if scheduled_id in commands.parts.make(_Changed).cancel_requested_ids:
        return
    activity = commands.state.activities.get(scheduled_id)
    if activity is None:
        _check_late_cancel(commands.state, scheduled_id)
        _add_cancel_requested(commands, scheduled_id)
        return
    if activity.cancel_requested_event_id:
        return
    requested_id = _add_cancel_requested(commands, scheduled_id)
    if scheduled_id in commands.inflight.activities:
        commands.decision.cancelled_event_ids.append(scheduled_id)
    else:
        commands.at_end.append(lambda: _add_cancelled(commands, scheduled_id, requested_id))


def _check_late_cancel(state: RunState, scheduled_id: int) -> None:
    """The activity closed while the worker decided; its end is among the buffered events."""
    if not any(_closes(event, scheduled_id) for event in state.buffered_events):
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES,
            f"scheduled_event_id is {scheduled_id}, expected that of an open activity",
        )


def _closes(event: history_pb2.HistoryEvent, scheduled_id: int) -> bool:
    """Whether it is the started event, which comes with each end, or the end without one."""
    match event.event_type:
        case history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            return event.activity_task_started_event_attributes.scheduled_event_id == scheduled_id
        case history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
            timed_out = event.activity_task_timed_out_event_attributes
            return timed_out.scheduled_event_id == scheduled_id
        case _:
            return False


def _add_cancel_requested(commands: CommandPass, scheduled_id: int) -> int:
    commands.parts.make(_Changed).cancel_requested_ids.add(scheduled_id)
    return commands.draft.add(
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED,
        history_pb2.ActivityTaskCancelRequestedEventAttributes(
            scheduled_event_id=scheduled_id,
            workflow_task_completed_event_id=commands.completed_id,
        ),
    )


def _add_cancelled(commands: CommandPass, scheduled_id: int, requested_id: int) -> None:
    commands.draft.add(
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED,
        history_pb2.ActivityTaskCancelledEventAttributes(
            latest_cancel_requested_event_id=requested_id,
            scheduled_event_id=scheduled_id,
            identity="history",
        ),
    )
