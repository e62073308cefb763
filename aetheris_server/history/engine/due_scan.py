"""Finds what is due soon and not in memory, by its row, and has it looked at then."""

import asyncio

from aetheris_server.errors import UnavailableError
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.engine.wakeups import DUE_HORIZON
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.storage.database import Database
from aetheris_server.storage.finding import load_due
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

_INTERVAL = 30.0
_CLOCK_LOOK_INTERVAL = 1.0
_RETRY_INTERVAL = 0.5
_PAGE_SIZE = 5_000


class DueScan:
    """Scans for the due aggregates of one engine. `run` belongs to one asyncio task."""

    def __init__(self, engine: Engine, db: Database) -> None:
        self._engine = engine
        self._db = db
        self._clock = engine.clock
        self._has_taken = asyncio.Event()

    def wake(self) -> None:
        """Shards have been taken: what is due in them is not known."""
        self._has_taken.set()

    async def run(self) -> None:
        """Scan now and then, and when shards have been taken, until cancelled."""
        next_scan, next_time = self._clock.monotonic(), self._clock.now()
        while not is_cancelled():
            await pause(_CLOCK_LOOK_INTERVAL, unless=self._has_taken)
            # By both clocks: the wall clock may step either way.
            is_late = self._clock.monotonic() >= next_scan or self._clock.now() >= next_time
            if not is_late and not self._has_taken.is_set():
                continue
            self._has_taken.clear()
            try:
                await self._scan()
            except (UnavailableError, TimeoutError) as error:
                _log.warning("what is due could not be looked for; trying again", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                _log.exception("what is due could not be looked for; trying again")
            else:
                next_scan = self._clock.monotonic() + _INTERVAL
                next_time = self._clock.now() + DUE_HORIZON / 2
                continue
            await pause(_RETRY_INTERVAL)
            self._has_taken.set()

    async def _scan(self) -> None:
        shard_ids = list(self._engine.shards)
        if not shard_ids:
            return
        before = self._clock.now() + DUE_HORIZON
        after = None
        while True:
            rows = await load_due(self._db, shard_ids, before, _PAGE_SIZE, after)
            for (_, *names), wake_time in rows:
                key = self._engine.kinds.key(*names)
                if self._engine.cache.peek(key.id) is None:
                    self._engine.wakeups.schedule(key, wake_time)
            if len(rows) < _PAGE_SIZE:
                return
            (*_, last_id), last_time = rows[-1]
            after = (last_time, last_id)
