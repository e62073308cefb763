"""A machine that only a test knows: through the engine, Postgres, a crash and recovery."""

import pytest

from aetheris.api.v1 import command_pb2, task_queue_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS
from tests.support.alarm import QUEUE, alarms_of, alarms_served, decide_silenced, set_alarms
from tests.support.clock import ManualClock
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench, start_request
from tests.support.wait import wait_until

# What its machine writes is not known to whoever looks at the database afterwards.
pytestmark = [pytest.mark.integration, pytest.mark.damage]


async def _decide(bench: HistoryBench, *commands: command_pb2.Command) -> None:
    ref = await bench.take_ref(task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW)
    task = (await bench.start_task(ref)).workflow_task
    decision = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
        task_token=task.task_token, commands=commands, identity="bench"
    )
    await bench.service.respond_workflow_task_completed(NAMESPACE_ID, decision)


def _alarm_refs(bench: HistoryBench) -> list[TaskRef]:
    return [ref for ref in bench.matching.refs if ref.task_queue == QUEUE]


async def _described(bench: HistoryBench) -> dict[str, bytes]:
    request = workflow_service_pb2.DescribeWorkflowRequest()
    request.workflow_execution.workflow_id = "w"
    described = await bench.service.describe_workflow(NAMESPACE_ID, request)
    memo = described.workflow_execution_info.memo
    return {name: payload.data for name, payload in memo.fields.items()}


@pytest.mark.parametrize("interval", [1, 1000], ids=["from-snapshot", "from-log"])
async def test_machine_of_a_test_lives_through_crashes(
    migrated_postgres_dsn: str, interval: int
) -> None:
    clock = ManualClock()
    settings = {"snapshot_interval_records": interval}
    with alarms_served():
        async with history_bench(migrated_postgres_dsn, clock, **settings) as bench:
            await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
            await _decide(bench, set_alarms(egg=30, tea=600))
            bench.advance(30)
            await wait_until(lambda: _alarm_refs(bench))
            assert (bench.engine.writer.row_counts[PUT_SNAPSHOTS] > 0) == (interval == 1)
        # The host is gone: the task that it offered, and the deadline that it waited for.
        async with history_bench(migrated_postgres_dsn, clock, **settings) as bench:
            await wait_until(lambda: _alarm_refs(bench))
            assert await _described(bench) == {"egg": b"rings", "tea": b"set"}
            run = await bench.runs.load(NAMESPACE_ID, "w")
            assert (run.snapshot_seq > 0) == (interval == 1)
            record = decide_silenced(run.state, run.inflight, "egg", bench.engine.time_of(run))
            await bench.engine.commit(run, record).ticket.wait()
            bench.matching.refs.clear()
            bench.advance(570)
            (ref,) = await wait_until(lambda: _alarm_refs(bench))
            assert ref.scheduled_event_id == alarms_of(run.state)[0].set_event_id
            assert await _described(bench) == {"tea": b"rings"}
