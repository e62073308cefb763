"""The look-up that every start makes: is there a run of this workflow id already?

Nearly always there is none, so that is what is asked, over a connection of its own in pipeline
mode, which costs less than half of a statement through the pool. Only ids that have a run are then
read in full.
"""

import asyncio
from collections.abc import Sequence
from typing import LiteralString

import psycopg

from aetheris_server.storage.arrays import int4_array, text_array, uuid_array
from aetheris_server.storage.database import Database, is_connection_loss, storage_errors
from aetheris_server.storage.executions import NewestRun, WorkflowKey, load_newest_runs
from aetheris_server.storage.pipeline import PipelineConnection

_EXISTS = b"1"

_STATEMENTS: dict[bytes, LiteralString] = {
    _EXISTS: """
SELECT w.position FROM unnest($1::integer[], $2::uuid[], $3::text[])
    WITH ORDINALITY AS w (shard_id, namespace_id, workflow_id, position)
WHERE EXISTS (
    SELECT FROM executions x WHERE x.shard_id = w.shard_id
        AND x.namespace_id = w.namespace_id AND x.workflow_id = w.workflow_id
)""",
}


class NewestRunReader:
    """Reads the newest runs of workflow ids, one call at a time. To be closed."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: PipelineConnection | None = None
        self._turn = asyncio.Lock()

    async def load(self, keys: Sequence[WorkflowKey]) -> dict[WorkflowKey, NewestRun]:
        """The newest run of each workflow id, open or closed; those that have none are left out.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        if not keys:
            return {}
        async with self._turn:
            with storage_errors():
                async with asyncio.timeout(self._db.timeout):
                    known = [keys[position - 1] for position in await self._find(keys)]
        return await load_newest_runs(self._db, known)

    async def close(self) -> None:
        """Close the connection once the call under way is done. Again is harmless."""
        async with self._turn:
            if self._connection is not None:
                self._connection.close()

    async def _find(self, keys: Sequence[WorkflowKey]) -> list[int]:
        """The positions, from 1, of the keys that have a run."""
        shard_ids, namespace_ids, workflow_ids = zip(*keys, strict=True)
        parameters = [int4_array(shard_ids), uuid_array(namespace_ids), text_array(workflow_ids)]
        try:
            return await self._ask(parameters)
        except psycopg.OperationalError as error:
            if not is_connection_loss(error):
                raise
            # All connections are gone after the server has restarted; a read can be repeated.
            return await self._ask(parameters)

    async def _ask(self, parameters: list[bytes]) -> list[int]:
        if self._connection is None or self._connection.is_closed:
            self._connection = await self._db.connect_pipeline(_STATEMENTS)
        (result,) = await self._connection.run([(_EXISTS, parameters)])
        values = (result.get_value(row, 0) for row in range(result.ntuples))
        return [int.from_bytes(value) for value in values if value is not None]
