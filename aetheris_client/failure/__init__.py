"""Exceptions to recorded failures and back.

The errors of `errors.py` travel without loss, with their causes and stack traces. Any other
exception becomes an application failure whose type is the name of its class. A chain is cut where
it closes a circle or grows too long.

A failure has one cause, an exception group has many: its message tells them all, and the first is
its cause. It is not worth another attempt if one of them is not. What was noted on an exception
(`add_note`) stands behind its message.

Recording a failure never fails itself: what a message or a type hold that cannot be recorded is
replaced or left out. So are details, where the caller does not want to hear of them.
"""

from aetheris_client.failure.limits import (
    MAX_MESSAGE_BYTES,
    MAX_STACK_TRACE_BYTES,
    recordable,
    trimmed,
)
from aetheris_client.failure.reading import from_failure
from aetheris_client.failure.writing import (
    MAX_CHAIN_LENGTH,
    MAX_FAILURE_BYTES,
    SOURCE,
    to_failure,
)

__all__ = [
    "MAX_CHAIN_LENGTH",
    "MAX_FAILURE_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_STACK_TRACE_BYTES",
    "SOURCE",
    "from_failure",
    "recordable",
    "to_failure",
    "trimmed",
]
