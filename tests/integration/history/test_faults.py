"""A fault of ours in the middle of a transition: what was acknowledged stays."""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    history_pb2,
    worker_service_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris_server.errors import (
    BrokenLogError,
    InvalidArgumentError,
    RequestError,
    RunSetAsideError,
    UnavailableError,
)
from aetheris_server.history.api import start_tasks
from aetheris_server.history.engine import changing
from aetheris_server.history.engine.refusals import REFUSAL_INTERVAL
from aetheris_server.history.runs import index, task_start
from aetheris_worker import workflow
from aetheris_worker.testing import Replayer
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    signal_request,
    start_request,
)
from tests.support.log_audit import audit_log
from tests.support.raw import schedule_activity
from tests.support.wait import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.fault]

_BAD = "Bad"
_TERMINATE = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING


@workflow.defn
class Waiter:
    """Takes signals for ever."""

    def __init__(self) -> None:
        self.count = 0

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.count < 0)

    @workflow.signal
    def signal(self) -> None:
        self.count += 1


class _FaultError(Exception):
    """What a fault of ours raises."""


def _fails_on_bad_runs(real: Callable[..., Any], type_of: Callable[..., str]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        result = real(*arguments)
        if type_of(*arguments) == _BAD:
            raise _FaultError("a fault of ours")
        return result

    return call


def _break_encoding(patch: pytest.MonkeyPatch) -> None:
    """The row of a bad run cannot be encoded."""
    patch.setattr(
        index,
        "encode_search_attributes",
        _fails_on_bad_runs(
            index.encode_search_attributes,
            lambda attributes: _BAD if _BAD in attributes.indexed_fields else "",
        ),
    )


def _break_index_record(patch: pytest.MonkeyPatch) -> None:
    """A record of a bad run cannot be indexed; it has been applied and encoded."""
    patch.setattr(
        changing,
        "index_record",
        _fails_on_bad_runs(
            changing.index_record,
            lambda _, run, *__: run.state.started.workflow_type.name,
        ),
    )


def _start_request(workflow_id: str, type_: str = "Waiter") -> Any:
    request = start_request(workflow_id, type_)
    if type_ == _BAD:
        request.search_attributes.indexed_fields[_BAD].CopyFrom(
            common_pb2.Payload(metadata={"type": b"Keyword"}, data=b'"x"')
        )
    return request


class _Signallers:
    """Clients that repeat each signal, under its request id, until it is acknowledged."""

    def __init__(self, bench: HistoryBench, workflow_id: str) -> None:
        self._bench = bench
        self._workflow_id = workflow_id
        self.acknowledged: set[str] = set()

    async def run(self, count: int) -> None:
        for _ in range(count):
            request_id = str(uuid.uuid4())
            await wait_until(lambda request_id=request_id: self._try_signal(request_id), 60)
            self.acknowledged.add(request_id)

    async def _try_signal(self, request_id: str) -> bool:
        with suppress(UnavailableError):
            await self._bench.service.signal_workflow(
                NAMESPACE_ID, signal_request(self._workflow_id, request_id)
            )
            return True
        return False


async def _work(bench: HistoryBench) -> None:
    """A worker that decides on every workflow task that there is nothing to do."""
    while True:
        await wait_until(lambda: bench.matching.refs, 60)
        with suppress(UnavailableError, RequestError):
            task = (await bench.start_task(bench.matching.refs.pop(0))).workflow_task
            await bench.service.respond_workflow_task_completed(
                NAMESPACE_ID,
                worker_service_pb2.RespondWorkflowTaskCompletedRequest(
                    task_token=task.task_token, commands=list[command_pb2.Command]()
                ),
            )


@pytest.mark.parametrize("break_", [_break_encoding, _break_index_record])
@pytest.mark.parametrize("hits_the_run", [False, True])
async def test_fault_in_a_transition_loses_and_repeats_nothing_that_was_acknowledged(
    migrated_postgres_dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    break_: Callable[[pytest.MonkeyPatch], None],
    hits_the_run: bool,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        started = await bench.service.start_workflow(NAMESPACE_ID, _start_request("victim"))
        break_(monkeypatch)
        signallers = _Signallers(bench, "victim")
        signalling = [asyncio.create_task(signallers.run(15)) for _ in range(6)]
        working = asyncio.create_task(_work(bench))
        faults = 0
        while not all(task.done() for task in signalling):
            request = _start_request("victim" if hits_the_run else f"bad-{faults}", _BAD)
            request.workflow_id_conflict_policy = _TERMINATE
            try:
                await bench.service.start_workflow(NAMESPACE_ID, request)
            except _FaultError:
                faults += 1
            except UnavailableError:
                await asyncio.sleep(0)
        await asyncio.gather(*signalling)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        assert faults
        await wait_until(lambda: bench.host.membership.is_ready, 10)
        assert not _owes_for_runs_that_never_were(bench, {started.run_id})
    runs = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert set(runs) == {started.run_id}
    events = runs[started.run_id].events
    signals = [
        event.workflow_execution_signaled_event_attributes.request_id
        for event in events
        if event.event_type == history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    ]
    buffered = [
        event.workflow_execution_signaled_event_attributes.request_id
        for event in runs[started.run_id].state.buffered_events
    ]
    recorded = signals + buffered
    assert len(recorded) == len(set(recorded))
    assert set(recorded) == signallers.acknowledged
    Replayer(workflows=[Waiter]).replay(history_pb2.History(events=events))


def _owes_for_runs_that_never_were(bench: HistoryBench, run_ids: set[str]) -> set[str]:
    owing = {key.id for shard in bench.engine.shards.values() for key in shard.owing.all()}
    return owing - run_ids


async def test_run_that_fails_again_and_again_takes_its_shard_away_once_in_a_while(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, _start_request("w", _BAD))
        shard_id = bench.engine.find_shard(NAMESPACE_ID, "w").shard_id
        _break_index_record(monkeypatch)
        bad = _Signallers(bench, "w")
        with pytest.raises(_FaultError):
            await bad._try_signal("1")
        # One of many shards is no reason to send callers to other hosts.
        assert bench.host.membership.is_ready
        await wait_until(lambda: shard_id in bench.engine.shards)
        range_id = bench.engine.shards[shard_id].range_id
        for _ in range(20):
            with pytest.raises(RunSetAsideError):
                await bench.runs.load(NAMESPACE_ID, "w")
        assert bench.engine.shards[shard_id].range_id == range_id
        monkeypatch.undo()
        bench.clock.advance(REFUSAL_INTERVAL)
        await wait_until(lambda: bad._try_signal("2"))
        # What it owes is offered again then: its shard is recovered as soon as it can be read.
        await wait_until(lambda: bench.engine.shards[shard_id].is_recovered)


async def test_start_that_the_store_would_refuse_fails_no_other(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        ranges = {shard.shard_id: shard.range_id for shard in bench.engine.shards.values()}
        bad = [
            bench.service.start_workflow("", _start_request(f"b-{number}")) for number in range(20)
        ]
        bad.append(bench.service.start_workflow(NAMESPACE_ID, _start_request("nul\0")))
        bad.append(bench.service.start_workflow(NAMESPACE_ID, _start_request("type", "nul\0")))
        bad.append(bench.service.start_workflow(NAMESPACE_ID, _start_request("ü" * 1001)))
        good = [
            bench.service.start_workflow(NAMESPACE_ID, _start_request(f"g-{number}"))
            for number in range(20)
        ]
        answers = await asyncio.gather(*bad, *good, return_exceptions=True)
        assert all(isinstance(answer, InvalidArgumentError) for answer in answers[: len(bad)])
        assert all(
            isinstance(answer, workflow_service_pb2.StartWorkflowResponse)
            for answer in answers[len(bad) :]
        )
        assert ranges == {shard.shard_id: shard.range_id for shard in bench.engine.shards.values()}


@pytest.mark.damage
async def test_run_whose_log_is_not_whole_is_refused_once_in_a_while_and_others_go_on(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        broken = await bench.service.start_workflow(NAMESPACE_ID, _start_request("broken"))
        await bench.service.start_workflow(NAMESPACE_ID, _start_request("whole"))
        for workflow_id in ("broken", "whole"):
            await _Signallers(bench, workflow_id).run(3)
        (task,) = [ref for ref in bench.matching.refs if ref.run_id == broken.run_id]
    await _delete_record(migrated_postgres_dsn, broken.run_id, 3)
    async with history_bench(migrated_postgres_dsn) as bench:
        # Recovery and everybody who asks: all are refused, by one look at the disk.
        for _ in range(3):
            with pytest.raises(BrokenLogError, match=f"{broken.run_id}' record 3: expected"):
                await bench.service.signal_workflow(NAMESPACE_ID, signal_request("broken"))
        before = bench.db.row_count
        with pytest.raises(BrokenLogError):
            await bench.runs.load(NAMESPACE_ID, "broken")
        assert bench.db.row_count == before
        # Nor does its task come back every second, and the sweep looks at it in a while.
        assert (await bench.start_task(task)).HasField("gone")
        shard = bench.engine.find_shard(NAMESPACE_ID, "broken")
        await wait_until(lambda: broken.run_id in {key.id for key in shard.owing.all()})
        await _Signallers(bench, "whole").run(1)
        assert bench.host.membership.is_ready


@pytest.mark.damage
async def test_run_whose_log_ends_too_early_is_refused(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        started = await bench.service.start_workflow(NAMESPACE_ID, _start_request("w"))
        await bench.service.terminate_workflow(
            NAMESPACE_ID,
            workflow_service_pb2.TerminateWorkflowRequest(
                workflow_execution=common_pb2.WorkflowExecution(workflow_id="w")
            ),
        )
    await _delete_record(migrated_postgres_dsn, started.run_id, 2)
    async with history_bench(migrated_postgres_dsn) as bench:
        with pytest.raises(BrokenLogError, match="as its row says"):
            await bench.runs.load(NAMESPACE_ID, "w")


async def _delete_record(dsn: str, run_id: str, run_seq: int) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            "DELETE FROM log WHERE run_id = %s AND run_seq = %s", (run_id, run_seq)
        )


async def _cannot_read(*_: Any) -> None:
    raise _FaultError("a fault of ours")


async def test_task_whose_message_cannot_be_built_is_not_offered_at_once(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, _start_request("w", _BAD))
        (bad,) = await wait_until(lambda: bench.matching.refs)
        bench.matching.refs.clear()
        monkeypatch.setattr(task_start, "read_events", _cannot_read)
        assert (await bench.start_task(bad)).HasField("retry")
        # What is offered goes in order.
        whole = await bench.service.start_workflow(NAMESPACE_ID, _start_request("whole"))
        await wait_until(lambda: whole.run_id in {ref.run_id for ref in bench.matching.refs})
        assert bad.run_id not in {ref.run_id for ref in bench.matching.refs}
        monkeypatch.undo()
        assert (await bench.start_task(bad)).HasField("workflow_task")


async def test_activity_whose_message_cannot_be_built_is_not_kept_from_others(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, _start_request("w"))
        task = (
            await bench.start_task(await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW))
        ).workflow_task
        decision = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            task_token=task.task_token, commands=[schedule_activity()]
        )
        await bench.service.respond_workflow_task_completed(NAMESPACE_ID, decision)
        ref = await bench.take_ref(TASK_QUEUE_TYPE_ACTIVITY)
        monkeypatch.setattr(
            start_tasks,
            "to_activity_task",
            _fails_on_bad_runs(task_start.to_activity_task, lambda *_: _BAD),
        )
        assert (await bench.start_task(ref)).HasField("retry")
        monkeypatch.undo()
        assert (await bench.start_task(ref)).HasField("activity_task")


@pytest.mark.damage
async def test_history_with_a_hole_before_its_snapshot_is_refused(
    migrated_postgres_dsn: str,
) -> None:
    settings: dict[str, Any] = {"snapshot_interval_records": 6}
    async with history_bench(migrated_postgres_dsn, **settings) as bench:
        broken = await bench.service.start_workflow(NAMESPACE_ID, _start_request("broken"))
        await _Signallers(bench, "broken").run(10)
        (task,) = bench.matching.refs
    await _delete_record(migrated_postgres_dsn, broken.run_id, 3)
    async with history_bench(migrated_postgres_dsn, **settings) as bench:
        await bench.runs.load(NAMESPACE_ID, "broken")
        with pytest.raises(BrokenLogError, match=f"{broken.run_id}' record 4: expected"):
            await bench.service.get_workflow_history(
                NAMESPACE_ID,
                workflow_service_pb2.GetWorkflowHistoryRequest(
                    workflow_execution=common_pb2.WorkflowExecution(workflow_id="broken")
                ),
            )
        # Nor does a worker get a part of it, again and again.
        assert (await bench.start_task(task)).HasField("gone")
        run = await bench.runs.load(NAMESPACE_ID, "broken")
        assert run.inflight.workflow_task is None
