"""Records as they are stored, read by a program that may be older than the one that wrote them.

What this program does not know it refuses: to fold a record in part is to guess. That holds for
what servers write: records, events, their attributes, facts. What clients gave, such as payloads
and failures, is kept as it is, with fields that only a newer client and a newer worker know.

Each record is a link of its aggregate's hash chain, which runs over the bytes as stored.
"""

import hashlib

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import BrokenLogError, UnknownRecordError

EMPTY_HASH = bytes(32)
"""What a hash chain begins with."""

ATTRIBUTES = {
    event_type: name.removeprefix("EVENT_TYPE_").lower() + "_event_attributes"
    for name, event_type in history_pb2.EventType.items()
}
"""The field of an event's attributes, by the event's type."""


def chain_hash(previous: bytes, record: bytes) -> bytes:
    """The next link: sha256 over the previous one, the record's length and the record.

    The length has 8 bytes, big-endian.
    """
    return hashlib.sha256(previous + len(record).to_bytes(8, "big") + record).digest()


def decode_record(id_: str, seq: int, stored: bytes) -> log_pb2.LogRecord:
    """The record in an aggregate's log row.

    Raises:
        BrokenLogError: These are not the bytes of a record.
        UnknownRecordError: A newer program wrote it.
    """
    try:
        record = log_pb2.LogRecord.FromString(stored)
    except DecodeError as error:
        raise BrokenLogError(id_, seq, "a record", f"{len(stored)} bytes: {error}") from None
    unknown = find_unknown(record)
    for event in record.events:
        unknown = unknown or _find_unknown_in_event(event)
    for fact in record.facts:
        unknown = unknown or _find_unknown_in_fact(fact)
    if unknown is not None:
        raise UnknownRecordError(id_, seq, unknown)
    return record


def _find_unknown_in_event(event: history_pb2.HistoryEvent) -> str | None:
    kind = event.WhichOneof("attributes")
    if kind is None or kind != ATTRIBUTES.get(event.event_type):
        return f"an event of type {event.event_type} with {kind or 'unknown attributes'}"
    return find_unknown(event) or find_unknown(getattr(event, kind))


def _find_unknown_in_fact(fact: log_pb2.Fact) -> str | None:
    kind = fact.WhichOneof("fact")
    if kind is None:
        return find_unknown(fact) or "a fact that says nothing"
    if kind == "event_buffered":
        return find_unknown(fact) or _find_unknown_in_event(fact.event_buffered)
    return find_unknown(fact) or find_unknown(getattr(fact, kind))


def find_unknown(message: Message) -> str | None:
    """The first field of a message, not of those in it, that this program does not know."""
    for field in UnknownFieldSet(message):
        return f"field {field.field_number} of {message.DESCRIPTOR.name}"
    return None
