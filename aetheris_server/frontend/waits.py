"""How long a call may wait: as asked, within the server's limit and the deadline of the call."""

from typing import cast

from google.protobuf.duration_pb2 import Duration

from aetheris_server.rpc.handlers import CallContext

__all__ = ["SLACK_SECONDS", "bounded_wait", "set_seconds", "to_seconds"]

SLACK_SECONDS = 5.0
"""How much longer than asked for a part may take to answer empty before it is cut off."""

# An answer must reach the caller before its deadline.
_MARGIN_SECONDS = 1.0
_MARGIN_SHARE = 0.1


def bounded_wait(asked: float, limit: float, context: CallContext) -> float:
    """The seconds to wait so that the answer still arrives within the deadline of the call."""
    wait = min(asked, limit)
    # None without a deadline, whatever the stubs say.
    remaining = cast("float | None", context.time_remaining())
    if remaining is None:
        return wait
    return min(wait, remaining - min(_MARGIN_SECONDS, remaining * _MARGIN_SHARE))


def to_seconds(value: Duration) -> float:
    """A duration in seconds."""
    return value.seconds + value.nanos / 1e9


def set_seconds(target: Duration, seconds: float) -> None:
    """Write seconds into a duration."""
    target.FromNanoseconds(int(seconds * 1e9))
