"""Aggregates that this host does not load for a while, and why.

So that one at fault, for which everybody asks again at once, costs the others neither their shard
nor the disk. One that is refused again and again is refused for longer and longer.
"""

from collections import OrderedDict
from dataclasses import dataclass

from aetheris_server.clock import Clock
from aetheris_server.errors import AetherisError

REFUSAL_INTERVAL = 5.0
"""Seconds for which an aggregate is refused the first time; each next time is twice as long."""

REFUSAL_MAX_INTERVAL = 600.0
"""Seconds for which an aggregate is refused at most."""

_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class _Refusal:
    until: float
    interval: float
    error: AetherisError


class Refusals:
    """Those refused now or lately, by id; the oldest are forgotten when they are too many."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Refusal] = OrderedDict()

    def add(self, id_: str, error: AetherisError) -> float:
        """Refuse an aggregate from now on with an error; the seconds for which it is refused.

        Within a refusal nothing is added to it: what was under way then says nothing new.
        """
        now = self._clock.monotonic()
        former = self._entries.get(id_)
        interval = REFUSAL_INTERVAL
        if former is not None:
            is_new = former.until <= now
            interval = min(former.interval * 2, REFUSAL_MAX_INTERVAL) if is_new else former.interval
        self._entries[id_] = _Refusal(now + interval, interval, error)
        self._entries.move_to_end(id_)
        if len(self._entries) > _MAX_ENTRIES:
            self._entries.popitem(last=False)
        return interval

    def note_success(self, id_: str) -> None:
        """Forget an aggregate that has gone well for as long as it was refused the last time.

        Not sooner: a fault that strikes one of its transitions need not strike the others.
        """
        entry = self._entries.get(id_)
        if entry is not None and self._clock.monotonic() >= entry.until + entry.interval:
            del self._entries[id_]

    def is_refused(self, id_: str) -> bool:
        """Whether an aggregate is refused now."""
        entry = self._entries.get(id_)
        return entry is not None and self._clock.monotonic() < entry.until

    def check(self, id_: str) -> None:
        """Raise the error with which an aggregate is refused, if it is."""
        if self.is_refused(id_):
            raise self._entries[id_].error.with_traceback(None)
