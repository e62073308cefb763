"""The workflow task: a decision that the run's code is to make.

    none ──schedule──► scheduled ──start──► started ──completed──► none, or scheduled again
                          ▲                    │
                          └──── retry ─────────┴─ failed, timed out

*Started* is in `Inflight` only. From the second attempt on the task is transient: its events are
written when it succeeds, so a task that fails for hours leaves one failure in the history. When
something new happens meanwhile, a first attempt takes its place.

What schedules it, and what tries it again, is in `Draft`: everything that the code must see does.
"""

from collections.abc import Iterable
from datetime import datetime

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent, OnFact
from aetheris_server.history.state.machines.workflow_task import fold, tasks
from aetheris_server.history.state.machines.workflow_task.ending import append_timed_out
from aetheris_server.history.state.run import RunState


def _deadlines(state: RunState, inflight: Inflight, _now: datetime) -> Iterable[datetime]:
    if not inflight.is_task_backing_off or state.is_paused:
        return ()
    return tasks.retry_deadlines(state)


def _retry_deadlines(state: RunState, _fact: log_pb2.Fact) -> Iterable[datetime]:
    return () if state.is_paused else tasks.retry_deadlines(state)


def _inflight_deadlines(_state: RunState, inflight: Inflight) -> Iterable[float]:
    started = inflight.workflow_task
    return () if started is None else (started.deadline_at,)


def _decide_due(draft: Draft, _state: RunState, inflight: Inflight, at: float) -> None:
    started = inflight.workflow_task
    if started is not None and started.deadline_at <= at:
        append_timed_out(draft, started)


def _restore(state: RunState, inflight: Inflight, _now: datetime, _at: float) -> None:
    task = state.workflow_task
    inflight.is_task_backing_off = task is not None and task.is_transient


MACHINE = Machine(
    name="workflow_task",
    events={
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED: OnEvent(
            fold.scheduled, fold.observe_scheduled, obligations=tasks.of_schedule
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED: OnEvent(),
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED: OnEvent(
            fold.completed, fold.observe_completed
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED: OnEvent(fold.closed, fold.observe_closed),
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT: OnEvent(fold.closed, fold.observe_closed),
    },
    facts={
        "workflow_task_retry_scheduled": OnFact(
            fold.retried, fold.observe_retried, _retry_deadlines, tasks.of_retry
        ),
    },
    deadlines=_deadlines,
    inflight_deadlines=_inflight_deadlines,
    decide_due=_decide_due,
    owes=tasks.owes,
    obligations=tasks.obligations,
    take_due=tasks.take_due,
    restore=_restore,
    close=fold.drop,
    save=fold.save,
    load=fold.load,
    find_unknown=fold.find_unknown_task,
    describe=fold.describe,
    waits=fold.waits,
)
