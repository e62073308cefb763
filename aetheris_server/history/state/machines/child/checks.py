"""What makes the command that starts a child bad by itself.

What is not refused here the child's host must take: a start that it refuses tells little.
"""

from aetheris.api.v1 import command_pb2, common_pb2, history_pb2, workflow_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.state.command_checks import CommandRefusedError, check_id, check_size
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.activity.checks import find_priority_fault
from aetheris_server.history.state.retry import find_policy_fault
from aetheris_server.history.times import MAX_DURATION, ZERO, from_duration, is_over_maximum
from aetheris_server.rpc.search_attributes import check_search_attributes

_BAD = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_CHILD_EXECUTION_ATTRIBUTES
# As at the border for every run that is started from outside.
_MAX_TASK_TIMEOUT_SECONDS = 120


def check_child(
    given: command_pb2.StartChildWorkflowExecutionCommandAttributes, limits: RunLimits
) -> None:
    """Refuse a child that could not be started as asked.

    Raises:
        CommandRefusedError: BAD_START_CHILD_EXECUTION_ATTRIBUTES, BAD_SEARCH_ATTRIBUTES or
            PAYLOADS_TOO_LARGE.
    """
    check_id(given.workflow_id, "workflow_id", _BAD, limits)
    check_id(given.workflow_type.name, "workflow_type.name", _BAD, limits)
    if given.namespace:
        check_id(given.namespace, "namespace", _BAD, limits)
    if given.task_queue.name:
        check_id(given.task_queue.name, "task_queue.name", _BAD, limits)
    check_size(given, limits)
    fault = _find_timeout_fault(given) or _find_policy_fault(given)
    fault = fault or find_priority_fault(given.priority)
    if given.HasField("retry_policy"):
        fault = fault or find_policy_fault(given.retry_policy)
    if given.cron_schedule:
        fault = fault or "cron_schedule is set, expected none: it is not served by this version"
    if any("\0" in name for name in given.memo.fields):
        fault = fault or "memo.fields has a name with a U+0000, expected none"
    if fault is not None:
        raise CommandRefusedError(_BAD, fault)
    _check_search_attributes(given.search_attributes, limits)


def _find_timeout_fault(
    given: command_pb2.StartChildWorkflowExecutionCommandAttributes,
) -> str | None:
    for name in ("workflow_execution_timeout", "workflow_run_timeout", "workflow_task_timeout"):
        timeout = getattr(given, name)
        if from_duration(timeout) < ZERO:
            return f"{name} is negative, expected zero or more"
        if is_over_maximum(timeout):
            return f"{name} is {timeout.seconds} s, expected at most {MAX_DURATION}"
    seconds = from_duration(given.workflow_task_timeout).total_seconds()
    if seconds > _MAX_TASK_TIMEOUT_SECONDS:
        return f"workflow_task_timeout is {seconds} s, expected at most {_MAX_TASK_TIMEOUT_SECONDS}"
    return None


def _find_policy_fault(
    given: command_pb2.StartChildWorkflowExecutionCommandAttributes,
) -> str | None:
    if given.parent_close_policy not in workflow_pb2.ParentClosePolicy.values():
        return f"parent_close_policy is {given.parent_close_policy}, expected one of this version"
    if given.workflow_id_reuse_policy not in workflow_pb2.WorkflowIdReusePolicy.values():
        policy = given.workflow_id_reuse_policy
        return f"workflow_id_reuse_policy is {policy}, expected one of this version"
    return None


def _check_search_attributes(attributes: common_pb2.SearchAttributes, limits: RunLimits) -> None:
    try:
        check_search_attributes(attributes, limits.id_max_bytes)
    except InvalidArgumentError as error:
        bad = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES
        raise CommandRefusedError(bad, str(error)) from None
