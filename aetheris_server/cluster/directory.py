"""Where everything is, as the last look at the cluster showed it. No I/O.

The owner of a shard is whoever its row names, for as long as that host lives; a task queue belongs
to whichever live host `placement` says. Both may be out of date, so who is asked for what it does
not have refuses, and the caller asks again.
"""

from collections.abc import Sequence

from aetheris.api.v1 import task_queue_pb2
from aetheris.server.v1 import matching_service_pb2
from aetheris_server.cluster.placement import choose_host, is_loopback
from aetheris_server.storage.hosts import Sight
from aetheris_server.storage.shards import ShardRow
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)


class Directory:
    """The hosts, what each should have, and which shards each has.

    Attributes:
        address: Where the others reach this host; empty until it has joined.
        wanted: The shards that this host should have.
        owners: The address of its owner by shard, for those that a live host has.
    """

    def __init__(self, shard_count: int) -> None:
        self.address = ""
        self.wanted: frozenset[int] = frozenset()
        self.owners: dict[int, str] = {}
        self._shard_count = shard_count
        self._addresses: frozenset[str] = frozenset()

    def note(self, sight: Sight, rows: Sequence[ShardRow]) -> None:
        """Take note of a look at the cluster and at the table of shards."""
        self._note_hosts(sight)
        self.owners = {
            row.shard_id: sight.hosts[row.host_id]
            for row in rows
            if row.host_id is not None and row.host_id in sight.hosts
        }

    def _note_hosts(self, sight: Sight) -> None:
        live = {sight.hosts[host_id] for host_id in sight.hosts.keys() - sight.expired}
        addresses = frozenset({*live, self.address})
        if addresses == self._addresses:
            return
        self._addresses = addresses
        self.wanted = frozenset(
            shard_id
            for shard_id in range(self._shard_count)
            if choose_host(f"shard/{shard_id}", addresses) == self.address
        )
        _log.info("hosts of the cluster", addresses=sorted(addresses))
        if len({is_loopback(address) for address in addresses}) > 1:
            _log.error(
                "some hosts advertise an address that no other machine can reach;"
                " set their internal.host, or internal.advertised_address",
                addresses=sorted(address for address in addresses if is_loopback(address)),
            )

    def is_elsewhere(self, shard_id: int) -> bool:
        """Whether another live host has a shard."""
        return self.owners.get(shard_id, self.address) != self.address

    def locate_shard(self, shard_id: int) -> str | None:
        """The address of the host that has a shard; None if it is this host, or not known."""
        address = self.owners.get(shard_id)
        return None if address == self.address else address

    def locate_queue(
        self,
        namespace_id: str,
        task_queue: str,
        task_queue_type: task_queue_pb2.TaskQueueType.ValueType,
    ) -> str | None:
        """The address of the host whose matching has a task queue; None if it is this host."""
        if len(self._addresses) < 2:
            return None
        key = f"{namespace_id}/{task_queue_type}/{task_queue}"
        address = choose_host(key, self._addresses)
        return None if address == self.address else address

    def locate_task(self, task: matching_service_pb2.TaskRef) -> str | None:
        """The address of the host whose matching takes a task; None if it is this host."""
        return self.locate_queue(task.namespace_id, task.task_queue, task.task_queue_type)
