"""The history shell on a real Postgres: what it writes, what it reads, what it remembers."""

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, LiteralString

import pytest
from prometheus_client import REGISTRY

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    task_queue_pb2,
    worker_service_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris_server.errors import BrokenLogError, RequestError, UnavailableError
from aetheris_server.history.engine.loader import load_one, load_several
from aetheris_server.history.kinds import KINDS
from aetheris_server.history.runs.kind import RUN
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.obligations import obligations
from aetheris_server.history.state.run import RunState
from aetheris_server.storage.execution_rows import INSERT_EXECUTIONS, UPDATE_EXECUTIONS
from aetheris_server.storage.log import load_run
from aetheris_server.storage.shards import acquire_shards
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS, load_snapshots
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench
from tests.support.log_audit import audit_log
from tests.support.raw import (
    application_failure,
    cancel_activity,
    cancel_timer,
    complete_workflow,
    payloads,
    record_marker,
    schedule_activity,
    seconds,
    start_timer,
)
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_QUEUE = task_queue_pb2.TaskQueue(name="queue")


def _start_request(
    workflow_id: str = "", **fields: Any
) -> workflow_service_pb2.StartWorkflowRequest:
    return workflow_service_pb2.StartWorkflowRequest(
        workflow_id=workflow_id or f"w-{uuid.uuid4()}",
        workflow_type=common_pb2.WorkflowType(name="Flow"),
        task_queue=_QUEUE,
        workflow_task_timeout=seconds(10),
        request_id=str(uuid.uuid4()),
        **fields,
    )


async def _take_ref(bench: HistoryBench) -> matching_service_pb2.TaskRef:
    await wait_until(lambda: bench.matching.refs, 10, "a task")
    return bench.matching.refs.pop(0)


async def _decide(
    bench: HistoryBench,
    task: worker_service_pb2.WorkflowTask,
    *commands: command_pb2.Command,
) -> None:
    await bench.service.respond_workflow_task_completed(
        NAMESPACE_ID,
        worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            task_token=task.task_token, commands=commands, identity="bench"
        ),
    )


async def test_simple_workflow_writes_four_rows_one_insert_and_one_update(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        started = await bench.service.start_workflow(NAMESPACE_ID, _start_request())
        task = (await bench.start_task(await _take_ref(bench))).workflow_task
        await _decide(bench, task, schedule_activity(task_queue=_QUEUE))
        activity = (await bench.start_task(await _take_ref(bench))).activity_task
        await bench.service.respond_activity_task_completed(
            NAMESPACE_ID,
            worker_service_pb2.RespondActivityTaskCompletedRequest(
                task_token=activity.task_token, result=payloads("42")
            ),
        )
        task = (await bench.start_task(await _take_ref(bench))).workflow_task
        await _decide(bench, task, complete_workflow())
        writer = bench.engine.writer
        assert writer.log_row_count == 4
        assert writer.row_counts == {INSERT_EXECUTIONS: 1, UPDATE_EXECUTIONS: 1}
    runs = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert runs[started.run_id].record_count == 4


async def test_long_run_is_loaded_from_its_snapshot_and_the_records_behind_it(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn, snapshot_interval_records=100) as bench:
        request = _start_request()
        started = await bench.service.start_workflow(NAMESPACE_ID, request)
        for _ in range(450):
            await _signal(bench, request.workflow_id)
        run = bench.engine.cache.find(started.run_id)
        assert isinstance(run, LoadedRun)
        bench.engine.cache.drop(run)
        before = bench.db.row_count
        again = await bench.runs.load(NAMESPACE_ID, request.workflow_id, started.run_id)
        # The row in executions, the snapshot, and fewer records than lie between snapshots.
        assert bench.db.row_count - before < 102
        assert again.state == run.state
        # Of 452 events the tail has those behind the snapshot; the rest come from the log.
        pages = await _history(bench, request.workflow_id)
        assert pages == list(range(1, again.state.next_event_id))


async def test_evicted_run_leaves_a_snapshot(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn, cache_max_runs=1) as bench:
        request = _start_request()
        started = await bench.service.start_workflow(NAMESPACE_ID, request)
        for _ in range(40):
            await _signal(bench, request.workflow_id)
        await bench.service.start_workflow(NAMESPACE_ID, _start_request())
        assert bench.engine.cache.find(started.run_id) is None
        await wait_until(lambda: bench.engine.writer.row_counts[PUT_SNAPSHOTS] == 1)
        run = await bench.runs.load(NAMESPACE_ID, request.workflow_id)
        assert run.snapshot_seq == 41


@pytest.mark.parametrize("loads_alone", [True, False], ids=["alone", "with-others"])
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("state = '\\xff'", id="bytes"),
        pytest.param("state = substr(state, 1, length(state) - 4)", id="cut-off"),
        pytest.param("state = state || '\\x980102'", id="version"),
        pytest.param("state = ''", id="empty"),
        pytest.param("hash = '\\x00'", id="hash"),
        pytest.param("run_seq = run_seq - 1", id="place"),
    ],
)
async def test_snapshot_at_fault_is_refused_and_its_run_loaded_from_the_log(
    migrated_postgres_dsn: str, fault: LiteralString, loads_alone: bool
) -> None:
    async with history_bench(migrated_postgres_dsn, snapshot_interval_records=6) as bench:
        run, state = await _damage_snapshot(bench, fault)
        before = _refused_count()
        (again,) = (
            [await load_one(bench.db, RUN, run.shard_id, run.key)]
            if loads_alone
            else [
                loaded
                async for part in load_several(bench.db, KINDS, [(run.shard_id, run.key)])
                for loaded in part
            ]
        )
        assert isinstance(again, LoadedRun)
        assert again.state == state
        assert _refused_count() == before + 1
        assert await load_snapshots(bench.db, [(run.shard_id, run.key.run_id)]) == []


