"""History as the cluster knows it (`cluster.holder`): the shards that the engine serves, and what
follows when some are taken or given up.
"""

import asyncio
from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

from aetheris_server.history.engine.due_scan import DueScan
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.recovery.recovery import Recovery
from aetheris_server.history.recovery.settling import Settler
from aetheris_server.history.shard import Shard, acquired_note
from aetheris_server.storage.shards import AcquiredShard
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

_FINISH_TIMEOUT = 5.0


class HeldShards:
    """The shards of one engine: a `ShardHolder`."""

    def __init__(
        self,
        host_id: str,
        engine: Engine,
        settler: Settler,
        recovery: Recovery,
        due_scan: DueScan,
    ) -> None:
        self._host_id = host_id
        self._engine = engine
        self._settler = settler
        self._recovery = recovery
        self._due_scan = due_scan

    @property
    def held(self) -> AbstractSet[int]:
        return self._engine.shards.keys()

    @property
    def failed(self) -> Collection[int]:
        return self._engine.failed_shards()

    def make_note(self, shard_id: int, range_id: int) -> tuple[bytes, bytes]:
        return acquired_note(self._host_id, range_id, self._engine.clock.now())

    def take(self, taken: Sequence[AcquiredShard], taken_at: float) -> None:
        for each in taken:
            shard = Shard(
                shard_id=each.shard_id,
                range_id=each.range_id,
                next_seq=each.next_shard_seq,
                watermark=each.watermark,
                committed_seq=each.next_shard_seq - 1,
                taken_at=taken_at if each.range_id > 1 else None,
            )
            self._engine.add_shard(shard)
        self._recovery.wake()
        self._due_scan.wake()

    def drop(self, shard_id: int) -> None:
        self._engine.release_shard(shard_id)

    async def finish(self, shard_ids: Collection[int]) -> list[tuple[int, int]]:
        leaving = [self._engine.shards[shard_id] for shard_id in sorted(shard_ids)]
        for shard in leaving:
            # From here on requests are refused; what was queued before is still written.
            self._engine.release_shard(shard.shard_id)
        try:
            async with asyncio.timeout(_FINISH_TIMEOUT):
                for shard in leaving:
                    await shard.wait_written()
        except TimeoutError:
            # The log refuses what comes after another host has taken the shard.
            _log.warning("commits take long; their shards are given up all the same")
        return [shard.owner for shard in leaving]

    async def settle(self) -> None:
        await self._settler.settle()
