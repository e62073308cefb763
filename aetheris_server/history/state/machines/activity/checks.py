"""What makes an activity's command bad by itself, and what it means where it leaves things open."""

import math
from datetime import timedelta

from google.protobuf import duration_pb2

from aetheris.api.v1 import command_pb2, common_pb2, history_pb2, workflow_pb2
from aetheris_server.build_ids import BUILD_PREFIX
from aetheris_server.history.state.command_checks import (
    CommandRefusedError,
    check_id,
    check_size,
)
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.retry import fill_policy, find_policy_fault
from aetheris_server.history.times import (
    MAX_DURATION,
    ZERO,
    from_duration,
    is_over_maximum,
    to_duration,
)

_LOWEST_PRIORITY = 5
# No poll can have more, so nobody could take it.
_MAX_CAPABILITIES = 100


def check_activity(
    given: command_pb2.ScheduleActivityTaskCommandAttributes, limits: RunLimits
) -> None:
    """Refuse an activity that could not be run as asked.

    Raises:
        CommandRefusedError: BAD_SCHEDULE_ACTIVITY_ATTRIBUTES or PAYLOADS_TOO_LARGE.
    """
    bad = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SCHEDULE_ACTIVITY_ATTRIBUTES
    check_id(given.activity_id, "activity_id", bad, limits)
    check_id(given.activity_type.name, "activity_type.name", bad, limits)
    if given.task_queue.name:
        check_id(given.task_queue.name, "task_queue.name", bad, limits)
    for capability in given.capabilities:
        check_id(capability, "capabilities", bad, limits)
    check_size(given, limits)
    fault = find_options_fault(given)
    fault = fault or find_priority_fault(given.priority)
    if any(capability.startswith(BUILD_PREFIX) for capability in given.capabilities):
        fault = f"capabilities has one that begins with {BUILD_PREFIX!r}, which none may"
    if len(set(given.capabilities)) != len(given.capabilities):
        fault = "capabilities has a name twice, expected each once"
    if len(given.capabilities) > _MAX_CAPABILITIES:
        count = len(given.capabilities)
        fault = f"capabilities has {count} names, expected at most {_MAX_CAPABILITIES}"
    if given.delivery not in workflow_pb2.ActivityDelivery.values():
        fault = f"delivery is {given.delivery}, expected one of this version"
    if fault is not None:
        raise CommandRefusedError(bad, fault)


def find_options_fault(given: command_pb2.ScheduleActivityTaskCommandAttributes) -> str | None:
    """What is wrong with its timeouts or its retry policy; None if nothing."""
    return _find_timeout_fault(given) or find_policy_fault(given.retry_policy)


def _find_timeout_fault(given: command_pb2.ScheduleActivityTaskCommandAttributes) -> str | None:
    for name in ("schedule_to_close", "schedule_to_start", "start_to_close", "heartbeat"):
        timeout = getattr(given, f"{name}_timeout")
        if from_duration(timeout) < ZERO:
            return f"{name}_timeout is negative, expected zero or more"
        if is_over_maximum(timeout):
            return f"{name}_timeout is {timeout.seconds} s, expected at most {MAX_DURATION}"
    if not (
        from_duration(given.schedule_to_close_timeout)
        or from_duration(given.start_to_close_timeout)
    ):
        return "start_to_close_timeout is not set, expected it or schedule_to_close_timeout"
    return None


def find_priority_fault(priority: common_pb2.Priority) -> str | None:
    """What is wrong with an order of tasks; None for nothing."""
    if not 0 <= priority.priority_key <= _LOWEST_PRIORITY:
        return f"priority.priority_key is {priority.priority_key}, expected 0 to {_LOWEST_PRIORITY}"
    if not (math.isfinite(priority.fairness_weight) and priority.fairness_weight >= 0):
        return f"priority.fairness_weight is {priority.fairness_weight}, expected 0 or more"
    return None


def fill_activity(
    given: command_pb2.ScheduleActivityTaskCommandAttributes,
    started: history_pb2.WorkflowExecutionStartedEventAttributes,
) -> history_pb2.ActivityTaskScheduledEventAttributes:
    """What the activity's scheduled event says: as given, what was left open filled in.

    No timeout is longer than the run may take.

    Source:
        Temporal's rules for activity timeouts.
    """
    run_timeout = from_duration(started.workflow_run_timeout)
    schedule_to_close = from_duration(given.schedule_to_close_timeout)
    schedule_to_start = from_duration(given.schedule_to_start_timeout)
    start_to_close = from_duration(given.start_to_close_timeout) or schedule_to_close
    heartbeat = from_duration(given.heartbeat_timeout)
    return history_pb2.ActivityTaskScheduledEventAttributes(
        activity_id=given.activity_id,
        activity_type=given.activity_type,
        task_queue=given.task_queue if given.task_queue.name else started.task_queue,
        header=given.header if given.HasField("header") else None,
        input=given.input if given.HasField("input") else None,
        schedule_to_close_timeout=_shortest(schedule_to_close, run_timeout),
        schedule_to_start_timeout=(
            _shortest(schedule_to_start, schedule_to_close, run_timeout)
            if schedule_to_start
            else None
        ),
        start_to_close_timeout=_shortest(start_to_close, schedule_to_close, run_timeout),
        heartbeat_timeout=(
            _shortest(heartbeat, start_to_close, schedule_to_close, run_timeout)
            if heartbeat
            else None
        ),
        retry_policy=fill_policy(given.retry_policy),
        priority=given.priority if given.HasField("priority") else None,
        capabilities=sorted(given.capabilities),
        delivery=given.delivery or workflow_pb2.ACTIVITY_DELIVERY_AT_LEAST_ONCE,
    )


def _shortest(*timeouts: timedelta) -> duration_pb2.Duration | None:
    """The shortest of those that are not zero; None if all are."""
    positive = [timeout for timeout in timeouts if timeout]
    return to_duration(min(positive)) if positive else None
