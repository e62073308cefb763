"""Times and durations between Python and protobuf."""

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def to_duration(interval: timedelta | None) -> Duration | None:
    """The duration, or None for None, which leaves a field unset."""
    if interval is None:
        return None
    duration = Duration()
    duration.FromTimedelta(interval)
    return duration


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    """The moment, or None for None. A datetime without a zone is refused: it names no moment."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def read_duration(message: Message, field: str) -> timedelta | None:
    """A field of a message, or None where it is unset."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    return value.ToTimedelta()


def read_timestamp(message: Message, field: str) -> datetime | None:
    """A field of a message in UTC, or None where it is unset."""
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    return value.ToDatetime(UTC)
