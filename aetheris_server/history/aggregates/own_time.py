"""The time of one aggregate: the wall clock's, except that it never goes back.

    wall clock     10:00 ──► 10:05 │ 09:05 ──────────────────────► 10:20
    its own        10:00 ──► 10:05 ─ counted by the clock for intervals ─► 10:20

A step back is a correction and must not delay what it waits for; a step forward may be time
that has passed, as after a machine was suspended. So its own time is the later of the wall clock
and of what has been counted since it was last read. One that is loaded starts no earlier than the
time of its newest record, whichever host wrote it: from then on it waits no longer than it had to
when that was written, and the times in its log never go back.
"""

from datetime import datetime, timedelta

from aetheris_server.clock import Clock
from aetheris_server.history.times import ZERO


class OwnTime:
    """An aggregate's time while it is in memory. Each reading takes a moment not to be early.

    Without a step it is the wall clock's to the microsecond: what is counted is rounded down, and
    the clock for intervals is read on the late side where counting starts and on the early one
    where it ends.

    Attributes:
        lead: By how much it was ahead of the wall clock when it was last read.
    """

    __slots__ = ("_at", "_time", "lead")

    def __init__(self, time: datetime) -> None:
        """Begin, not earlier than a time that it has been at."""
        self._time = time
        self._at: float | None = None
        self.lead = ZERO

    def read(self, clock: Clock) -> datetime:
        """Its time now."""
        at = clock.monotonic()
        now = clock.now()
        counted = self._time
        if self._at is not None:
            counted += timedelta(0, 0, int((at - self._at) * 1e6))
        if now < counted:
            if self._at is None:
                self._at = clock.monotonic()
            self.lead = counted - now
            return counted
        self._time, self._at = now, clock.monotonic()
        self.lead = ZERO
        return now

    def reach(self, time: datetime, clock: Clock) -> None:
        """It is not before `time`, whose moment has come by the clock for intervals."""
        if self.read(clock) < time:
            self._time, self._at = time, clock.monotonic()
            self.read(clock)

    def to_monotonic(self, deadline: datetime) -> float:
        """When it gets to a deadline, by the clock for intervals, as things stand.

        Not before the first `read`.
        """
        assert self._at is not None
        return self._at + (deadline - self._time).total_seconds()
