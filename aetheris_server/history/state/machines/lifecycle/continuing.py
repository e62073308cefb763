"""The command with which the run's code goes on in a new run."""

from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2
from aetheris_server.history.state.command_checks import CommandRefusedError, check_id
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.machines.lifecycle.close import prepare_close
from aetheris_server.history.state.machines.lifecycle.successor import next_run_id
from aetheris_server.history.state.machines.properties import check_attributes
from aetheris_server.history.state.retry import fill_policy, find_policy_fault
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import (
    ZERO,
    from_duration,
    is_over_maximum,
    to_duration,
)

Given = command_pb2.ContinueAsNewWorkflowExecutionCommandAttributes

_CAUSE = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_CONTINUE_AS_NEW_ATTRIBUTES
_MAX_TASK_TIMEOUT = timedelta(seconds=120)
_INITIATORS = frozenset(
    {
        workflow_pb2.CONTINUE_AS_NEW_INITIATOR_UNSPECIFIED,
        workflow_pb2.CONTINUE_AS_NEW_INITIATOR_WORKFLOW,
    }
)


def continue_as_new(commands: CommandPass, command: command_pb2.Command) -> None:
    """The code goes on in a new run: the event says how, what it leaves out stays as it is."""
    given = command.continue_as_new_workflow_execution_command_attributes
    prepare_close(commands, given)
    _check(commands, given)
    state, draft = commands.state, commands.draft
    started = state.started
    backoff = _backoff(state, given, draft.now, commands.limits.min_continue_interval)
    attributes = history_pb2.WorkflowExecutionContinuedAsNewEventAttributes(
        new_execution_run_id=next_run_id(state.key.run_id),
        workflow_type=given.workflow_type if given.workflow_type.name else started.workflow_type,
        task_queue=given.task_queue if given.task_queue.name else started.task_queue,
        workflow_task_completed_event_id=commands.completed_id,
        backoff_start_interval=to_duration(backoff) if backoff else None,
        initiator=workflow_pb2.CONTINUE_AS_NEW_INITIATOR_WORKFLOW,
    )
    for name in ("workflow_run_timeout", "workflow_task_timeout"):
        duration = getattr(given, name)
        if not from_duration(duration):
            duration = getattr(started, name)
        if from_duration(duration):
            getattr(attributes, name).CopyFrom(duration)
    for name in (
        "input",
        "failure",
        "last_completion_result",
        "header",
        "memo",
        "search_attributes",
    ):
        if given.HasField(name):
            getattr(attributes, name).CopyFrom(getattr(given, name))
    if given.HasField("retry_policy"):
        attributes.retry_policy.CopyFrom(fill_policy(given.retry_policy))
    elif started.HasField("retry_policy"):
        attributes.retry_policy.CopyFrom(started.retry_policy)
    draft.close(history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW, attributes)


def _backoff(state: RunState, given: Given, now: datetime, min_interval: timedelta) -> timedelta:
    """How long the new run waits: code that goes on as new at once, and again, must not spin."""
    began = state.start_time + from_duration(state.started.first_workflow_task_backoff)
    return max(from_duration(given.backoff_start_interval), began + min_interval - now, ZERO)


def _check(commands: CommandPass, given: Given) -> None:
    for name, value in (
        ("workflow_type.name", given.workflow_type.name),
        ("task_queue.name", given.task_queue.name),
    ):
        if value:
            check_id(value, name, _CAUSE, commands.limits)
    _check_duration("workflow_run_timeout", given.workflow_run_timeout)
    _check_duration("workflow_task_timeout", given.workflow_task_timeout, _MAX_TASK_TIMEOUT)
    _check_duration("backoff_start_interval", given.backoff_start_interval)
    fault = find_policy_fault(given.retry_policy)
    if fault is not None:
        raise CommandRefusedError(_CAUSE, fault)
    if given.initiator not in _INITIATORS:
        raise CommandRefusedError(
            _CAUSE, f"initiator is {given.initiator}, expected one of {sorted(_INITIATORS)}"
        )
    if given.cron_schedule:
        raise CommandRefusedError(
            _CAUSE, "cron_schedule is set, expected none: it is not served by this version"
        )
    check_attributes(commands, given.search_attributes)


def _check_duration(name: str, value: Duration, maximum: timedelta | None = None) -> None:
    if value.seconds < 0 or value.nanos < 0:
        found = value.seconds + value.nanos / 1e9
        raise CommandRefusedError(_CAUSE, f"{name} is {found} s, expected zero or more")
    if is_over_maximum(value) or (maximum is not None and from_duration(value) > maximum):
        limit = "a hundred years" if maximum is None else f"{maximum.total_seconds():g} s"
        raise CommandRefusedError(_CAUSE, f"{name} is {value.seconds} s, expected at most {limit}")
