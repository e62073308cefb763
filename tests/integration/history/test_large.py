"""More bytes at once than the store takes in one statement, or than may wait for it."""

import asyncio
from contextlib import suppress

import pytest

from aetheris_server.errors import UnavailableError
from aetheris_server.history.engine import committer
from aetheris_server.storage.commit import CommitBatch
from tests.support.history_host import NAMESPACE_ID, history_bench, signal_request, start_request
from tests.support.log_audit import audit_log
from tests.support.raw import payloads
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_COUNT = 48


async def test_many_large_writes_at_once_go_in_bounded_batches_and_fail_no_shard(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "MAX_QUEUED_BYTES", 64 * 1024 * 1024)
    large = payloads("x" * (2 * 1024 * 1024 - 100))
    sizes: list[int] = []
    async with history_bench(migrated_postgres_dsn) as bench:
        write = bench.engine.writer.commit

        async def commit(batch: CommitBatch) -> None:
            sizes.append(sum(len(row.record) for row in batch.log))
            await write(batch)

        monkeypatch.setattr(bench.engine.writer, "commit", commit)
        for number in range(8):
            await bench.service.start_workflow(NAMESPACE_ID, start_request(f"w-{number}"))
        ranges = {shard.shard_id: shard.range_id for shard in bench.engine.shards.values()}
        refused = 0

        async def try_signal(number: int) -> bool:
            nonlocal refused
            request = signal_request(f"w-{number % 8}", f"{number}", input=large)
            with suppress(UnavailableError):
                await bench.service.signal_workflow(NAMESPACE_ID, request)
                return True
            refused += 1
            return False

        async with asyncio.TaskGroup() as group:
            for number in range(_COUNT):
                group.create_task(
                    wait_until(lambda number=number: try_signal(number), 60, "a large signal")
                )
        assert refused
        assert max(sizes) <= committer._MAX_BATCH_BYTES
        assert ranges == {shard.shard_id: shard.range_id for shard in bench.engine.shards.values()}
    runs = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert sum(run.state.signal_count for run in runs.values()) == _COUNT
