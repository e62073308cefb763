"""An engine without a disk: what is committed is on it at once. Driven by hand, with a clock."""

from typing import Any

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    history_pb2,
    task_queue_pb2,
    worker_service_pb2,
    workflow_service_pb2,
)
from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.task_start import (
    arm_activity,
    mark_activity_started,
    mark_workflow_task_started,
)
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.commands import decide_workflow_task_completed
from aetheris_server.history.state.inflight import TaskTaker
from aetheris_server.history.state.machines.activity import answers
from aetheris_server.history.state.machines.activity import starting as activity_starting
from aetheris_server.history.state.machines.lifecycle.start import decide_started
from aetheris_server.history.state.machines.signal import decide_signaled
from aetheris_server.history.state.machines.workflow_task import starting as task_starting
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.state.run import RunKey
from aetheris_server.storage.execution_rows import INSERT_EXECUTIONS, UPDATE_EXECUTIONS
from aetheris_server.storage.log import RunRecord
from tests.support.clock import ManualClock
from tests.support.engines import build_runs, fold_run
from tests.support.runs import application_failure

_TAKER = TaskTaker("worker", worker_instance_id="worker-1")


class MemoryEngine:
    """One shard. A run that left memory is loaded again from the rows that were committed.

    Attributes:
        refs: What has been offered and not yet been taken.
        loads: How often a deadline had a run loaded.
    """

    def __init__(self, clock: ManualClock, **settings: Any) -> None:
        self.clock = clock
        chosen: dict[str, Any] = {
            "cache_max_count": 10**6,
            "cache_max_bytes": 10**12,
            "snapshot_interval_records": 10**6,
            **settings,
        }
        self.runs = build_runs(clock, **chosen)
        self.engine = self.runs.engine
        self.engine.add_shard(Shard(shard_id=0, range_id=1, next_seq=1, watermark=0))
        self.loads = 0
        self._records: dict[str, list[RunRecord]] = {}
        self._wake_times: dict[str, Any] = {}

    @property
    def refs(self) -> list[matching_service_pb2.TaskRef]:
        self.settle()
        return [ref for lane in self.engine.dispatcher.tasks._lanes.values() for ref in lane.queue]

    def take_refs(self) -> list[matching_service_pb2.TaskRef]:
        """What has been offered, which nobody else gets."""
        refs = self.refs
        self.engine.dispatcher.tasks._lanes.clear()
        return refs

    def settle(self) -> None:
        """Write what is queued."""
        while self.engine.committer._queue:
            for commit in self.engine.committer._take_batch():
                for row in commit.rows:
                    stored = RunRecord(
                        row.shard_seq,
                        row.run_seq,
                        row.first_event_id,
                        row.event_count,
                        row.record,
                        row.hash,
                    )
                    self._records.setdefault(row.run_id or "", []).append(stored)
                for row in (
                    *commit.changes.of(INSERT_EXECUTIONS),
                    *commit.changes.of(UPDATE_EXECUTIONS),
                ):
                    self._wake_times[row.run_id] = row.wake_time
                commit.on_done(commit, None)
        for rewrite in self.engine.shards[0].wake_rewrites.values():
            self._wake_times[rewrite.id] = rewrite.new_time
        self.engine.shards[0].wake_rewrites.clear()

    # Time.

    def advance(self, seconds: float) -> None:
        """Let time pass, and look at what is due then."""
        self.clock.advance(seconds)
        self.look()

    def look(self) -> None:
        """Look at what is due, and load what is due and not in memory."""
        self.settle()
        wakeups = self.engine.wakeups
        while wakeups.look_at_due() or not wakeups._to_load.empty():
            while not wakeups._to_load.empty():
                self.loads += 1
                wakeups._try_look_at(self.load(wakeups._to_load.get_nowait()))
            self.settle()

    # Runs.

    def start(self, name: str, **start: Any) -> RunKey:
        """Start a run."""
        key = RunKey("namespace", f"workflow-{name}", name)
        request = workflow_service_pb2.StartWorkflowRequest(
            workflow_id=key.workflow_id,
            workflow_type=common_pb2.WorkflowType(name="Flow"),
            task_queue=task_queue_pb2.TaskQueue(name="queue"),
            request_id=name,
            **start,
        )
        record = decide_started(key, request, self.clock.now())
        self.engine.commit(self.runs.create(key, record), record)
        self.settle()
        return key

    def load(self, key: AggregateKey) -> LoadedRun:
        """The run, from memory or from what was committed."""
        run = self.engine.cache.find(key.id)
        if run is None:
            run = fold_run(key, 0, None, self._records[key.id])
            run.wake_time = self._wake_times.get(key.id)
            self.engine._finder._admit(run)
        assert isinstance(run, LoadedRun)
        return run

    def events(self, key: RunKey) -> list[history_pb2.HistoryEvent]:
        """The run's history, as committed."""
        stored = self._records[key.run_id]
        return [
            event for row in stored for event in log_pb2.LogRecord.FromString(row.record).events
        ]

    def evict(self, key: RunKey) -> None:
        """Have a run leave memory, if it can."""
        self.settle()
        run = self.engine.cache.peek(key.run_id)
        if run is not None and run.is_evictable:
            self.engine.cache._remove(run)
            self.engine._on_evicted(run)

    def schedule_due(self, horizon: Any) -> None:
        """What `Cluster` does every few seconds."""
        for run_id, wake_time in self._wake_times.items():
            is_away = self.engine.cache.peek(run_id) is None
            if wake_time is not None and wake_time <= self.clock.now() + horizon and is_away:
                key = RunKey("namespace", f"workflow-{run_id}", run_id)
                self.engine.wakeups.schedule(key, wake_time)

    def signal(self, key: RunKey) -> None:
        """Signal a run."""
        run = self.load(key)
        request = workflow_service_pb2.SignalWorkflowRequest(
            signal_name="wake", request_id=f"{run.state.run_seq}"
        )
        now, limits = self.engine.time_of(run), self.runs.limits_of(run)
        record = decide_signaled(run.state, run.inflight, request, now, limits)
        assert record is not None
        self._commit(run, record)

    # Workers.

    def start_task(self, key: RunKey) -> StartedWorkflowTask:
        """A worker takes the pending workflow task."""
        return mark_workflow_task_started(self.runs, self.load(key), _TAKER)

    def run_task(self, key: RunKey, *commands: command_pb2.Command) -> None:
        """A worker takes the pending workflow task and decides."""
        started = self.start_task(key)
        run = self.load(key)
        request = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            commands=commands, identity="worker"
        )
        decision = decide_workflow_task_completed(
            run.state,
            run.inflight,
            request,
            started.start_id,
            self.engine.time_of(run),
            self.runs.limits_of(run),
        )
        self._commit(run, decision.record)

    def is_startable(self, ref: matching_service_pb2.TaskRef) -> bool:
        """What `StartTasks` asks."""
        run = self.load(RunKey(ref.namespace_id, ref.workflow_id, ref.run_id))
        is_activity = ref.task_queue_type == task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY
        starting = activity_starting if is_activity else task_starting
        return starting.is_startable(
            run.state, run.inflight, ref.scheduled_event_id, ref.attempt, self.engine.time_of(run)
        )

    def start_activity(self, key: RunKey, scheduled_event_id: int) -> None:
        """A worker takes an activity."""
        run = self.load(key)
        mark_activity_started(self.runs, run, run.state.activities[scheduled_event_id], _TAKER)
        self.settle()

    def heartbeat(self, key: RunKey, scheduled_event_id: int) -> None:
        """The worker of an activity lives."""
        run = self.load(key)
        started = run.inflight.activities[scheduled_event_id]
        started.note_heartbeat(self.engine.time_of(run), self.clock.monotonic())
        arm_activity(self.runs, run, started)

    def fail_activity(self, key: RunKey, scheduled_event_id: int) -> None:
        """The worker of an activity fails."""
        run = self.load(key)
        record = answers.decide_activity_task_failed(
            run.state,
            run.inflight,
            run.state.activities[scheduled_event_id],
            worker_service_pb2.RespondActivityTaskFailedRequest(
                failure=application_failure(), identity="worker"
            ),
            run.inflight.activities[scheduled_event_id].started_time,
            self.engine.time_of(run),
        )
        self._commit(run, record)

    def complete_activity(self, key: RunKey, scheduled_event_id: int) -> None:
        """The worker of an activity is done."""
        run = self.load(key)
        record = answers.decide_activity_task_completed(
            run.state,
            run.inflight,
            run.state.activities[scheduled_event_id],
            worker_service_pb2.RespondActivityTaskCompletedRequest(identity="worker"),
            run.inflight.activities[scheduled_event_id].started_time,
            self.engine.time_of(run),
        )
        self._commit(run, record)

    def _commit(self, run: LoadedRun, record: log_pb2.LogRecord) -> None:
        self.engine.commit(run, record)
        self.settle()
