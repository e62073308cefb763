"""What the server is told of workflow code that failed, and of queries.

Errors of workflow code may be anything: whatever is asked of them here may raise in turn.
"""

import re
from typing import Any, Final, cast

from aetheris.api.v1 import history_pb2, worker_service_pb2
from aetheris.api.v1.error_details_pb2 import BadRequestDetail
from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.history_pb2 import WorkflowTaskFailedCause
from aetheris.api.v1.worker_service_pb2 import TaskAnswerError, WorkflowQuery, WorkflowQueryResult
from aetheris_client.converter import DataConverter
from aetheris_client.errors import AetherisError
from aetheris_client.failure import to_failure
from aetheris_worker.runtime.errors import ForbiddenCallError, NondeterminismError
from aetheris_worker.runtime.replay import RunMachine

# What the server takes as one answer to a query.
MAX_QUERY_BYTES: Final = 2 * 1024 * 1024
# All that goes with one decision, whose commands need their place too.
MAX_QUERIES_BYTES: Final = 4 * 1024 * 1024
# The server takes messages of 8 MiB; the rest is for what goes around a decision.
MAX_DECISION_BYTES: Final = 7 * 1024 * 1024
_MAX_MESSAGE_CHARS: Final = 10_000
_COMMAND: Final = re.compile(r"commands\[(\d+)\]")


class DecisionTooLargeError(AetherisError):
    """The server does not take a decision of that size: it asks for too much at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the decision is too large to be sent: {reason}")


class DecisionRefusedError(AetherisError):
    """The server takes no such decision; the message names the field."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the server refused the decision: {reason}")


class QueryResultTooLargeError(AetherisError):
    """A query's answer does not fit into a message."""

    def __init__(self, name: str, size: int, limit: int) -> None:
        super().__init__(f"query {name!r} answered {size} bytes; {limit} is the limit")


def cause_of(error: Exception) -> WorkflowTaskFailedCause.ValueType:
    """Why a workflow task failed, for the history."""
    if isinstance(error, (NondeterminismError, ForbiddenCallError)):
        return history_pb2.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
    if isinstance(error, DecisionTooLargeError):
        return history_pb2.WORKFLOW_TASK_FAILED_CAUSE_GRPC_MESSAGE_TOO_LARGE
    return history_pb2.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE


def located_message(error: TaskAnswerError, machine: RunMachine) -> str:
    """What the server says of a decision that it did not take; where it names one of the commands,
    with the line of the code that gave it.
    """
    detail = BadRequestDetail()
    if not cast(Any, error.detail).Unpack(detail):
        return error.message
    command = _COMMAND.match(detail.field)
    if command is None:
        return error.message
    return f"{error.message} (commanded at {machine.site_of_command(int(command[1]))})"


def answer_query(
    machine: RunMachine, query: WorkflowQuery, converter: DataConverter, limit: int
) -> WorkflowQueryResult:
    """Ask the run; whatever goes wrong, the query's caller hears of it."""
    try:
        answer = machine.query(query.query_type, query.query_args)
        limit = min(limit, MAX_QUERY_BYTES)
        if answer is not None and answer.ByteSize() > limit:
            raise QueryResultTooLargeError(query.query_type, answer.ByteSize(), limit)
    except Exception as error:  # noqa: BLE001 - see above
        return query_failed(error, converter)
    return WorkflowQueryResult(
        result_type=worker_service_pb2.QUERY_RESULT_TYPE_ANSWERED, answer=answer
    )


def query_failed(error: Exception, converter: DataConverter) -> WorkflowQueryResult:
    """The answer to a query that this came of."""
    return WorkflowQueryResult(
        result_type=worker_service_pb2.QUERY_RESULT_TYPE_FAILED,
        error_message=message_of(error),
        failure=failure_of(error, converter),
    )


def failure_of(error: Exception, converter: DataConverter) -> Failure:
    """The error as a failure; only its message where it has no other form that can be sent."""
    try:
        failure = to_failure(error, converter)
    except Exception:  # noqa: BLE001 - see the module
        return Failure(message=message_of(error))
    if failure.ByteSize() > MAX_QUERY_BYTES:
        return Failure(message=message_of(error))
    return failure


def message_of(error: Exception) -> str:
    """What it says, or its name where it says nothing; always something that can be sent."""
    name = type(error).__name__
    try:
        message = str(error) or name
    except Exception:  # noqa: BLE001 - see the module
        message = name
    return message[:_MAX_MESSAGE_CHARS].encode(errors="backslashreplace").decode()
