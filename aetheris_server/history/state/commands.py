"""A worker's decision: the commands of a completed workflow task, judged and turned into events.

All commands are recorded, in order, or none is: one that is refused fails the workflow task with
the cause that names the kind of fault. What a command comes to is its machine's.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import cast

from aetheris.api.v1 import command_pb2, failure_pb2, history_pb2, worker_service_pb2
from aetheris_server.history.state.command_checks import CommandRefusedError
from aetheris_server.history.state.command_pass import CommandPass, Decision
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.workflow_task.ending import (
    append_completed,
    append_failed,
    append_timed_out,
    heartbeat_since,
    require_started,
)
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.run import RunState

NO_NAMESPACES: Mapping[str, str] = MappingProxyType({})
"""Of a decision that names none but the run's own."""

_NAMING = {
    command_pb2.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION: (
        "start_child_workflow_execution_command_attributes"
    ),
    command_pb2.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION: (
        "signal_external_workflow_execution_command_attributes"
    ),
    command_pb2.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION: (
        "request_cancel_external_workflow_execution_command_attributes"
    ),
}


def named_namespaces(request: worker_service_pb2.RespondWorkflowTaskCompletedRequest) -> set[str]:
    """The namespaces other than the run's own that the commands of a decision name."""
    names = {
        getattr(command, _NAMING[command.command_type]).namespace
        for command in request.commands
        if command.command_type in _NAMING
    }
    return names - {"", request.namespace}


def decide_workflow_task_completed(
    state: RunState,
    inflight: Inflight,
    request: worker_service_pb2.RespondWorkflowTaskCompletedRequest,
    start_id: str,
    now: datetime,
    limits: RunLimits,
    namespaces: Mapping[str, str] = NO_NAMESPACES,
) -> Decision:
    """Record a decision, or fail the workflow task because of it.

    Args:
        state: The run's.
        inflight: What workers have of it.
        request: The worker's.
        start_id: Of the workflow task.
        now: The run's time.
        limits: What the run is held to.
        namespaces: The ids of the namespaces that commands name, as far as there are any.

    Raises:
        TaskNotFoundError: The answer is stale.
    """
    started = require_started(state, inflight, start_id)
    since = heartbeat_since(inflight, started, request)
    draft = Draft(state, inflight, now)
    if since is not None and now - since >= limits.max_heartbeat:
        append_timed_out(draft, started)
        return Decision(draft.record, is_overdue=True)
    completed_id = append_completed(draft, started, request)
    commands = CommandPass(state, inflight, request, draft, limits, completed_id, namespaces)
    try:
        decision = _run(commands)
        decision.heartbeat_since = since
        return decision
    except CommandRefusedError as refused:
        draft = Draft(state, inflight, now)
        failure = failure_pb2.Failure(message=str(refused), source="server")
        failure.server_failure_info.non_retryable = False
        append_failed(draft, started, refused.cause, failure, request.identity)
        return Decision(draft.record, refused=refused)


def _run(commands: CommandPass) -> Decision:
    draft, decision = commands.draft, commands.decision
    _check_history_limit(commands)
    for index, command in enumerate(commands.request.commands):
        try:
            _handle(commands, command)
        except CommandRefusedError as refused:
            refused.locate(index, command)
            raise
        if draft.is_closing:
            decision.eager_event_ids.clear()
            return decision
    for append in commands.at_end:
        append()
    flushed = commands.flush()
    if flushed or commands.at_end or commands.request.force_create_new_workflow_task:
        draft.schedule_workflow_task()
    return decision


def _handle(commands: CommandPass, command: command_pb2.Command) -> None:
    handler = RUN_MACHINES.commands.get(command.command_type)
    if handler is None:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FEATURE_DISABLED,
            f"{_name_of(command.command_type)} is not served by this version",
        )
    handler(commands, command)


def _check_history_limit(commands: CommandPass) -> None:
    limit = commands.limits.history_max_events
    given = commands.request.commands
    if commands.draft.next_event_id <= limit or not given:
        return
    if not any(command.command_type in RUN_MACHINES.closing_commands for command in given):
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_HISTORY_LIMIT_EXCEEDED,
            f"the history has reached its limit of {limit} events; continue as new",
        )


def _name_of(command_type: int) -> str:
    """The enum's name for it, or the number of one from a later version."""
    known = {number: name for name, number in command_pb2.CommandType.items()}
    return known.get(cast("command_pb2.CommandType.ValueType", command_type), str(command_type))
