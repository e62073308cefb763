"""Offers again, slowly and for ever, what runs have owed for long, for matching may have lost it.

Only runs that are flagged are looked at: a run that goes on is not flagged for long. What matching
has already is not there twice. Of a run that is not in memory only the log tells what it owes, so
those are looked at more slowly still. Where nothing is owed this costs nothing.
"""

import asyncio
from collections.abc import Iterator

from aetheris_server.errors import RequestError, RunUnreadableError, UnavailableError
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.obligations import obligations
from aetheris_server.history.state.run import RunKey
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_SWEPT = counter("swept_runs", "Runs looked at because they have owed tasks for long.")
_OFFERED = counter("sweep_offered", "Tasks offered again because they are owed for long.")

_STEP_INTERVAL = 0.1
_MAX_WEIGHT_PER_STEP = 20
# A load is a few statements, a look into memory is not.
_LOAD_WEIGHT = 20


class Sweep:
    """Goes over the flagged runs of a host. `run` belongs to one asyncio task."""

    def __init__(self, engine: Engine, interval: float) -> None:
        """Args:
        interval: Seconds from the beginning of one pass to that of the next, unless it takes
            longer.
        """
        self._engine = engine
        self._interval = interval

    async def run(self) -> None:
        """Sweep until cancelled."""
        loop = asyncio.get_running_loop()
        while not is_cancelled():
            next_pass = loop.time() + self._interval
            await self.sweep()
            await pause(max(next_pass - loop.time(), 0.0))

    async def sweep(self) -> None:
        """Go over all flagged runs once."""
        weight = 0
        for shard, key in self._flagged():
            weight += await self._look(shard, key)
            if weight >= _MAX_WEIGHT_PER_STEP:
                weight = 0
                await pause(_STEP_INTERVAL)

    def _flagged(self) -> Iterator[tuple[Shard, RunKey]]:
        for shard in list(self._engine.shards.values()):
            for key in list(shard.owing.flagged):
                yield shard, key

    async def _look(self, shard: Shard, key: RunKey) -> int:
        """Offer what a run owes to hosts that keep up, and say how much work that was."""
        is_ours = self._engine.shards.get(shard.shard_id) is shard
        if not is_ours or key not in shard.owing.flagged:
            return 1
        is_loaded = self._engine.cache.peek(key.run_id) is not None
        try:
            await self._offer(key)
        except (UnavailableError, RequestError, RunUnreadableError) as error:
            _log.debug("a run is not swept", run_id=key.run_id, error=str(error))
        except Exception:  # noqa: BLE001 - logged whole
            # A run at fault must not keep the others from being looked at.
            _log.exception("a run cannot be swept", run_id=key.run_id)
        _SWEPT.inc()
        return 1 if is_loaded else _LOAD_WEIGHT

    async def _offer(self, key: RunKey) -> None:
        engine = self._engine
        run = engine.cache.peek(key.run_id)
        if run is None:
            run = await engine.load(key.namespace_id, key.workflow_id, key.run_id)
        refs = [
            ref
            for ref in obligations(run.state, run.inflight, engine.time_of(run))
            if not engine.dispatcher.is_behind(ref)
        ]
        for ref in refs:
            ref.is_repeated = True
        _OFFERED.inc(len(refs))
        engine.dispatcher.offer(refs)
