"""A run's own time: the wall clock's, and counted on where that steps back."""

import random
from datetime import UTC, datetime, timedelta

from aetheris_server.history.aggregates.own_time import OwnTime
from tests.support.clock import ManualClock

_HOUR = timedelta(hours=1)


class _BusyClock:
    """Two clocks on a machine that is busy: time passes at each reading, before and after it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._start = datetime(2026, 1, 1, tzinfo=UTC)
        self._seconds = 1e6 * self._random.random()

    def _read(self) -> float:
        self._seconds += self._random.expovariate(1e4)
        seconds = self._seconds
        self._seconds += self._random.expovariate(1e4)
        return seconds

    def now(self) -> datetime:
        return self._start + timedelta(microseconds=int(self._read() * 1e6))

    def monotonic(self) -> float:
        return self._read()


def test_time_without_a_step_is_the_wall_clock_and_never_ahead_of_it() -> None:
    for seed in range(20):
        clock = _BusyClock(seed)
        time = OwnTime(clock.now())
        for _ in range(1000):
            assert time.read(clock) <= clock.now()


def test_time_to_a_deadline_is_never_counted_short() -> None:
    for seed in range(1000):
        clock = _BusyClock(seed)
        time = OwnTime(clock.now())
        deadline = time.read(clock) + timedelta(seconds=5)
        late = time.to_monotonic(deadline) - clock.monotonic()
        # The wall clock, read after the clock for intervals, has less left.
        assert late > (deadline - clock.now()).total_seconds() - 1e-6


def test_time_goes_on_evenly_when_the_wall_clock_steps_back(clock: ManualClock) -> None:
    time = OwnTime(clock.now())
    before = time.read(clock)
    clock.set_wall_clock(before - _HOUR)
    clock.advance(2)
    assert time.read(clock) == before + timedelta(seconds=2)
    clock.advance(3600)
    assert time.read(clock) == before + timedelta(seconds=3602)
    clock.set_wall_clock(before + 2 * _HOUR)
    assert time.read(clock) == before + 2 * _HOUR


def test_time_of_a_run_begins_where_its_log_ends(clock: ManualClock) -> None:
    written = clock.now() + _HOUR
    time = OwnTime(written)
    assert time.read(clock) == written
    clock.advance(5)
    assert time.read(clock) == written + timedelta(seconds=5)


def test_moment_of_a_deadline_is_where_the_time_reaches_it(clock: ManualClock) -> None:
    time = OwnTime(clock.now())
    deadline = time.read(clock) + timedelta(seconds=5)
    clock.set_wall_clock(clock.now() - _HOUR)
    clock.advance(1)
    time.read(clock)
    assert time.to_monotonic(deadline) == clock.monotonic() + 4
    clock.advance(4)
    assert time.read(clock) == deadline
