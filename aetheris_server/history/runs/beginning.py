"""What every new run of a workflow id goes by."""

from datetime import datetime, timedelta

from aetheris_server.history.runs.runs import Runs
from aetheris_server.storage.executions import NewestRun, find_run_of_request

_TICK = timedelta(microseconds=1)


async def find_begun_by(
    runs: Runs, namespace_id: str, workflow_id: str, request_id: str, newest: NewestRun
) -> str | None:
    """The run of a workflow id that a request has begun; others may have begun since.

    Raises:
        ShardNotOwnedError: This host does not have the shard.
        StorageUnavailableError: Postgres does not answer.
    """
    if newest.start_request_id == request_id:
        return newest.run_id
    shard = runs.find_shard(namespace_id, workflow_id)
    await shard.wait_written()
    return await find_run_of_request(runs.db, shard.shard_id, namespace_id, workflow_id, request_id)


def start_time_after(runs: Runs, previous: NewestRun | None) -> datetime:
    """Now, but later than the run before: the newest run is found by its start time."""
    now = runs.clock.now()
    return now if previous is None else max(now, previous.start_time + _TICK)
