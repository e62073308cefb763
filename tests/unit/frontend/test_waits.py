from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from aetheris_server.frontend.waits import bounded_wait, set_seconds, to_seconds


class _Context:
    def __init__(self, remaining: float | None) -> None:
        self._remaining = remaining

    def time_remaining(self) -> float | None:
        return self._remaining


@pytest.mark.parametrize(
    "asked, remaining, wait",
    [(30, None, 30), (90, None, 60), (30, 20, 19), (30, 1, 0.9), (30, 0, 0), (0, 20, 0)],
)
def test_wait_is_within_the_limit_and_before_the_deadline(
    asked: float, remaining: float | None, wait: float
) -> None:
    context: Any = _Context(remaining)
    assert bounded_wait(asked, 60, context) == pytest.approx(wait)


def test_seconds_come_back_from_a_duration() -> None:
    duration = Duration()
    set_seconds(duration, 1.25)
    assert duration == Duration(seconds=1, nanos=250_000_000)
    assert to_seconds(duration) == 1.25
