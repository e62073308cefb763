"""What the run's code says of an update: that it is accepted, and what it comes to."""

from dataclasses import dataclass, field

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris_server.history.state.command_checks import CommandRefusedError, check_size
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.machines.update.values import Updates

_CAUSE = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_UPDATE_WORKFLOW_EXECUTION_MESSAGE


@dataclass(slots=True)
class _Changed:
    """What earlier commands have accepted, to the accepting event's id, and completed."""

    accepted: dict[str, int] = field(default_factory=dict[str, int])
    completed: set[str] = field(default_factory=set[str])


def take_step(commands: CommandPass, command: command_pb2.Command) -> None:
    """Accept an update, or complete one."""
    given = command.protocol_message_command_attributes
    check_size(given, commands.limits)
    match given.WhichOneof("step"):
        case "acceptance":
            _accept(commands, given.message_id)
        case "outcome":
            _complete(commands, given.message_id, given.outcome)
        case None:
            raise CommandRefusedError(_CAUSE, "step: expected acceptance or outcome, found none")


def _accept(commands: CommandPass, update_id: str) -> None:
    changed = commands.parts.make(_Changed)
    started = commands.inflight.workflow_task
    assert started is not None
    request = next((each for each in started.updates if each.update_id == update_id), None)
    if request is None or update_id in changed.accepted:
        raise CommandRefusedError(
            _CAUSE,
            f"message_id: expected an update that the task brought and that is not accepted,"
            f" found {update_id!r}",
        )
    changed.accepted[update_id] = commands.draft.add(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
        history_pb2.WorkflowExecutionUpdateAcceptedEventAttributes(
            update_id=update_id,
            accepted_request_sequencing_event_id=started.started_event.event_id - 1,
            accepted_request=request,
        ),
    )


def _complete(commands: CommandPass, update_id: str, outcome: history_pb2.UpdateOutcome) -> None:
    accepted_event_id = _accepted_event_id(commands, update_id)
    changed = commands.parts.make(_Changed)
    if accepted_event_id is None or update_id in changed.completed:
        raise CommandRefusedError(
            _CAUSE, f"message_id: expected an update that is accepted, found {update_id!r}"
        )
    if outcome.WhichOneof("value") is None:
        raise CommandRefusedError(_CAUSE, "outcome: expected success or failure, found none")
    changed.completed.add(update_id)
    commands.draft.add(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED,
        history_pb2.WorkflowExecutionUpdateCompletedEventAttributes(
            update_id=update_id, accepted_event_id=accepted_event_id, outcome=outcome
        ),
    )


def _accepted_event_id(commands: CommandPass, update_id: str) -> int | None:
    """The event that accepted it, earlier in this decision or before; None if it is not open."""
    accepted_now = commands.parts.make(_Changed).accepted.get(update_id)
    if accepted_now is not None:
        return accepted_now
    updates = commands.state.parts.find(Updates)
    update = updates.open.get(update_id) if updates is not None else None
    return update.accepted_event_id if update is not None else None
