"""Times and durations between Python and protobuf."""

from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

_FIRST_TIME: Final = datetime.min.replace(tzinfo=UTC)
_LAST_TIME: Final = datetime.max.replace(tzinfo=UTC)


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


def from_duration(duration: Duration) -> timedelta:
    """The interval; the longest there is for what is longer."""
    try:
        return duration.ToTimedelta()
    except (OverflowError, ValueError):
        return timedelta.max if duration.seconds > 0 else timedelta.min


def from_timestamp(timestamp: Timestamp) -> datetime:
    """The moment in UTC; the first or last that a datetime can name for what is beyond."""
    try:
        return timestamp.ToDatetime(UTC)
    except (OverflowError, ValueError):
        return _LAST_TIME if timestamp.seconds > 0 else _FIRST_TIME


def read_duration(message: Message, field: str) -> timedelta | None:
    """A field of a message, or None where it is unset."""
    return from_duration(getattr(message, field)) if message.HasField(field) else None


def read_timestamp(message: Message, field: str) -> datetime | None:
    """A field of a message in UTC, or None where it is unset."""
    return from_timestamp(getattr(message, field)) if message.HasField(field) else None
