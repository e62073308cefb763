"""Between the datetimes of the state and the timestamps and durations of the messages.

Each run needs some dozens of these; the library's own take three times as long.
"""

from datetime import UTC, datetime, timedelta

from google.protobuf import duration_pb2, timestamp_pb2

ZERO = timedelta(0)

MAX_DURATION = timedelta(days=36_525)
"""A hundred years, so that no sum leaves the calendar. A longer one in a command is refused; in an
old log it counts as this one.
"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS = 86_400
_MAX_SECONDS = int(MAX_DURATION.total_seconds())


def to_timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    """The message for an aware datetime."""
    elapsed = moment - _EPOCH
    return timestamp_pb2.Timestamp(
        seconds=elapsed.days * _DAY_SECONDS + elapsed.seconds, nanos=elapsed.microseconds * 1000
    )


def from_timestamp(timestamp: timestamp_pb2.Timestamp) -> datetime:
    """The aware datetime, in UTC, cut to microseconds."""
    return _EPOCH + timedelta(0, timestamp.seconds, timestamp.nanos // 1000)


def to_duration(interval: timedelta) -> duration_pb2.Duration:
    """The message for an interval that is not negative."""
    return duration_pb2.Duration(
        seconds=interval.days * _DAY_SECONDS + interval.seconds, nanos=interval.microseconds * 1000
    )


def from_duration(duration: duration_pb2.Duration) -> timedelta:
    """The timedelta; zero where the message is unset.

    Rounded up to microseconds, so that nothing is early; at most `MAX_DURATION` either way.
    """
    seconds, nanos = duration.seconds, duration.nanos
    if not (seconds or nanos):
        return ZERO
    exact = timedelta(0, min(max(seconds, -_MAX_SECONDS), _MAX_SECONDS), -(-nanos // 1000))
    return min(max(exact, -MAX_DURATION), MAX_DURATION)


def is_over_maximum(duration: duration_pb2.Duration) -> bool:
    """Whether it is longer than `MAX_DURATION`."""
    seconds = duration.seconds
    return seconds > _MAX_SECONDS or (seconds == _MAX_SECONDS and duration.nanos > 0)


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of those that are set."""
    return min((moment for moment in moments if moment is not None), default=None)
