"""This host among the others: which shards it has, and where the rest are.

Every interval it says that it lives, renews its leases and moves the watermarks of its shards,
looks who else lives, gives up shards that are another's by `placement`, and takes those that are
its own and free. A lease is for liveness only; what keeps two owners apart is the log
(`storage.shards`).
"""

import asyncio
from collections.abc import Iterable, Sequence

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.config import HistorySettings
from aetheris_server.errors import UnavailableError
from aetheris_server.history.engine import Engine
from aetheris_server.history.placement import choose_host
from aetheris_server.history.recovery import recover_shards
from aetheris_server.history.shard import Settlement, Shard
from aetheris_server.history.state.apply import chain_hash
from aetheris_server.history.state.run import EMPTY_HASH, RunKey
from aetheris_server.history.state.times import to_timestamp
from aetheris_server.history.wakeups import DUE_HORIZON
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.storage import hosts as host_storage
from aetheris_server.storage import shards as shard_storage
from aetheris_server.storage.database import Database
from aetheris_server.storage.executions import load_due
from aetheris_server.telemetry import gauge, get_logger

_log = get_logger(__name__)

_OWNED = gauge("owned_shards", "Shards that this host has.")

# Settlements that a run may owe tasks for before its row is flagged.
_FLAG_LAG = 3
_DUE_INTERVAL = 30.0
_DUE_PAGE_SIZE = 5_000
# How much of a lease may pass before it is renewed.
_LEASE_SHARE = 0.3
_RECOVERY_RETRY_INTERVAL = 0.5


