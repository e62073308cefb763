"""How an activity is given out and tried again, as it may be changed while the activity is open."""

from google.protobuf import field_mask_pb2

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.state.machines.activity.checks import fill_activity, find_options_fault
from aetheris_server.history.state.machines.activity.values import ActivityState

_TIMEOUTS = (
    "schedule_to_close_timeout",
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "heartbeat_timeout",
)


def to_options(activity: ActivityState) -> workflow_pb2.ActivityOptions:
    """All of them, as they are."""
    scheduled = activity.scheduled
    options = workflow_pb2.ActivityOptions(
        task_queue=scheduled.task_queue, retry_policy=scheduled.retry_policy
    )
    for name in _TIMEOUTS:
        if scheduled.HasField(name):
            getattr(options, name).CopyFrom(getattr(scheduled, name))
    return options


def change_options(
    activity: ActivityState,
    given: workflow_pb2.ActivityOptions,
    mask: field_mask_pb2.FieldMask,
    started: history_pb2.WorkflowExecutionStartedEventAttributes,
) -> workflow_pb2.ActivityOptions:
    """All of them, once what the mask names is as given; what is left open is filled in as when an
    activity is scheduled.

    Args:
        activity: As it is.
        given: The new values.
        mask: Paths in `ActivityOptions`, which the caller has checked.
        started: What the run was started with.

    Raises:
        InvalidArgumentError: An activity could not be scheduled so.
    """
    options = to_options(activity)
    mask.MergeMessage(given, options, replace_message_field=True, replace_repeated_field=True)
    command = command_pb2.ScheduleActivityTaskCommandAttributes(
        task_queue=options.task_queue,
        retry_policy=options.retry_policy if options.HasField("retry_policy") else None,
    )
    for name in _TIMEOUTS:
        if options.HasField(name):
            getattr(command, name).CopyFrom(getattr(options, name))
    fault = find_options_fault(command)
    if fault is not None:
        raise InvalidArgumentError("activity_options", fault)
    filled = history_pb2.ActivityTaskScheduledEventAttributes()
    filled.CopyFrom(fill_activity(command, started))
    changed = workflow_pb2.ActivityOptions(
        task_queue=filled.task_queue, retry_policy=filled.retry_policy
    )
    for name in _TIMEOUTS:
        if filled.HasField(name):
            getattr(changed, name).CopyFrom(getattr(filled, name))
    return changed


def apply_options(
    scheduled: history_pb2.ActivityTaskScheduledEventAttributes,
    options: workflow_pb2.ActivityOptions,
) -> history_pb2.ActivityTaskScheduledEventAttributes:
    """What was scheduled, with other options; the event that says so stays as it is."""
    changed = history_pb2.ActivityTaskScheduledEventAttributes()
    changed.CopyFrom(scheduled)
    changed.task_queue.CopyFrom(options.task_queue)
    changed.retry_policy.CopyFrom(options.retry_policy)
    for name in _TIMEOUTS:
        changed.ClearField(name)
        if options.HasField(name):
            getattr(changed, name).CopyFrom(getattr(options, name))
    return changed