@pytest.mark.damage
async def test_snapshot_ahead_of_its_log_is_believed(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn, snapshot_interval_records=6) as bench:
        run, state = await _damage_snapshot(bench, "run_seq = run_seq")
        ids = run.shard_id, run.key.run_id
        (snapshot,) = await load_snapshots(bench.db, [ids])
        await bench.db.fetch(
            "DELETE FROM log WHERE shard_id = %s AND run_id = %s AND run_seq >= %s",
            (*ids, snapshot.run_seq),
        )
        with pytest.raises(BrokenLogError, match=f"record {snapshot.run_seq}: .* its snapshot"):
            await load_one(bench.db, RUN, run.shard_id, run.key)
        assert await load_snapshots(bench.db, [ids]) == [snapshot]
        assert state.run_seq > snapshot.run_seq


async def _damage_snapshot(bench: HistoryBench, fault: LiteralString) -> tuple[LoadedRun, RunState]:
    """A run with records behind a snapshot at fault, and its state."""
    request = _start_request()
    started = await bench.service.start_workflow(NAMESPACE_ID, request)
    for _ in range(10):
        await _signal(bench, request.workflow_id)
    run = bench.engine.cache.find(started.run_id)
    assert isinstance(run, LoadedRun)
    await bench.db.fetch(f"UPDATE snapshots SET {fault}")
    return run, run.state


def _refused_count() -> float:
    return REGISTRY.get_sample_value("aetheris_refused_snapshots_total") or 0.0


async def _signal(bench: HistoryBench, workflow_id: str, request_id: str = "") -> None:
    await bench.service.signal_workflow(
        NAMESPACE_ID,
        workflow_service_pb2.SignalWorkflowRequest(
            workflow_execution=common_pb2.WorkflowExecution(workflow_id=workflow_id),
            signal_name="signal",
            request_id=request_id or str(uuid.uuid4()),
        ),
    )


