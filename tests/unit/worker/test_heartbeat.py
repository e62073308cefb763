from typing import Any

import pytest

from aetheris.api.v1.common_pb2 import Payload, Payloads
from aetheris_worker.activities.heartbeat import Heartbeater, interval_of


class ManualLoop:
    """The part of an event loop that heartbeats need, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Any]] = []

    def call_later(self, delay: float, callback: Any) -> Any:
        timer = (self.now + delay, callback)
        self.timers.append(timer)
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, callback in due:
            callback()


def text(value: str) -> Payloads:
    return Payloads(payloads=[Payload(data=value.encode())])


@pytest.fixture
def sent() -> list[str]:
    return []


@pytest.fixture
def loop() -> ManualLoop:
    return ManualLoop()


@pytest.fixture
def slow_heartbeater(loop: ManualLoop, sent: list[str]) -> Heartbeater:
    """Its heartbeats are on their way until the test says otherwise."""

    def send(details: Payloads | None) -> None:
        sent.append(details.payloads[0].data.decode() if details is not None else "none")

    kept: Any = loop
    return Heartbeater(kept, 8.0, send)


@pytest.fixture
def heartbeater(slow_heartbeater: Heartbeater) -> Heartbeater:
    """Its heartbeats are answered at once."""
    send = slow_heartbeater._send

    def send_and_answer(details: Payloads | None) -> None:
        send(details)
        slow_heartbeater.answered()

    slow_heartbeater._send = send_and_answer
    return slow_heartbeater


def test_first_heartbeat_goes_out_at_once(heartbeater: Heartbeater, sent: list[str]) -> None:
    heartbeater.beat(text("1"))
    assert sent == ["1"]


def test_heartbeats_of_one_interval_become_the_last_of_them(
    heartbeater: Heartbeater, sent: list[str], loop: ManualLoop
) -> None:
    for number in ("1", "2", "3"):
        heartbeater.beat(text(number))
    loop.advance(7.9)
    assert sent == ["1"]
    loop.advance(0.1)
    assert sent == ["1", "3"]


def test_interval_without_heartbeats_sends_nothing(
    heartbeater: Heartbeater, sent: list[str], loop: ManualLoop
) -> None:
    heartbeater.beat(text("1"))
    loop.advance(20)
    assert sent == ["1"]
    heartbeater.beat(None)
    assert sent == ["1", "none"]


def test_closed_heartbeater_sends_no_more_but_knows_the_last_details(
    heartbeater: Heartbeater, sent: list[str], loop: ManualLoop
) -> None:
    heartbeater.beat(text("1"))
    heartbeater.beat(text("2"))
    heartbeater.close()
    loop.advance(20)
    heartbeater.beat(text("3"))
    assert sent == ["1"]
    assert heartbeater.last_details == text("3")


def test_heartbeat_waits_for_the_one_on_its_way_and_is_the_newest(
    slow_heartbeater: Heartbeater, sent: list[str], loop: ManualLoop
) -> None:
    slow_heartbeater.beat(text("1"))
    slow_heartbeater.beat(text("2"))
    loop.advance(20)
    slow_heartbeater.beat(text("3"))
    assert sent == ["1"]
    slow_heartbeater.answered()
    assert sent == ["1", "3"]


def test_heartbeat_whose_details_are_refused_goes_out_without_them_at_once(
    slow_heartbeater: Heartbeater, sent: list[str], loop: ManualLoop
) -> None:
    slow_heartbeater.beat(text("1"))
    assert slow_heartbeater.drop_details()
    slow_heartbeater.answered()
    assert sent == ["1", "none"]
    assert not slow_heartbeater.drop_details()
    slow_heartbeater.answered()
    slow_heartbeater.beat(text("2"))
    loop.advance(8)
    assert sent == ["1", "none", "none"]
    assert slow_heartbeater.last_details is None


@pytest.mark.parametrize(
    "timeout, interval",
    [(0.0, 30.0), (10.0, 8.0), (600.0, 60.0)],
)
def test_interval_is_most_of_the_timeout_within_bounds(timeout: float, interval: float) -> None:
    assert interval_of(timeout) == interval
