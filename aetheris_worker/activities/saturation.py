"""Notices that activities hold all slots and none ends: then the worker starts no other."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

_LOGGER: Final = logging.getLogger("aetheris.worker")

LIMIT: Final = 30.0


class SaturationWatch:
    """Looks now and then, and says it once until a slot is free again."""

    def __init__(
        self,
        slot_count: int,
        running_types: Callable[[], Sequence[str]],
        ended_count: Callable[[], int],
        limit: float | None = None,
    ) -> None:
        self._slot_count = slot_count
        self._running_types = running_types
        self._ended_count = ended_count
        self._limit = LIMIT if limit is None else limit
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None
        self._seen_count = 0
        self._is_said = False

    def start(self) -> None:
        """Look from now on."""
        self._look()

    def stop(self) -> None:
        """Look no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limit / 4, self._look)
        types, ended = self._running_types(), self._ended_count()
        if len(types) < self._slot_count:
            self._since, self._is_said = None, False
        elif self._since is None or ended != self._seen_count:
            self._since = loop.time()
        elif not self._is_said and loop.time() - self._since >= self._limit:
            self._is_said = True
            names = ", ".join(f"{name} ({count})" for name, count in Counter(types).most_common())
            _LOGGER.warning(
                "all %d activity slots have been taken for %.0f s and none has come free; no other "
                "activity is started here. They are taken by: %s",
                self._slot_count,
                loop.time() - self._since,
                names,
            )
        self._seen_count = ended
