"""As many signals to one run as it may have: the last cost what the first did."""

import asyncio
import time

import pytest

from aetheris.api.v1 import task_queue_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    signal_request,
    start_request,
)

pytestmark = pytest.mark.integration

_AT_ONCE = 50
_PART = 1_000
_PARTS = RunLimits().max_signals // _PART
# A request id, its length and its tag; what follows from the machine's own memory of it.
_SNAPSHOT_BYTES_EACH = 40
# Of the clock that counts this process's work, which other tests do not move.
_SLACK_SECONDS = 0.3


async def _send(bench: HistoryBench, part: int) -> float:
    """Send a thousand; the seconds of this process's work that it took."""
    begin = time.process_time()
    for first in range(0, _PART, _AT_ONCE):
        await asyncio.gather(
            *(
                bench.service.signal_workflow(
                    NAMESPACE_ID, signal_request("w", f"{part:08}-{number:023}")
                )
                for number in range(first, first + _AT_ONCE)
            )
        )
    return time.process_time() - begin


async def test_ten_thousand_signals_to_one_run_do_not_slow_down(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        run = await bench.runs.load(NAMESPACE_ID, "w")
        first = await _send(bench, 0)
        for part in range(1, _PARTS - 1):
            await _send(bench, part)
        last = await _send(bench, _PARTS - 1)

        assert last < 3 * first + _SLACK_SECONDS
        assert run.state.signal_count == _PARTS * _PART
        assert len(run.to_snapshot()) < _SNAPSHOT_BYTES_EACH * _PARTS * _PART
        assert bench.engine.writer.row_counts[PUT_SNAPSHOTS] <= _PARTS * _PART / 256 + 1
        with pytest.raises(InvalidArgumentError, match="10000 is the limit"):
            await bench.service.signal_workflow(NAMESPACE_ID, signal_request("w"))

        # The worker gets a page of them with the task, and reads on from there.
        ref = await bench.take_ref(task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW)
        task = (await bench.start_task(ref)).workflow_task
        assert task.next_page_token
        assert task.ByteSize() < 64 * 1024
