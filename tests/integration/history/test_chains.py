"""A run and the one that continues it: both are written, or neither, and found again after that."""

import uuid
from typing import Any

import pytest

from aetheris.api.v1 import command_pb2, task_queue_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1.history_service_pb2 import AggregateName
from aetheris.server.v1.run_calls_pb2 import RequestCancelRunCall, RunCall, SignalRunCall
from aetheris_server.errors import UnavailableError, WorkflowNotFoundError
from aetheris_server.history.aggregates.obligation import make_call
from aetheris_server.history.state.machines.lifecycle.successor import next_run_id
from aetheris_server.history.state.run import KIND, RunKey
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS
from tests.support.clock import ManualClock
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench, start_request
from tests.support.runs import (
    application_failure,
    continue_as_new,
    fail_workflow,
    memo,
    payloads,
    seconds,
    upsert_memo,
)
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_WORKFLOW = task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW


async def _decide(bench: HistoryBench, *commands: command_pb2.Command, **fields: Any) -> None:
    ref = await bench.take_ref(_WORKFLOW)
    started = await bench.start_task(ref)
    request = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
        task_token=started.workflow_task.task_token, commands=commands, **fields
    )
    await bench.service.respond_workflow_task_completed(NAMESPACE_ID, request)


async def _start(bench: HistoryBench, **fields: Any) -> str:
    request = start_request("w")
    request.MergeFrom(workflow_service_pb2.StartWorkflowRequest(**fields))
    return (await bench.service.start_workflow(NAMESPACE_ID, request)).run_id


@pytest.mark.parametrize("interval", [1, 1000], ids=["from-snapshot", "from-log"])
async def test_chain_is_found_again_by_another_host(
    migrated_postgres_dsn: str, interval: int
) -> None:
    clock = ManualClock()
    settings = {"snapshot_interval_records": interval}
    async with history_bench(migrated_postgres_dsn, clock, **settings) as bench:
        first = await _start(bench, memo=memo(a="1"))
        clock.advance(5)
        await _decide(bench, upsert_memo(b="2"), continue_as_new(input=payloads("again")))
        assert (bench.engine.writer.row_counts[PUT_SNAPSHOTS] > 0) == (interval == 1)
    async with history_bench(migrated_postgres_dsn, clock, **settings) as bench:
        # The task of the run that goes on was owed when the host was lost.
        ref = (await wait_until(lambda: bench.refs_of(_WORKFLOW)))[0]
        assert ref.run_id == next_run_id(first)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        assert run.key.run_id == next_run_id(first)
        assert run.state.started.memo == memo(a="1", b="2")
        assert run.state.started.input == payloads("again")
        await _decide(bench, fail_workflow(application_failure()))


async def test_retry_waits_for_its_time_though_no_host_lives(migrated_postgres_dsn: str) -> None:
    clock = ManualClock()
    policy = {"initial_interval": seconds(3600)}
    async with history_bench(migrated_postgres_dsn, clock) as bench:
        first = await _start(bench, retry_policy=policy)
        await _decide(bench, fail_workflow(application_failure()))
        assert bench.matching.refs == []
    clock.advance(3599)
    async with history_bench(migrated_postgres_dsn, clock) as bench:
        assert bench.matching.refs == []
        run = await bench.runs.load(NAMESPACE_ID, "w")
        assert run.key.run_id == next_run_id(first)
        bench.advance(1.1)
        ref = (await wait_until(lambda: bench.refs_of(_WORKFLOW)))[0]
        assert ref.run_id == next_run_id(first)


async def test_run_that_goes_on_in_a_lost_record_is_not_there(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        first = await _start(bench)
        before = await bench.runs.load(NAMESPACE_ID, "w")

        async def fail(*_: Any) -> None:
            monkeypatch.undo()
            bench.engine.committer.fail_shard(bench.engine.shards[before.shard_id].owner)
            raise UnavailableError("the disk is away")

        ref = await bench.take_ref(_WORKFLOW)
        started = await bench.start_task(ref)
        monkeypatch.setattr(bench.engine.writer, "commit", fail)
        request = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            task_token=started.workflow_task.task_token, commands=[continue_as_new()]
        )
        with pytest.raises(UnavailableError):
            await bench.service.respond_workflow_task_completed(NAMESPACE_ID, request)
        await wait_until(lambda: before.shard_id in bench.engine.shards)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        assert run.key.run_id == first
        assert run.state.is_open
        with pytest.raises(WorkflowNotFoundError):
            await bench.runs.load(NAMESPACE_ID, "w", next_run_id(first))


async def test_request_is_looked_for_in_the_run_before_for_ten_minutes(
    migrated_postgres_dsn: str,
) -> None:
    clock = ManualClock()
    async with history_bench(migrated_postgres_dsn, clock) as bench:
        await _start(bench)
        signal = workflow_service_pb2.SignalWorkflowRequest(signal_name="s", request_id="once")
        signal.workflow_execution.workflow_id = "w"
        await bench.service.signal_workflow(NAMESPACE_ID, signal)
        clock.advance(5)
        await _decide(bench, continue_as_new())
        run = await bench.runs.load(NAMESPACE_ID, "w")
        await bench.service.signal_workflow(NAMESPACE_ID, signal)
        assert run.state.signal_count == 0
        clock.advance(601)
        await bench.service.signal_workflow(NAMESPACE_ID, signal)
        assert run.state.signal_count == 1


async def test_simple_run_writes_no_more_than_before(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        run_id = await _start(bench, retry_policy={"maximum_attempts": 3})
        await _decide(bench)
        rows = await bench.db.fetch("SELECT count(*) FROM log WHERE run_id = %s", [run_id])
        assert rows == [(2,)]


async def test_call_of_another_run_that_comes_again_after_the_run_went_on_is_taken_once(
    migrated_postgres_dsn: str,
) -> None:
    caller = RunKey(NAMESPACE_ID, "caller", str(uuid.uuid4()))
    target = AggregateName(kind=KIND, namespace_id=NAMESPACE_ID, name="w")
    signal = RunCall(signal=SignalRunCall(signal_name="s"))
    cancel = RunCall(request_cancel=RequestCancelRunCall(reason="late"))
    calls = [
        make_call(caller, number, target, call.SerializeToString())
        for number, call in enumerate((signal, cancel))
    ]
    async with history_bench(migrated_postgres_dsn) as bench:
        await _start(bench)
        answers = await bench.host.service.call_aggregates(calls)
        await _decide(bench, continue_as_new())
        assert await bench.host.service.call_aggregates(calls) == answers
        run = await bench.runs.load(NAMESPACE_ID, "w")
        assert run.state.started.continued_execution_run_id
        assert run.state.signal_count == 0
        assert not run.state.cancel_requested
        # Another call is another signal.
        another = make_call(caller, 7, target, signal.SerializeToString())
        await bench.host.service.call_aggregates([another])
        assert run.state.signal_count == 1
