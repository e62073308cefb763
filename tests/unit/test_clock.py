from datetime import UTC, datetime, timedelta

from aetheris_server.clock import Clock, SystemClock
from tests.support.clock import ManualClock


def test_system_clock_now_is_aware_and_in_utc() -> None:
    clock: Clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)


def test_manual_clock_advance_moves_both_clocks() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    checked: Clock = clock
    clock.advance(90)
    assert checked.now() == datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert checked.monotonic() == 90


def test_manual_clock_wall_clock_step_leaves_monotonic_time_alone() -> None:
    clock = ManualClock()
    clock.set_wall_clock(datetime(2020, 1, 1, tzinfo=UTC))
    assert clock.monotonic() == 0
