"""Which builds the cluster's task queues prefer, as this host knows it.

Each look at the cluster tells the version of all settings, and where that is another, they are read
again: a statement more only then. The look that shows a host that it has become the owner of a
queue shows it that queue's settings as well. Whoever changes one reads it at once; the other hosts
follow with their next looks.
"""

from collections.abc import Callable

from aetheris_server.storage.database import Database
from aetheris_server.storage.task_queues import (
    Queue,
    QueueBuilds,
    change_default_build,
    load_default_builds,
)


def _ignore(_queue: Queue) -> None:
    pass


class DefaultBuilds:
    """The default builds of one cluster.

    Attributes:
        on_changed: Called for each queue whose default build is another than before.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        # Of the version with which a cluster begins: nothing was ever set.
        self._known = QueueBuilds(0, {})
        self.on_changed: Callable[[Queue], None] = _ignore

    def find(self, namespace_id: str, task_queue: str) -> str:
        """The build that tasks go to which require none; empty for workers of any."""
        by_queue = self._known.by_queue
        return by_queue.get((namespace_id, task_queue), "") if by_queue else ""

    async def follow(self, version: int) -> None:
        """The settings have this version: see to it that what is known is of it, or later.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        if version > self._known.version:
            self.note(await load_default_builds(self._db))

    async def change(
        self, namespace_id: str, task_queue: str, build_id: str, request_id: str
    ) -> None:
        """Set the default build of a queue, empty for none; this host knows it on return.

        Raises:
            StorageUnavailableError: Postgres does not answer; it may have been set, and is seen by
                a later look then.
        """
        await change_default_build(self._db, namespace_id, task_queue, build_id, request_id)
        self.note(await load_default_builds(self._db))

    def note(self, found: QueueBuilds) -> None:
        """Take what was read, unless something newer is known."""
        known = self._known
        if found.version <= known.version:
            return
        self._known = found
        for queue in known.by_queue.keys() | found.by_queue.keys():
            if known.by_queue.get(queue) != found.by_queue.get(queue):
                self.on_changed(queue)
