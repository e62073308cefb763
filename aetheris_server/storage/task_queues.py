"""Settings of task queues: the build that each prefers."""

from collections.abc import Mapping
from dataclasses import dataclass

from aetheris_server.storage.database import Database

Queue = tuple[str, str]
"""A namespace's id and a task queue's name."""


@dataclass(frozen=True, slots=True)
class QueueBuilds:
    """The default build of each queue that has one, as of a version of all settings."""

    version: int
    by_queue: Mapping[Queue, str]


# Both rows change, or neither: who sees the version sees what it stands for.
_CHANGE = """
WITH changed AS (
    INSERT INTO task_queues AS q (namespace_id, task_queue, default_build_id, request_ids)
    VALUES (%(namespace_id)s, %(task_queue)s, %(build_id)s, ARRAY[%(request_id)s::text])
    ON CONFLICT (namespace_id, task_queue) DO UPDATE SET
        default_build_id = excluded.default_build_id,
        request_ids = (excluded.request_ids || q.request_ids)[1:20],
        change_time = now()
    WHERE NOT (%(request_id)s::text = ANY (q.request_ids))
    RETURNING 1
)
UPDATE cluster SET settings_version = settings_version + 1 WHERE EXISTS (SELECT FROM changed)
"""

_LOAD = """
SELECT c.settings_version, q.namespace_id::text, q.task_queue, q.default_build_id
FROM cluster c LEFT JOIN task_queues q ON q.default_build_id <> ''
"""


async def change_default_build(
    db: Database, namespace_id: str, task_queue: str, build_id: str, request_id: str
) -> None:
    """Set the build of a queue, empty for any; nothing if this request is one of its last 20.

    Raises:
        StorageUnavailableError: Postgres does not answer; it may have been set.
        UnstorableError: It cannot hold such a text.
    """
    parameters = {
        "namespace_id": namespace_id,
        "task_queue": task_queue,
        "build_id": build_id,
        "request_id": request_id,
    }
    await db.fetch(_CHANGE, parameters)


async def load_default_builds(db: Database) -> QueueBuilds:
    """Those of all queues of the cluster, which has been made.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_LOAD)
    return QueueBuilds(
        version=rows[0][0],
        by_queue={
            (namespace_id, task_queue): build_id
            for _, namespace_id, task_queue, build_id in rows
            if namespace_id is not None
        },
    )
