"""Between the datetimes of the state and the timestamps and durations of the messages."""

from datetime import UTC, datetime, timedelta

from google.protobuf import duration_pb2, timestamp_pb2

ZERO = timedelta(0)


def to_timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    """The message for an aware datetime."""
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp


def from_timestamp(timestamp: timestamp_pb2.Timestamp) -> datetime:
    """The aware datetime, in UTC, cut to microseconds."""
    return timestamp.ToDatetime(UTC)


def from_duration(duration: duration_pb2.Duration) -> timedelta:
    """The timedelta; zero where the message is unset."""
    return timedelta(seconds=duration.seconds, microseconds=duration.nanos // 1000)


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of those that are set."""
    return min((moment for moment in moments if moment is not None), default=None)