async def _history(bench: HistoryBench, workflow_id: str) -> list[int]:
    ids: list[int] = []
    token = b""
    while True:
        page = await bench.service.get_workflow_history(
            NAMESPACE_ID,
            workflow_service_pb2.GetWorkflowHistoryRequest(
                workflow_execution=common_pb2.WorkflowExecution(workflow_id=workflow_id),
                page_token=token,
                page_size=70,
            ),
        )
        ids += [event.event_id for event in page.history.events]
        token = page.next_page_token
        if not token:
            return ids


async def test_start_that_is_given_up_half_way_is_offered_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        request = _start_request()
        await bench.service.start_workflow(NAMESPACE_ID, request)
        ref = await _take_ref(bench)
        async with bench.engine.writer._turn:
            # The signal is not on disk, so the task cannot leave yet.
            signalling = asyncio.create_task(_signal(bench, request.workflow_id))
            await asyncio.sleep(0)
            starting = asyncio.create_task(bench.start_task(ref))
            run = await bench.runs.load(NAMESPACE_ID, request.workflow_id)
            await wait_until(lambda: run.inflight.workflow_task is not None)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert run.inflight.workflow_task is None
        await signalling
        task = await bench.start_task(await _take_ref(bench))
        assert task.workflow_task.attempt == 1


