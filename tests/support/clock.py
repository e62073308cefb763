"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta


class ManualClock:
    """An `aetheris_server.clock.Clock` under the test's hand."""

    def __init__(self, start_time: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start_time
        self._monotonic = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks on."""
        assert seconds >= 0, f"monotonic time cannot go back: {seconds}"
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def set_wall_clock(self, now: datetime) -> None:
        """Step the wall clock, forwards or backwards; the monotonic clock goes on as it was."""
        self._now = now
