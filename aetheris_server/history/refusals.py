"""Runs that this host does not load for a while, and why.

So that a run at fault, for which everybody asks again at once, costs the others neither their shard
nor the disk.
"""

from collections import OrderedDict

from aetheris_server.clock import Clock
from aetheris_server.errors import AetherisError

REFUSAL_INTERVAL = 5.0
"""Seconds for which a run is refused."""

_MAX_ENTRIES = 10_000


class Refusals:
    """The runs refused now, by run id; the oldest are forgotten when they are too many."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, AetherisError]] = OrderedDict()

    def add(self, run_id: str, error: AetherisError) -> None:
        """Refuse a run from now on, for `REFUSAL_INTERVAL`, with an error."""
        self._entries[run_id] = (self._clock.monotonic() + REFUSAL_INTERVAL, error)
        self._entries.move_to_end(run_id)
        if len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)

    def is_refused(self, run_id: str) -> bool:
        """Whether a run is refused now."""
        entry = self._entries.get(run_id)
        return entry is not None and self._clock.monotonic() < entry[0]

    def check(self, run_id: str) -> None:
        """Raise the error with which a run is refused, if it is."""
        if self.is_refused(run_id):
            raise self._entries[run_id][1].with_traceback(None)
