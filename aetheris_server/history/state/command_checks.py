"""What makes a command bad by itself, whichever machine it is for."""

from google.protobuf.message import Message

from aetheris.api.v1 import history_pb2
from aetheris_server.history.state.limits import RunLimits


class CommandRefusedError(Exception):
    """A command cannot be recorded; the workflow task fails with the cause.

    Attributes:
        command_index: Which of the decision's commands it is; None for the decision as a whole.
    """

    def __init__(
        self, cause: "history_pb2.WorkflowTaskFailedCause.ValueType", message: str
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.command_index: int | None = None


def check_id(
    value: str,
    name: str,
    cause: "history_pb2.WorkflowTaskFailedCause.ValueType",
    limits: RunLimits,
) -> None:
    """Refuse a name that is empty or too long, or that nothing else in the API could name.

    Raises:
        CommandRefusedError: With `cause`.
    """
    size = len(value.encode())
    if not 1 <= size <= limits.id_max_bytes:
        raise CommandRefusedError(
            cause, f"{name} has {size} bytes, expected 1 to {limits.id_max_bytes}"
        )
    if "\0" in value:
        raise CommandRefusedError(cause, f"{name} has a U+0000, expected none")


def check_size(attributes: Message, limits: RunLimits) -> None:
    """Refuse a command that carries too much.

    Raises:
        CommandRefusedError: PAYLOADS_TOO_LARGE.
    """
    size = attributes.ByteSize()
    if size > limits.payload_max_bytes:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PAYLOADS_TOO_LARGE,
            f"the command has {size} bytes; {limits.payload_max_bytes} is the limit",
        )
