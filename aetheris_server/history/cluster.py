"""This host among the others: which shards it has, and where the rest are.

Each of these goes on by itself, so that none can hold up another:

    lease        this host lives; nothing else in that loop or on its connection (`lease`)
    membership   who else lives, which shards are this host's; buries the dead, takes, gives up
    settling     watermarks (`settling`)
    due scan     runs that are due soon and not in memory
    recovery     what taken shards owe (`recovery`)

A lease is for liveness only; what keeps two owners apart is the log (`storage.shards`).
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence

from aetheris.api.v1 import task_queue_pb2
from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris_server.clock import Clock
from aetheris_server.config import ConfigError, HistorySettings
from aetheris_server.errors import UnavailableError
from aetheris_server.history.engine import Engine
from aetheris_server.history.lease import Lease
from aetheris_server.history.placement import choose_host, is_loopback
from aetheris_server.history.recovery import recover_shards, run_catching_up
from aetheris_server.history.settling import Settler
from aetheris_server.history.shard import Shard
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

_DUE_INTERVAL = 30.0
_CLOCK_LOOK_INTERVAL = 1.0
_DUE_PAGE_SIZE = 5_000
_RELEASE_TIMEOUT = 5.0
_RECOVERY_RETRY_INTERVAL = 0.5
# For so long a host that misses less than half of its shards counts as ready.
_MISSING_GRACE = 5.0


class Cluster:
    """Membership and shard ownership of one host.

    Attributes:
        address: Where peers reach this host; empty until it has joined.
        lease: This host's.
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
        self.lease = Lease(
            host_id,
            settings.lease_timeout,
            settings.heartbeat_interval,
            host_storage.LeaseRenewer(db),
            clock,
            self._rejoin,
        )
        self._ready = asyncio.Event()
        # Of a host that had all of its shards and lacks some.
        self._missing_since: float | None = None
        self._settings = settings
        self._shard_count = shard_count
        self._db = db
        self._clock = clock
        self._engine: Engine | None = None
        self._settler: Settler | None = None
        self._sight: host_storage.Sight | None = None
        self._owner_by_shard: dict[int, str] = {}
        self._live_addresses: frozenset[str] = frozenset()
        self._wanted: frozenset[int] = frozenset()
        self._is_displaced = False
        self._is_leaving = False
        self._join_count = 0
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()
        self._due = asyncio.Event()

    def attach(self, engine: Engine) -> None:
        """Name the engine whose shards this is about; called once, before `join`."""
        self._engine = engine
        self._settler = Settler(
            engine,
            self._db,
            self.host_id,
            self._settings.watermark_interval,
            self.on_shard_failed,
        )

    @property
    def engine(self) -> Engine:
        """The engine whose shards this is about."""
        assert self._engine is not None
        return self._engine

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[None, None, None]]]:
        """What runs from `join` until `leave`; the lease's own loop outlasts both."""
        assert self._settler is not None
        return (self._run_membership, self._settler.run, self._run_due_scan)

    @property
    def waits_for(self) -> str | None:
        """What keeps this host from serving the shards that it should; None is nothing.

        They are served while they are being recovered: what they owe takes a moment longer. Some
        that are being taken anew, after a fault say, are no reason to send callers elsewhere: every
        host has them wait for the one that takes them.
        """
        if self._is_displaced:
            return "an address of its own: another host has grpc.advertised_address"
        if not self.lease.is_valid:
            return "its lease, which postgres has not renewed"
        return None if self._ready.is_set() or self._misses_few() else "its shards"

    @property
    def is_ready(self) -> bool:
        """Whether `waits_for` is nothing."""
        return self.waits_for is None

    def _misses_few(self) -> bool:
        """Whether shards are missing that will be back in a moment, and not too many."""
        since = self._missing_since
        if since is None or self._clock.monotonic() - since > _MISSING_GRACE:
            return False
        missing = self._wanted - self.engine.shards.keys()
        return 2 * len(missing) < len(self._wanted)

    def _note_missing(self) -> None:
        if self._ready.is_set():
            self._missing_since = self._clock.monotonic()
        self._ready.clear()

    def _note_complete(self) -> None:
        self._missing_since = None
        self._ready.set()

    async def wait_ready(self) -> None:
        """Return when this host has all the shards that it should have."""
        await self._ready.wait()

    def on_shard_failed(self, shard_id: int) -> None:
        """A commit of a shard failed and the engine has forgotten it: take it anew if ours."""
        self._note_missing()
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

    def locate_queue(
        self,
        namespace_id: str,
        task_queue: str,
        task_queue_type: task_queue_pb2.TaskQueueType.ValueType,
    ) -> str | None:
        """The address of the host whose matching has a task queue; None if it is this host."""
        if len(self._live_addresses) < 2:
            return None
        key = f"{namespace_id}/{task_queue_type}/{task_queue}"
        address = choose_host(key, self._live_addresses)
        return None if address == self.address else address

    def locate_task(self, task: matching_service_pb2.TaskRef) -> str | None:
        """The address of the host whose matching takes a task; None if it is this host."""
        return self.locate_queue(task.namespace_id, task.task_queue, task.task_queue_type)

    # Coming and going.

    async def join(self, address: str, *, is_reached: bool = True) -> None:
        """Take this host's place in the cluster; called once, before `loops`.

        Args:
            address: Where peers reach this host.
            is_reached: Who calls there has been seen to come here: then whoever was there before is
                dead. Else it may live, and this waits for as long as its lease may last.

        Raises:
            ConfigError: Another host is at that address.
            UnavailableError: Postgres does not answer.
        """
        self.address = address
        if is_reached:
            await host_storage.replace_host(self._db, self.host_id, self.address)
        if not await self._register() and (is_reached or not await self._outlast()):
            raise ConfigError(
                "grpc.advertised_address",
                f"{address} is that of another live host; each host needs one of its own",
            )

    async def _outlast(self) -> bool:
        """Wait until the lease of whoever has this host's address has run out, and take its place;
        whether it did not go on.
        """
        deadline = self._clock.monotonic() + 2 * self._settings.lease_timeout
        while self._clock.monotonic() < deadline:
            await asyncio.sleep(self._settings.heartbeat_interval)
            if await self._register():
                return True
        return False

    async def _register(self) -> bool:
        sent_at = self._clock.monotonic()
        timeout = self._settings.lease_timeout
        is_ours = await host_storage.register_host(self._db, self.host_id, self.address, timeout)
        if is_ours:
            self.lease.begin(sent_at)
        return is_ours

    async def _rejoin(self) -> None:
        """This host was buried: whatever it had may be another's by now."""
        self._ready.clear()
        self._missing_since = None
        self._join_count += 1
        for shard_id in [*self.engine.shards, *self.engine.failed_shards()]:
            self.engine.release_shard(shard_id)
        if self._is_leaving:
            return
        if await self._register():
            _log.error("this host was taken for dead and has joined anew")
            self._is_displaced = False
            self._wake.set()
        elif not self._is_displaced:
            self._is_displaced = True
            _log.error(
                "another host has this host's address; set grpc.advertised_address of one of them",
                address=self.address,
            )

    async def leave(self) -> None:
        """Settle and give up all shards, and be forgotten. The last call; `loops` have ended.

        Raises:
            UnavailableError: Postgres does not answer; the lease will run out.
        """
        assert self._settler is not None
        # The lease is renewed to the end; where its row is gone by then, nobody must think that
        # this host has come back.
        self._is_leaving = True
        if not self.lease.is_valid:
            _log.warning("the lease has run out; there is nothing to give up")
            return
        await self._settler.settle()
        await self._release(set(self.engine.shards))
        await host_storage.remove_host(self._db, self.host_id)

    # Membership.

    async def _run_membership(self) -> None:
        while not is_cancelled():
            self._wake.clear()
            try:
                if self.lease.is_valid:
                    await self._look_around()
            except (UnavailableError, TimeoutError) as error:
                _log.error("this host could not look at the cluster", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                # A fault here must not end what the shards that this host has can still do.
                _log.exception("this host could not look at the cluster")
            await pause(self._settings.heartbeat_interval, unless=self._wake)

    async def _look_around(self) -> None:
        """See who lives, bury the dead, and bring the shards to whom they belong."""
        joined = self._join_count
        sight = await host_storage.look_at_cluster(self._db)
        if sight.expired and await self._bury():
            sight = await host_storage.look_at_cluster(self._db)
        if sight == self._sight and self._ready.is_set():
            return
        # What changes from here on, or fails half-way, is seen by the next look.
        self._sight = None
        rows = await shard_storage.load_shards(self._db)
        self._note_hosts(sight)
        self._owner_by_shard = {
            row.shard_id: sight.hosts[row.host_id]
            for row in rows
            if row.host_id is not None and row.host_id in sight.hosts
        }
        await self._move_shards(rows, joined)
        _OWNED.set(len(self.engine.shards))
        if self._wanted <= self.engine.shards.keys() and not self.engine.failed_shards():
            self._sight = sight
            self._note_complete()
        else:
            self._note_missing()

    async def _bury(self) -> bool:
        """Free the shards of hosts whose leases have run out; whether there were any."""
        grace = 0.0 if self.lease.is_steady else self._settings.lease_timeout
        buried = await host_storage.bury_hosts(self._db, self.host_id, grace)
        if buried:
            _log.warning("hosts are dead; their shards are free", host_ids=buried)
        return bool(buried)

    def _note_hosts(self, sight: host_storage.Sight) -> None:
        live = {sight.hosts[host_id] for host_id in sight.hosts.keys() - sight.expired}
        addresses = frozenset({*live, self.address})
        if addresses == self._live_addresses:
            return
        self._live_addresses = addresses
        self._wanted = frozenset(
            shard_id
            for shard_id in range(self._shard_count)
            if choose_host(f"shard/{shard_id}", addresses) == self.address
        )
        _log.info("hosts of the cluster", addresses=sorted(addresses))
        if len({is_loopback(address) for address in addresses}) > 1:
            _log.error(
                "some hosts advertise an address that no other machine can reach;"
                " set their grpc.advertised_address",
                addresses=sorted(address for address in addresses if is_loopback(address)),
            )

    async def _move_shards(self, rows: Sequence[shard_storage.ShardRow], joined: int) -> None:
        """Give up what is another's by `placement`, and take what is this host's and free."""
        await self._release(self.engine.shards.keys() - self._wanted)
        for shard_id in self.engine.failed_shards():
            if self._owner_by_shard.get(shard_id, self.address) != self.address:
                # What is still in memory of it is another's now.
                self.engine.release_shard(shard_id)
        await self._release_strays(rows)
        missing = self._wanted - self.engine.shards.keys()
        free = [
            row.shard_id
            for row in rows
            if row.shard_id in missing
            and (row.host_id == self.host_id or row.shard_id not in self._owner_by_shard)
        ]
        if free and joined == self._join_count:
            await self._acquire(free, joined)

    async def _release_strays(self, rows: Sequence[shard_storage.ShardRow]) -> None:
        """Give up shards that are this host's by their rows alone, and should be another's.

        They are those whose taking or giving up failed half-way.
        """
        strays = [
            (row.shard_id, row.range_id)
            for row in rows
            if row.host_id == self.host_id
            and row.shard_id not in self._wanted
            and row.shard_id not in self.engine.shards
        ]
        if strays:
            await shard_storage.release_shards(self._db, self.host_id, strays)
            for shard_id, _ in strays:
                self.engine.release_shard(shard_id)

    async def _acquire(self, shard_ids: Iterable[int], joined: int) -> None:
        now = self._clock.monotonic()
        acquired = await shard_storage.acquire_shards(
            self._db, self.host_id, sorted(shard_ids), self._make_note
        )
        if joined != self._join_count:
            # The host was buried meanwhile, and maybe these with it.
            return
        for taken in acquired:
            shard = Shard(
                shard_id=taken.shard_id,
                range_id=taken.range_id,
                next_seq=taken.next_shard_seq,
                watermark=taken.watermark,
                committed_seq=taken.next_shard_seq - 1,
                taken_at=now if taken.range_id > 1 else None,
            )
            self.engine.add_shard(shard)
        if acquired:
            _log.info("shards taken", count=len(acquired))
            self._taken.set()
            self._due.set()

    def _make_note(self, shard_id: int, range_id: int) -> tuple[bytes, bytes]:
        record = log_pb2.LogRecord(time=to_timestamp(self._clock.now()))
        fact = record.facts.add().shard_acquired
        fact.host_id = self.host_id
        fact.range_id = range_id
        stored = record.SerializeToString()
        return stored, chain_hash(EMPTY_HASH, stored)

    async def _release(self, shard_ids: Collection[int]) -> None:
        """Give up shards, once what is queued for them is on disk or has had its time."""
        if not shard_ids:
            return
        leaving = [self.engine.shards[shard_id] for shard_id in sorted(shard_ids)]
        for shard in leaving:
            # From here on requests are refused; what was queued before is still written.
            self.engine.release_shard(shard.shard_id)
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT):
                for shard in leaving:
                    await shard.wait_written()
        except TimeoutError:
            # The log refuses what comes after another host has taken the shard.
            _log.warning("commits take long; their shards are given up all the same")
        await shard_storage.release_shards(
            self._db, self.host_id, [(shard.shard_id, shard.range_id) for shard in leaving]
        )
        _log.info("shards released", count=len(leaving))

    # What taken shards call for.

    async def run_recovery(self) -> None:
        """Recover the shards that are taken until cancelled.

        Those that were taken together are recovered together; those taken meanwhile do not wait.
        """
        under_way: set[tuple[int, int]] = set()
        async with asyncio.TaskGroup() as rounds:
            while not is_cancelled():
                await self._taken.wait()
                self._taken.clear()
                shards = [
                    shard
                    for shard in self.engine.shards.values()
                    if not shard.is_recovered and shard.owner not in under_way
                ]
                if shards:
                    under_way |= {shard.owner for shard in shards}
                    rounds.create_task(self._recover(shards, under_way))
            # Or the group would wait for them.
            raise asyncio.CancelledError

    async def _recover(self, shards: Sequence[Shard], under_way: set[tuple[int, int]]) -> None:
        """Recover some shards, again until they are or are lost; never raises."""
        owners = {shard.owner for shard in shards}
        try:
            while not is_cancelled():
                left = [shard for shard in shards if self._is_to_recover(shard)]
                if not left:
                    return
                try:
                    await recover_shards(self.engine, left)
                except (UnavailableError, TimeoutError) as error:
                    _log.error("shards could not be recovered; trying again", error=str(error))
                except Exception:  # noqa: BLE001 - logged whole
                    _log.exception("shards could not be recovered; trying again")
                else:
                    continue
                await pause(_RECOVERY_RETRY_INTERVAL)
        finally:
            under_way -= owners

    def _is_to_recover(self, shard: Shard) -> bool:
        return self.engine.shards.get(shard.shard_id) is shard and not shard.is_recovered

    async def run_catching_up(self) -> None:
        """Offer again what found no room, until cancelled."""
        await run_catching_up(self.engine)

    async def _run_due_scan(self) -> None:
        next_scan, next_time = self._clock.monotonic(), self._clock.now()
        while not is_cancelled():
            await pause(_CLOCK_LOOK_INTERVAL, unless=self._due)
            # By both clocks: the wall clock may step either way.
            is_late = self._clock.monotonic() >= next_scan or self._clock.now() >= next_time
            if not is_late and not self._due.is_set():
                continue
            self._due.clear()
            try:
                await self._schedule_due()
            except (UnavailableError, TimeoutError) as error:
                _log.warning("due runs could not be looked for; trying again", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole
                _log.exception("due runs could not be looked for; trying again")
            else:
                next_scan = self._clock.monotonic() + _DUE_INTERVAL
                next_time = self._clock.now() + DUE_HORIZON / 2
                continue
            await pause(_RECOVERY_RETRY_INTERVAL)
            self._due.set()

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
