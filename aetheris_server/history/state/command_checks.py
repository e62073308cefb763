"""What makes a command bad by itself, whichever machine it is for."""

import re

from google.protobuf.message import Message

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris_server.history.state.limits import RunLimits

# A path, and what stands between it and what is said of it.
_PATH = re.compile(r"((\w+)(?:\.\w+|\[[^\]]*\])*):? ")


class CommandRefusedError(Exception):
    """A command cannot be recorded; the workflow task fails with the cause.

    Args:
        cause: Of the failed workflow task.
        message: What was found and what was expected, behind the path of the field at fault in the
            command's attributes, if it is one: `timer_id has 1001 bytes, expected 1 to 1000`.

    Attributes:
        command_index: Which of the decision's commands it is; None for the decision as a whole.
        field: From the request on, for example `commands[3].timer_id`.
        description: The message without the field.
    """

    def __init__(
        self, cause: "history_pb2.WorkflowTaskFailedCause.ValueType", message: str
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.command_index: int | None = None
        self.field = "commands"
        self.description = message
        self._text = message

    def __str__(self) -> str:
        return self._text

    def locate(self, index: int, command: command_pb2.Command) -> None:
        """Say which command it is."""
        self.command_index = index
        self.field = f"commands[{index}]"
        self._text = f"{self.field}: {self.description}"
        kind = command.WhichOneof("attributes")
        path = _PATH.match(self.description)
        if kind is None or path is None:
            return
        if path[2] in getattr(command, kind).DESCRIPTOR.fields_by_name:
            self._text = f"{self.field}.{self.description}"
            self.field += f".{path[1]}"
            self.description = self.description[path.end() :]


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
            f"found {size} bytes, expected at most {limits.payload_max_bytes}",
        )
