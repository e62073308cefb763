"""Whether this host has the shards that it should have, or lacks a few for a moment only."""

import asyncio

from aetheris_server.clock import Clock

# For so long a host that misses less than half of its shards counts as ready.
_MISSING_GRACE = 5.0


class Readiness:
    """What is known of it: nothing until `note_complete`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._complete = asyncio.Event()
        # Of a host that had all of its shards and lacks some.
        self._missing_since: float | None = None

    @property
    def is_complete(self) -> bool:
        """Whether no shard is missing."""
        return self._complete.is_set()

    async def wait_complete(self) -> None:
        """Return when no shard is missing."""
        await self._complete.wait()

    def note_complete(self) -> None:
        """All shards are there."""
        self._missing_since = None
        self._complete.set()

    def note_missing(self) -> None:
        """Some are missing."""
        if self._complete.is_set():
            self._missing_since = self._clock.monotonic()
        self._complete.clear()

    def note_nothing(self) -> None:
        """The host has lost all that it had."""
        self._missing_since = None
        self._complete.clear()

    def is_enough(self, missing_count: int, wanted_count: int) -> bool:
        """Whether what is there will do: all, or most while the rest will be back in a moment.

        Args:
            missing_count: Shards that this host lacks now.
            wanted_count: Shards that it should have.
        """
        if self.is_complete:
            return True
        since = self._missing_since
        if since is None or self._clock.monotonic() - since > _MISSING_GRACE:
            return False
        return 2 * missing_count < wanted_count
