"""A host's place in the cluster: it joins, looks who lives, buries the dead, and leaves.

`run` does nothing else, so that none of it waits for what the shards call for. The lease has a loop
and a connection of its own.
"""

import asyncio

from aetheris_server.clock import Clock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.cluster.directory import Directory
from aetheris_server.cluster.holder import ShardHolder
from aetheris_server.cluster.lease import Lease
from aetheris_server.cluster.ownership import Ownership
from aetheris_server.cluster.readiness import Readiness
from aetheris_server.config import ConfigError, HistorySettings
from aetheris_server.errors import UnavailableError
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.storage import hosts as host_storage
from aetheris_server.storage.database import Database
from aetheris_server.storage.shards import load_shards
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)


class Membership:
    """Membership and shards of one host.

    Attributes:
        host_id: Of this start of the host; the next has another.
        lease: This host's.
        directory: Where everything is.
    """

    def __init__(
        self,
        settings: HistorySettings,
        shard_count: int,
        host_id: str,
        db: Database,
        clock: Clock,
        default_builds: DefaultBuilds,
    ) -> None:
        self.host_id = host_id
        self.directory = Directory(shard_count)
        self.lease = Lease(
            host_id,
            settings.lease_timeout,
            settings.heartbeat_interval,
            host_storage.LeaseRenewer(db),
            clock,
            self._rejoin,
        )
        self._settings = settings
        self._db = db
        self._clock = clock
        self._default_builds = default_builds
        self._readiness = Readiness(clock)
        self._holder: ShardHolder | None = None
        self._ownership: Ownership | None = None
        # The look after which there was nothing left to do; None if there is.
        self._sight: host_storage.Sight | None = None
        self._is_displaced = False
        self._is_leaving = False
        self._wake = asyncio.Event()

    def attach(self, holder: ShardHolder) -> None:
        """Name whoever serves the shards; called once, before `join`."""
        self._holder = holder
        self._ownership = Ownership(self._db, self.host_id, self._clock, self.directory, holder)

    @property
    def holder(self) -> ShardHolder:
        """Whoever serves the shards."""
        assert self._holder is not None
        return self._holder

    @property
    def ownership(self) -> Ownership:
        """The shards of this host."""
        assert self._ownership is not None
        return self._ownership

    # What the rest of the process asks.

    @property
    def waits_for(self) -> str | None:
        """What keeps this host from serving the shards that it should; None is nothing.

        They are served while they are being recovered: what they owe takes a moment longer. Some
        that are being taken anew, after a fault say, are no reason to send callers elsewhere: every
        host has them wait for the one that takes them.
        """
        if self._is_displaced:
            return "an address of its own: another host has internal.advertised_address"
        if not self.lease.is_valid:
            return "its lease, which postgres has not renewed"
        is_enough = self._readiness.is_enough(
            len(self.ownership.missing), len(self.directory.wanted)
        )
        return None if is_enough else "its shards"

    @property
    def is_ready(self) -> bool:
        """Whether `waits_for` is nothing."""
        return self.waits_for is None

    async def wait_ready(self) -> None:
        """Return when this host has all the shards that it should have."""
        await self._readiness.wait_complete()

    def locate_shard(self, shard_id: int) -> str | None:
        """The address of the host that has a shard; None if it is this host, or not known.

        This host refuses a shard that it does not have, and the caller asks again.
        """
        return None if shard_id in self.holder.held else self.directory.locate_shard(shard_id)

    def on_shard_failed(self, shard_id: int) -> None:
        """A commit of a shard failed and it is no longer held: take it anew if it is ours."""
        self._readiness.note_missing()
        self.directory.owners.pop(shard_id, None)
        self._wake.set()

    # Coming and going.

    async def join(self, address: str, *, is_reached: bool = True) -> None:
        """Take this host's place in the cluster; called once, before `run` and `lease.run`.

        Args:
            address: Where peers reach this host.
            is_reached: Who calls there has been seen to come here: then whoever was there before is
                dead. Else it may live, and this waits for as long as its lease may last.

        Raises:
            ConfigError: Another host is at that address.
            UnavailableError: Postgres does not answer.
        """
        self.directory.address = address
        if is_reached:
            await host_storage.replace_host(self._db, self.host_id, address)
        if not await self._register() and (is_reached or not await self._outlast()):
            raise ConfigError(
                "internal.advertised_address",
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
        """Give this host a lease; whether no other live host has its address."""
        sent_at = self._clock.monotonic()
        is_ours = await host_storage.register_host(
            self._db, self.host_id, self.directory.address, self._settings.lease_timeout
        )
        if is_ours:
            self.lease.begin(sent_at)
        return is_ours

    async def _rejoin(self) -> None:
        """This host was buried: forget its shards, and come back unless it is leaving."""
        self._readiness.note_nothing()
        self.ownership.lose_all()
        if self._is_leaving:
            return
        if await self._register():
            _log.error("this host was taken for dead and has joined anew")
            self._is_displaced = False
            self._wake.set()
        elif not self._is_displaced:
            self._is_displaced = True
            _log.error(
                "another host has this host's address; each needs an internal.host, or an"
                " internal.advertised_address, of its own",
                address=self.directory.address,
            )

    async def leave(self) -> None:
        """Settle and give up all shards, and be forgotten. The last call; `run` has ended.

        Raises:
            UnavailableError: Postgres does not answer; the lease will run out.
        """
        # The lease is renewed to the end; where its row is gone by then, nobody must think that
        # this host has come back.
        self._is_leaving = True
        if not self.lease.is_valid:
            _log.warning("the lease has run out; there is nothing to give up")
            return
        await self.holder.settle()
        await self.ownership.release_all()
        await host_storage.remove_host(self._db, self.host_id)

    # Looking.

    async def run(self) -> None:
        """Look at the cluster, and do what that calls for, until cancelled."""
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
        term = self.ownership.term
        sight = await host_storage.look_at_cluster(self._db)
        if sight.expired and await self._bury():
            sight = await host_storage.look_at_cluster(self._db)
        # First: what this host takes over by this look, it serves as it is set by then.
        await self._default_builds.follow(sight.settings_version)
        if sight == self._sight and self._readiness.is_complete:
            return
        # What changes from here on, or fails half-way, is seen by the next look.
        self._sight = None
        rows = await load_shards(self._db)
        self.directory.note(sight, rows)
        await self.ownership.move(rows, term)
        if self.ownership.is_complete:
            self._sight = sight
            self._readiness.note_complete()
        else:
            self._readiness.note_missing()

    async def _bury(self) -> bool:
        """Free the shards of hosts whose leases have run out; whether there were any."""
        grace = 0.0 if self.lease.is_steady else self._settings.lease_timeout
        buried = await host_storage.bury_hosts(self._db, self.host_id, grace)
        if buried:
            _log.warning("hosts are dead; their shards are free", host_ids=buried)
        return bool(buried)