async def test_timer_that_is_due_survives_a_write_that_comes_before_it(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        request = _start_request()
        started = await bench.service.start_workflow(NAMESPACE_ID, request)
        task = (await bench.start_task(await _take_ref(bench))).workflow_task
        await _decide(bench, task, start_timer("t", 5), record_marker("m"))
        await _signal(bench, request.workflow_id)
        task = (await bench.start_task(await _take_ref(bench))).workflow_task
        # The timer is due, and nobody has looked yet when the decision comes.
        monkeypatch.setattr(bench.engine.wakeups, "look_at_due", lambda: 0)
        bench.clock.advance(6)
        await _decide(bench, task)
        rows = await bench.db.fetch(
            "SELECT wake_time, owes FROM executions WHERE run_id = %s", [started.run_id]
        )
        assert rows[0][0] is not None


async def test_shard_lost_in_the_middle_of_a_commit_writes_nothing_and_is_not_acknowledged(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        request = _start_request()
        started = await bench.service.start_workflow(NAMESPACE_ID, request)
        run = await bench.runs.load(NAMESPACE_ID, request.workflow_id)
        async with bench.engine.writer._turn:
            signalling = asyncio.create_task(_signal(bench, request.workflow_id))
            await wait_until(lambda: not run.is_committed)
            await bench.db.fetch("UPDATE shards SET host_id = NULL")
            taken = await acquire_shards(
                bench.db, "other", [run.shard_id], lambda *_: (b"note", bytes(32))
            )
            assert len(taken) == 1
        with pytest.raises(UnavailableError):
            await signalling
        assert run.is_dropped
        assert run.shard_id not in bench.engine.shards
        records = await load_run(bench.db, run.shard_id, started.run_id)
        assert len(records) == 1


@pytest.mark.damage
async def test_run_that_cannot_be_read_keeps_no_other_from_being_recovered(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        bad = await bench.service.start_workflow(NAMESPACE_ID, _start_request())
        good = await bench.service.start_workflow(NAMESPACE_ID, _start_request())
        await bench.db.fetch("UPDATE log SET record = '\\xff' WHERE run_id = %s", [bad.run_id])
    async with history_bench(migrated_postgres_dsn) as bench:
        assert (await _take_ref(bench)).run_id == good.run_id
        assert bench.host.membership.is_ready
        # It is not forgotten: a server that can read it will find it.
        await wait_until(
            lambda: (
                bad.run_id
                in {key.id for shard in bench.engine.shards.values() for key in shard.owing.all()}
            )
        )


# Random lives.


async def test_any_calls_leave_memory_equal_to_the_fold_of_the_log(
    migrated_postgres_dsn: str,
) -> None:
    for seed in range(3):
        async with history_bench(
            migrated_postgres_dsn, cache_max_runs=4, snapshot_interval_records=7
        ) as bench:
            life = _Life(bench, random.Random(seed))
            for number in range(250):
                await life.step()
                if number % 10 == 0:
                    await life.check()
    await asyncio.to_thread(audit_log, migrated_postgres_dsn)


class _Life:
    """Clients and workers that do anything at all, several things at a time."""

    def __init__(self, bench: HistoryBench, chance: random.Random) -> None:
        self.bench = bench
        self.chance = chance
        self.workflow_ids = [f"life-{chance.random()}-{number}" for number in range(5)]
        self.workflow_tasks: list[worker_service_pb2.WorkflowTask] = []
        self.activities: list[worker_service_pb2.ActivityTask] = []
        self.serial = 0

    async def step(self) -> None:
        steps: list[Callable[[], Awaitable[object]]] = [
            *[self.start, self.signal, self.cancel, self.take, self.take, self.decide],
            *[self.decide, self.fail_decision, self.complete, self.fail, self.heartbeat],
            *[self.cancel_activity, self.describe, self.release],
        ]
        if self.chance.random() < 0.05:
            steps = [self.terminate]
        chosen = self.chance.choices(steps, k=self.chance.randint(1, 4))
        answers = await asyncio.gather(*(step() for step in chosen), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(
                answer, (RequestError, UnavailableError)
            ):
                raise answer
        if self.chance.random() < 0.2:
            self.bench.advance(self.chance.choice([0.1, 1.0, 11.0]))

    def execution(self) -> common_pb2.WorkflowExecution:
        return common_pb2.WorkflowExecution(workflow_id=self.chance.choice(self.workflow_ids))

    async def start(self) -> None:
        await self.bench.service.start_workflow(
            NAMESPACE_ID,
            _start_request(
                self.chance.choice(self.workflow_ids),
                workflow_id_conflict_policy=self.chance.choice([1, 1, 2, 3]),
                start_delay=seconds(self.chance.choice([0, 0, 0, 1])),
                workflow_run_timeout=seconds(self.chance.choice([0, 0, 30])),
            ),
        )

    async def signal(self) -> None:
        request_id = self.chance.choice(["same", str(uuid.uuid4())])
        await _signal(self.bench, self.execution().workflow_id, request_id)

    async def cancel(self) -> None:
        await self.bench.service.cancel_workflow(
            NAMESPACE_ID,
            workflow_service_pb2.CancelWorkflowRequest(
                workflow_execution=self.execution(), request_id=str(uuid.uuid4())
            ),
        )

    async def terminate(self) -> None:
        await self.bench.service.terminate_workflow(
            NAMESPACE_ID,
            workflow_service_pb2.TerminateWorkflowRequest(workflow_execution=self.execution()),
        )

    async def describe(self) -> None:
        await self.bench.service.describe_workflow(
            NAMESPACE_ID,
            workflow_service_pb2.DescribeWorkflowRequest(workflow_execution=self.execution()),
        )

    async def take(self) -> None:
        if not self.bench.matching.refs:
            return
        refs = self.bench.matching.refs
        ref = refs.pop(self.chance.randrange(len(refs)))
        if self.chance.random() < 0.2:
            # Offered twice.
            refs.append(ref)
        started = await self.bench.start_task(ref, self.chance.choice(["", "one", "two"]))
        if started.HasField("retry"):
            refs.append(ref)
        if started.HasField("workflow_task"):
            self.workflow_tasks.append(started.workflow_task)
        elif started.HasField("activity_task"):
            self.activities.append(started.activity_task)

    async def release(self) -> None:
        tasks = self.chance.choice([self.workflow_tasks, self.activities])
        if tasks:
            await self.bench.service.release_tasks([self.chance.choice(tasks).task_token])

    def commands(self) -> list[command_pb2.Command]:
        self.serial += 1
        name = f"{self.serial}"
        policy = common_pb2.RetryPolicy(
            initial_interval=seconds(1), maximum_attempts=self.chance.choice([0, 2])
        )
        choices = [
            schedule_activity(name, task_queue=_QUEUE, retry_policy=policy),
            schedule_activity(
                name,
                task_queue=_QUEUE,
                start_to_close_timeout=seconds(5),
                schedule_to_start_timeout=seconds(8),
                heartbeat_timeout=seconds(2),
            ),
            schedule_activity(
                name, task_queue=_QUEUE, delivery=workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE
            ),
            start_timer(name, self.chance.choice([0.5, 3, 40])),
            cancel_timer(f"{self.chance.randint(1, self.serial)}"),
            cancel_activity(self.chance.randint(5, 30)),
            record_marker(name),
            complete_workflow(),
        ]
        weights = [3, 3, 2, 3, 1, 1, 1, 1]
        return self.chance.choices(choices, weights)

    async def decide(self) -> None:
        if self.workflow_tasks:
            # Some are answered twice, maybe at once.
            task = self.chance.choice(self.workflow_tasks)
            if self.chance.random() < 0.8:
                self.workflow_tasks.remove(task)
            await _decide(self.bench, task, *self.commands())

    async def fail_decision(self) -> None:
        if self.workflow_tasks and self.chance.random() < 0.5:
            task = self.workflow_tasks.pop()
            await self.bench.service.respond_workflow_task_failed(
                NAMESPACE_ID,
                worker_service_pb2.RespondWorkflowTaskFailedRequest(
                    task_token=task.task_token, failure=application_failure()
                ),
            )

    def activity(self) -> worker_service_pb2.ActivityTask:
        if not self.activities:
            raise RequestError("no activity")
        return self.chance.choice(self.activities)

    async def complete(self) -> None:
        await self.bench.service.respond_activity_task_completed(
            NAMESPACE_ID,
            worker_service_pb2.RespondActivityTaskCompletedRequest(
                task_token=self.activity().task_token, result=payloads("42")
            ),
        )

    async def fail(self) -> None:
        await self.bench.service.respond_activity_task_failed(
            NAMESPACE_ID,
            worker_service_pb2.RespondActivityTaskFailedRequest(
                task_token=self.activity().task_token, failure=application_failure()
            ),
        )

    async def cancel_activity(self) -> None:
        await self.bench.service.respond_activity_task_cancelled(
            NAMESPACE_ID,
            worker_service_pb2.RespondActivityTaskCancelledRequest(
                task_token=self.activity().task_token
            ),
        )

    async def heartbeat(self) -> None:
        await self.bench.service.record_activity_task_heartbeat(
            NAMESPACE_ID,
            worker_service_pb2.RecordActivityTaskHeartbeatRequest(
                task_token=self.activity().task_token, details=payloads("details")
            ),
        )

    async def check(self) -> None:
        """What is in memory equals what the log says; every task that is due has been offered."""
        for workflow_id in self.workflow_ids:
            with suppress(RequestError):
                run = await self.bench.runs.load(NAMESPACE_ID, workflow_id)
                await wait_until(lambda run=run: self.has_equal_log(run), 5, "the log")
                # Offers follow commits.
                await wait_until(lambda run=run: self.has_all_offers(run), 5, "all tasks")

    async def has_equal_log(self, run: LoadedRun) -> bool:
        """Whether nothing is on its way to the log; fails if what is there is something else."""
        await run.wait_committed()
        records = await load_run(self.bench.db, run.shard_id, run.key.run_id)
        decoded = [log_pb2.LogRecord.FromString(record.record) for record in records]
        state = new_state(run.key, decoded[0])
        for record, stored in zip(decoded, records, strict=True):
            apply(state, record, stored.record)
            assert state.hash == stored.hash
        if state.run_seq != run.state.run_seq:
            return False
        assert state == run.state
        return True

    def has_all_offers(self, run: LoadedRun) -> bool:
        offered = {
            (ref.run_id, ref.scheduled_event_id, ref.attempt) for ref in self.bench.matching.refs
        }
        return all(
            (ref.run_id, ref.scheduled_event_id, ref.attempt) in offered
            for ref in obligations(run.state, run.inflight, self.bench.clock.now())
            if isinstance(ref, matching_service_pb2.TaskRef)
        )
