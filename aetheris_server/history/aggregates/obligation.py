"""What an aggregate owes the outside. None of it is written: it follows from the state.

obligation     goes to                              done when
TaskRef        matching                             a worker has the task, or a backlog has it
AggregateCall  history, the owner of the target     the caller's log has what came of it
"""

from dataclasses import dataclass

from aetheris.server.v1 import log_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, AggregateName
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.history.aggregates.key import AggregateKey

Obligation = TaskRef | AggregateCall

MAX_CALL_BYTES = 4 * 1024 * 1024
"""Of a call. One that is larger is refused: it might not fit in a message to another host."""

TOO_LARGE = f"expected a call of at most {MAX_CALL_BYTES} bytes"


@dataclass(frozen=True, slots=True)
class Called:
    """What a call comes to.

    Attributes:
        record: What is to be committed; None where the call changes nothing, or came before.
        answer: In a form of the target's kind. It is the same each time that the call comes.
    """

    record: log_pb2.LogRecord | None
    answer: bytes = b""


def number_of(call: AggregateCall) -> int:
    """The number that a call was made with."""
    return int(call.request_id.rpartition("/")[2])


def make_call(
    caller: AggregateKey, number: int, target: AggregateName, payload: bytes
) -> AggregateCall:
    """The call that an aggregate owes.

    Args:
        caller: The aggregate.
        number: Of the record, or of the event, that calls for it: of one caller, each call has
            another one, and the same however often it is derived.
        target: Whom to call; the id may be left out where the kind finds it by its name. By another
            id than that, only what is there is called, and nothing begun.
        payload: What is asked.
    """
    call = AggregateCall(request_id=f"{caller.id}/{number}", target=target, payload=payload)
    call.caller.kind = caller.kind
    call.caller.namespace_id = caller.namespace_id
    call.caller.name = caller.name
    call.caller.id = caller.id
    return call
