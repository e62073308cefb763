"""Moving the watermarks of this host's shards: what recovery need not read is written now and then.

Slow on purpose and in no hurry: it waits for commits, and nothing waits for it.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence

from aetheris_server.errors import UnavailableError
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.shard import Settlement, Shard
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.storage import shards as shard_storage
from aetheris_server.storage.database import Database
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

# Settlements that an aggregate may owe something for before its row is flagged.
_FLAG_LAG = 3
_WRITTEN_TIMEOUT = 5.0
# In one transaction, after which no more shards are added to it.
_MAX_ROWS = 2_000

_Planned = tuple[Shard, Settlement]


class Settler:
    """Settles the shards of one engine."""

    def __init__(
        self,
        engine: Engine,
        db: Database,
        host_id: str,
        interval: float,
        on_lost: Callable[[int], None],
    ) -> None:
        """Args:
        engine: Whose shards.
        db: Where they are settled.
        host_id: Of this host.
        interval: Seconds between settlements.
        on_lost: Called with a shard that another host has.
        """
        self._on_lost = on_lost
        self._engine = engine
        self._db = db
        self._host_id = host_id
        self._interval = interval

    async def run(self) -> None:
        """Settle every interval until cancelled."""
        while not is_cancelled():
            await pause(self._interval)
            try:
                await self.settle()
            except (UnavailableError, TimeoutError) as error:
                _log.warning("watermarks could not be moved; trying again", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                # What recovery reads grows; nothing is lost.
                _log.exception("watermarks could not be moved; trying again")

    async def settle(self) -> None:
        """Write what the shards have to say. One where nothing happens costs nothing.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        shards = deque(self._engine.shards.values())
        while shards:
            if planned := self._plan(shards):
                await self._settle(planned)

    async def _settle(self, planned: Sequence[_Planned]) -> None:
        try:
            founded = await self._wait_founded(planned)
            ours = await shard_storage.settle_shards(
                self._db, self._host_id, [self._to_row(*each) for each in founded.values()]
            )
        except BaseException:
            for shard, settlement in planned:
                shard.unsettle(settlement)
            raise
        for shard, settlement in planned:
            if shard.shard_id in ours:
                shard.settle(settlement)
                continue
            shard.unsettle(settlement)
            if shard.shard_id in founded and self._engine.shards.get(shard.shard_id) is shard:
                _log.warning("a shard was taken by another host", shard_id=shard.shard_id)
                self._engine.release_shard(shard.shard_id)
                self._on_lost(shard.shard_id)

    def _plan(self, shards: deque[Shard]) -> list[_Planned]:
        """What the next transaction writes of the shards, which are taken from the left."""
        planned: list[_Planned] = []
        row_count = 0
        while shards and row_count < _MAX_ROWS:
            shard = shards.popleft()
            try:
                settlement = shard.plan_settlement(_FLAG_LAG)
            except Exception:  # noqa: BLE001 - logged whole
                # What is planned of the others must be written, or it would be forgotten.
                _log.exception("a watermark could not be moved", shard_id=shard.shard_id)
                continue
            if settlement.is_worth_writing(shard.watermark):
                planned.append((shard, settlement))
                row_count += settlement.row_count
            else:
                shard.unsettle(settlement)
        return planned

    async def _wait_founded(self, planned: Sequence[_Planned]) -> dict[int, _Planned]:
        """Wait until what the plans were made from is on disk; see `Shard.plan_settlement`.

        Returns:
            By shard, the plans of those that are still ours, without those for which the disk takes
            too long.
        """
        try:
            async with asyncio.timeout(_WRITTEN_TIMEOUT):
                for _, settlement in planned:
                    await settlement.wait_founded()
        except TimeoutError:
            _log.warning("commits take long; some watermarks stay where they are")
        return {
            shard.shard_id: (shard, settlement)
            for shard, settlement in planned
            if settlement.is_founded and self._engine.shards.get(shard.shard_id) is shard
        }

    def _to_row(self, shard: Shard, settlement: Settlement) -> shard_storage.ShardSettlement:
        keys = itertools.chain(settlement.flag, settlement.unflag, settlement.wake_rewrites)
        kinds = self._engine.kinds
        return shard_storage.ShardSettlement(
            shard_id=shard.shard_id,
            range_id=shard.range_id,
            watermark=settlement.watermark,
            owes_set=[key.id for key in settlement.flag],
            owes_cleared=[key.id for key in settlement.unflag],
            wake_rewrites=list(settlement.wake_rewrites.values()),
            in_aggregates={key.id for key in keys if not kinds.has_own_rows(key)},
        )