class Cluster:
    """Membership, leases and shard ownership of one host.

    Attributes:
        address: Where peers reach this host; empty until it has joined.
    """

    def __init__(
        self,
        settings: HistorySettings,
        shard_count: int,
        host_id: str,
        db: Database,
        clock: Clock,
    ) -> None:
        self.host_id = host_id
        self.address = ""
        self._ready = asyncio.Event()
        self._settings = settings
        self._shard_count = shard_count
        self._db = db
        self._clock = clock
        self._engine: Engine | None = None
        self._owner_by_shard: dict[int, str] = {}
        self._live_addresses: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()

    def attach(self, engine: Engine) -> None:
        """Name the engine whose shards this is about; called once, before `run`."""
        self._engine = engine

    @property
    def engine(self) -> Engine:
        """The engine whose shards this is about."""
        assert self._engine is not None
        return self._engine

    @property
    def is_ready(self) -> bool:
        """Whether this host has all the shards that it should have.

        They are served while they are being recovered: what they owe takes a moment longer.
        """
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Return when `is_ready`."""
        await self._ready.wait()

    def on_shard_failed(self, shard_id: int, is_lost: bool) -> None:
        """A commit of a shard failed and the engine has forgotten it: take it anew if ours."""
        self._ready.clear()
        self._owner_by_shard.pop(shard_id, None)
        self._wake.set()

    def locate_shard(self, shard_id: int) -> str | None:
        """The address of the host that has a shard; None if it is this host, or not known.

        This host refuses a shard that it does not have, and the caller asks again.
        """
        if shard_id in self.engine.shards:
            return None
        address = self._owner_by_shard.get(shard_id)
        return None if address == self.address else address

    def locate_queue(self, key: str) -> str | None:
        """The address of the host whose matching has a task queue; None if it is this host."""
        address = choose_host(key, self._live_addresses)
        return None if address == self.address else address

    async def join(self, address: str) -> None:
        """Take over from whoever was at this host's address before; called once, before `run`.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        self.address = address
        await host_storage.replace_host(self._db, self.host_id, self.address)

    async def run(self) -> None:
        """Take part in the cluster until cancelled."""
        next_look, next_due_scan = 0.0, 0.0
        next_due_time = self._clock.now()
        while not is_cancelled():
            now = self._clock.monotonic()
            try:
                await self._renew(now)
                if now >= next_look or not self.is_ready:
                    await self._look_around()
                    next_look = now + self._settings.heartbeat_interval
                # By both clocks: the wall clock may step either way.
                if now >= next_due_scan or self._clock.now() >= next_due_time:
                    await self._schedule_due()
                    next_due_scan = now + _DUE_INTERVAL
                    next_due_time = self._clock.now() + DUE_HORIZON / 2
            except (UnavailableError, TimeoutError) as error:
                _log.error("this host could not renew its leases", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                # A fault here must not end what the shards that this host has can still do.
                _log.exception("this host could not renew its leases")
            self._wake.clear()
            await pause(self._settings.watermark_interval, unless=self._wake)

    async def _look_around(self) -> None:
        """Say that this host lives, see who else does, and bring the shards to whom they belong."""
        lease = self._settings.lease_timeout
        await host_storage.heartbeat_host(self._db, self.host_id, self.address, lease)
        hosts = await host_storage.load_live_hosts(self._db)
        rows = await shard_storage.load_shards(self._db)
        self._live_addresses = frozenset(host.address for host in hosts) | {self.address}
        address_by_host = {host.host_id: host.address for host in hosts}
        self._owner_by_shard = {
            row.shard_id: address_by_host[row.host_id]
            for row in rows
            if row.host_id in address_by_host
        }
        wanted = {
            shard_id
            for shard_id in range(self._shard_count)
            if choose_host(f"shard/{shard_id}", self._live_addresses) == self.address
        }
        await self._release(set(self.engine.shards) - wanted)
        for shard_id in self.engine.failed_shards():
            if self._owner_by_shard.get(shard_id, self.address) != self.address:
                # What is still in memory of it is another's now.
                self.engine.release_shard(shard_id)
        missing = wanted - set(self.engine.shards)
        free = {
            row.shard_id
            for row in rows
            if row.shard_id in missing
            and (
                row.is_expired
                or row.host_id in (None, self.host_id)
                or row.host_id not in address_by_host
            )
        }
        if free:
            await self._acquire(free)
        if wanted <= set(self.engine.shards):
            self._ready.set()
        else:
            self._ready.clear()
        _OWNED.set(len(self.engine.shards))

    async def run_recovery(self) -> None:
        """Recover the shards that are taken until cancelled; the leases are renewed meanwhile."""
        while not is_cancelled():
            await self._taken.wait()
            self._taken.clear()
            shards = [shard for shard in self.engine.shards.values() if not shard.is_recovered]
            try:
                await recover_shards(self.engine, shards)
            except UnavailableError as error:
                _log.error("shards could not be recovered; trying again", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                _log.exception("shards could not be recovered; trying again")
            else:
                continue
            await pause(_RECOVERY_RETRY_INTERVAL)
            self._taken.set()

    async def _acquire(self, shard_ids: Iterable[int]) -> None:
        now = self._clock.monotonic()
        acquired = await shard_storage.acquire_shards(
            self._db,
            self.host_id,
            sorted(shard_ids),
            self._settings.lease_timeout,
            self._make_note,
        )
        for taken in acquired:
            shard = Shard(
                shard_id=taken.shard_id,
                range_id=taken.range_id,
                next_seq=taken.next_shard_seq,
                watermark=taken.watermark,
                committed_seq=taken.next_shard_seq - 1,
                renewed_at=now,
                taken_at=now if taken.range_id > 1 else None,
            )
            self.engine.add_shard(shard)
        if acquired:
            _log.info("shards taken", count=len(acquired))
            self._taken.set()
            await self._schedule_due()

    def _make_note(self, shard_id: int, range_id: int) -> tuple[bytes, bytes]:
        record = log_pb2.LogRecord(time=to_timestamp(self._clock.now()))
        fact = record.facts.add().shard_acquired
        fact.host_id = self.host_id
        fact.range_id = range_id
        stored = record.SerializeToString()
        return stored, chain_hash(EMPTY_HASH, stored)

    async def _renew(self, now: float) -> None:
        """Write the settlements of the shards that have one, and the leases that are due.

        All in one transaction; a shard where nothing happens costs a write only for its lease.
        """
        settlements: list[tuple[Shard, Settlement]] = []
        for shard in self.engine.shards.values():
            settlement = shard.plan_settlement(_FLAG_LAG)
            is_due = now - shard.renewed_at >= self._settings.lease_timeout * _LEASE_SHARE
            if is_due or settlement.is_worth_writing(shard.watermark):
                settlements.append((shard, settlement))
            else:
                shard.unsettle(settlement)
        if not settlements:
            return
        settlements = await self._wait_written(settlements)
        try:
            ours = await shard_storage.renew_shards(
                self._db,
                self.host_id,
                [_to_renewal(shard, settlement) for shard, settlement in settlements],
                self._settings.lease_timeout,
            )
        except BaseException:
            for shard, settlement in settlements:
                shard.unsettle(settlement)
            raise
        for shard, settlement in settlements:
            if shard.shard_id in ours:
                shard.settle(settlement)
                shard.renewed_at = now
            elif self.engine.shards.get(shard.shard_id) is shard:
                _log.warning("a shard was taken by another host", shard_id=shard.shard_id)
                self.engine.release_shard(shard.shard_id)

    async def _wait_written(
        self, planned: Sequence[tuple[Shard, Settlement]]
    ) -> list[tuple[Shard, Settlement]]:
        """Wait until what the plans were made from is on disk; see `Shard.plan_settlement`.

        Returns:
            Those of shards that are still ours. Where the disk takes too long, for the sake of the
            lease, one that changes nothing.
        """
        try:
            async with asyncio.timeout(self._settings.heartbeat_interval):
                for _, settlement in planned:
                    await settlement.wait_founded()
        except TimeoutError:
            _log.warning("commits take long; the watermarks stay where they are")
        settlements: list[tuple[Shard, Settlement]] = []
        for shard, settlement in planned:
            if self.engine.shards.get(shard.shard_id) is not shard:
                continue
            if settlement.is_founded:
                settlements.append((shard, settlement))
            else:
                shard.unsettle(settlement)
                settlements.append((shard, Settlement(shard.watermark, [], set(), {})))
        return settlements

    async def _release(self, shard_ids: set[int]) -> None:
        """Give up shards, once what is queued for them is on disk."""
        if not shard_ids:
            return
        leaving = [self.engine.shards[shard_id] for shard_id in sorted(shard_ids)]
        for shard in leaving:
            # From here on requests are refused; what was queued before is still written.
            self.engine.release_shard(shard.shard_id)
        async with asyncio.timeout(self._settings.lease_timeout):
            for shard in leaving:
                await shard.wait_written()
        await shard_storage.release_shards(
            self._db, self.host_id, [(shard.shard_id, shard.range_id) for shard in leaving]
        )
        _log.info("shards released", count=len(leaving))

    async def leave(self) -> None:
        """Settle and give up all shards, and be forgotten. The last call; `run` has ended.

        Raises:
            UnavailableError: Postgres does not answer; the leases will run out.
        """
        await self._renew(self._clock.monotonic())
        await self._release(set(self.engine.shards))
        await host_storage.remove_host(self._db, self.host_id)

    async def _schedule_due(self) -> None:
        """Arm the runs that are due soon and not in memory."""
        shard_ids = list(self.engine.shards)
        if not shard_ids:
            return
        before = self._clock.now() + DUE_HORIZON
        after = None
        while True:
            rows = await load_due(self._db, shard_ids, before, _DUE_PAGE_SIZE, after)
            for _, namespace_id, workflow_id, run_id, wake_time in rows:
                if self.engine.cache.peek(run_id) is None:
                    key = RunKey(namespace_id, workflow_id, run_id)
                    self.engine.wakeups.schedule(key, wake_time)
            if len(rows) < _DUE_PAGE_SIZE:
                return
            after = (rows[-1][4], rows[-1][3])


def _to_renewal(shard: Shard, settlement: Settlement) -> shard_storage.ShardRenewal:
    return shard_storage.ShardRenewal(
        shard_id=shard.shard_id,
        range_id=shard.range_id,
        watermark=settlement.watermark,
        owes_set=[key.run_id for key in settlement.flag],
        owes_cleared=[key.run_id for key in settlement.unflag],
        wake_rewrites=[
            shard_storage.WakeRewrite(run_id, rewrite.old_time, rewrite.new_time)
            for run_id, rewrite in settlement.wake_rewrites.items()
        ],
    )
