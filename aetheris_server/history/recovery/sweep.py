"""Offers again, slowly and for ever, what has been owed for long, for matching may have lost it.

Only aggregates that are flagged are looked at: one that goes on is not flagged for long. What
matching has already is not there twice, nor is a call that is under way. Of one that is not in
memory only the log tells what it owes, so those are looked at more slowly still. Where nothing is
owed this costs nothing.
"""

import asyncio
from collections.abc import Iterator

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import RequestError, RunUnreadableError, UnavailableError
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.shard import Shard
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_SWEPT = counter("swept_runs", "Aggregates looked at because they have owed something for long.")
_OFFERED = counter("sweep_offered", "What was offered again because it is owed for long.")

_STEP_INTERVAL = 0.1
_MAX_WEIGHT_PER_STEP = 20
# A load is a few statements, a look into memory is not.
_LOAD_WEIGHT = 20


class Sweep:
    """Goes over the flagged aggregates of a host. `run` belongs to one asyncio task."""

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
        """Go over all flagged aggregates once."""
        weight = 0
        for shard, key in self._flagged():
            weight += await self._look(shard, key)
            if weight >= _MAX_WEIGHT_PER_STEP:
                weight = 0
                await pause(_STEP_INTERVAL)

    def _flagged(self) -> Iterator[tuple[Shard, AggregateKey]]:
        for shard in list(self._engine.shards.values()):
            for key in list(shard.owing.flagged):
                yield shard, key

    async def _look(self, shard: Shard, key: AggregateKey) -> int:
        """Offer what an aggregate owes to hosts that keep up, and say how much work that was."""
        is_ours = self._engine.shards.get(shard.shard_id) is shard
        if not is_ours or key not in shard.owing.flagged:
            return 1
        is_loaded = self._engine.cache.peek(key.id) is not None
        try:
            await self._offer(key)
        except (UnavailableError, RequestError, RunUnreadableError) as error:
            _log.debug("an aggregate is not swept", kind=key.kind, id=key.id, error=str(error))
        except Exception:  # noqa: BLE001 - logged whole
            # An aggregate at fault must not keep the others from being looked at.
            _log.exception("an aggregate cannot be swept", kind=key.kind, id=key.id)
        _SWEPT.inc()
        return 1 if is_loaded else _LOAD_WEIGHT

    async def _offer(self, key: AggregateKey) -> None:
        engine = self._engine
        aggregate = engine.cache.peek(key.id)
        if aggregate is None:
            aggregate = await engine.load(key)
        owed = [
            each
            for each in aggregate.obligations(engine.time_of(aggregate))
            if not engine.dispatcher.is_behind(each)
        ]
        for each in owed:
            if isinstance(each, TaskRef):
                each.is_repeated = True
        await aggregate.wait_committed()
        _OFFERED.inc(len(owed))
        engine.dispatcher.offer(owed)
