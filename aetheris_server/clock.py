"""Time as the server sees it, so that tests can hold it.

Only the outer layers ask a clock; the core takes `now` as an argument.
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """A wall clock and a clock for intervals."""

    def now(self) -> datetime:
        """The wall clock: aware, in UTC. May step backwards."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never steps back. Only differences mean something."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The wall clock: aware, in UTC. May step backwards."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never steps back."""
        return time.monotonic()
