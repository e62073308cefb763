"""What the run's code commands of its children."""

from dataclasses import dataclass

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2
from aetheris_server.history.state.command_checks import CommandRefusedError
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.machines.child.checks import check_child
from aetheris_server.history.state.machines.child.values import children_of, copy_start


@dataclass(slots=True)
class _Changed:
    """How many children earlier commands have initiated."""

    initiated_count: int = 0


def start(commands: CommandPass, command: command_pb2.Command) -> None:
    """Start a child. Where there is no such namespace, it fails at once."""
    given = command.start_child_workflow_execution_command_attributes
    check_child(given, commands.limits)
    changed = commands.parts.make(_Changed)
    _check_room(commands, changed)
    initiated = _fill(commands, given)
    event_id = commands.draft.add(
        history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED, initiated
    )
    changed.initiated_count += 1
    if not initiated.namespace_id:
        commands.at_end.append(lambda: _add_failed(commands, event_id, initiated))


def _check_room(commands: CommandPass, changed: _Changed) -> None:
    pending = len(children_of(commands.state)) + changed.initiated_count
    if pending >= commands.limits.max_pending_children:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PENDING_CHILD_WORKFLOWS_LIMIT_EXCEEDED,
            f"{pending} children are open, the most that a run may have",
        )


def _fill(
    commands: CommandPass, given: command_pb2.StartChildWorkflowExecutionCommandAttributes
) -> history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes:
    """What the initiated event says: as given, what was left open filled in."""
    initiated = history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes(
        namespace=given.namespace or commands.request.namespace,
        namespace_id=commands.namespace_id(given.namespace),
        workflow_id=given.workflow_id,
        workflow_type=given.workflow_type,
        task_queue=(
            given.task_queue if given.task_queue.name else commands.state.started.task_queue
        ),
        parent_close_policy=(
            given.parent_close_policy or workflow_pb2.PARENT_CLOSE_POLICY_TERMINATE
        ),
        workflow_task_completed_event_id=commands.completed_id,
        workflow_id_reuse_policy=(
            given.workflow_id_reuse_policy or workflow_pb2.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE
        ),
    )
    copy_start(given, initiated)
    return initiated


def _add_failed(
    commands: CommandPass,
    event_id: int,
    initiated: history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes,
) -> None:
    commands.draft.add(
        history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED,
        to_start_failed(
            event_id,
            initiated,
            history_pb2.START_CHILD_WORKFLOW_FAILED_CAUSE_NAMESPACE_NOT_FOUND,
        ),
    )


def to_start_failed(
    event_id: int,
    initiated: history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes,
    cause: "history_pb2.StartChildWorkflowFailedCause.ValueType",
) -> history_pb2.StartChildWorkflowExecutionFailedEventAttributes:
    """What the event says by which a child that could not be started ends."""
    return history_pb2.StartChildWorkflowExecutionFailedEventAttributes(
        namespace=initiated.namespace,
        workflow_id=initiated.workflow_id,
        workflow_type=initiated.workflow_type,
        cause=cause,
        initiated_event_id=event_id,
        workflow_task_completed_event_id=initiated.workflow_task_completed_event_id,
    )
