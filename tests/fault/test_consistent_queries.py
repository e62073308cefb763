"""Queries see all that was acknowledged before them, and write nothing: two hosts, under load."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from aetheris_client import Client, WorkflowHandle
from aetheris_worker import Worker, workflow
from tests.fault.conftest import NewServer
from tests.support.log_audit import audit_log
from tests.support.processes import running

QUEUE = "queue"
RUNS = 12
ROUNDS = 15


@workflow.defn
class Tally:
    def __init__(self) -> None:
        self.seen: list[int] = []

    @workflow.signal
    def count(self, number: int) -> None:
        self.seen.append(number)

    @workflow.query
    def numbers(self) -> list[int]:
        return self.seen

    @workflow.run
    async def run(self, wanted: int) -> list[int]:
        await workflow.wait_condition(lambda: len(self.seen) >= wanted)
        return self.seen


Choose = Callable[[], WorkflowHandle[list[int]]]


async def _drive(choose: Choose) -> None:
    """Signal through any host, and ask through any."""
    for number in range(ROUNDS):
        await choose().signal(Tally.count, number)
        assert await choose().query(Tally.numbers) == [*range(number + 1)]


async def _record_counts(dsn: str) -> dict[str, int]:
    runs = await asyncio.to_thread(audit_log, dsn)
    return {run_id: run.record_count for run_id, run in runs.items()}


async def test_query_sees_every_acknowledged_signal_whichever_host_is_asked(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    settings = {"AETHERIS_HISTORY__SHARD_COUNT": "16"}
    servers = new_server(**settings), new_server(**settings)
    chance = random.Random(7)
    async with (
        running(*servers),
        await Client.connect(servers[0].address) as one,
        await Client.connect(servers[1].address) as two,
        # Two workers with few places for runs: some queries are asked of a fresh replay.
        Worker(one, task_queue=QUEUE, workflows=[Tally], max_cached_workflows=RUNS // 2),
        Worker(two, task_queue=QUEUE, workflows=[Tally], max_cached_workflows=RUNS // 2),
    ):
        handles = [
            await one.start_workflow(Tally.run, ROUNDS, id=f"tally-{number}", task_queue=QUEUE)
            for number in range(RUNS)
        ]

        def choices_of(workflow_id: str) -> Choose:
            return lambda: chance.choice((one, two)).get_workflow_handle(
                workflow_id, result_type=list[int]
            )

        drives: list[Awaitable[None]] = [_drive(choices_of(handle.id)) for handle in handles]
        await asyncio.gather(*drives)
        assert await asyncio.gather(*(handle.result() for handle in handles)) == (
            [[*range(ROUNDS)]] * RUNS
        )
        before = await _record_counts(migrated_postgres_dsn)
        answers = await asyncio.gather(*(handle.query(Tally.numbers) for handle in handles * 3))
        assert answers == [[*range(ROUNDS)]] * RUNS * 3
        assert await _record_counts(migrated_postgres_dsn) == before
