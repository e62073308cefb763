"""The run itself: how it begins, its deadline, and how it closes.

    started ──first task due──► running ──completed, failed, cancelled, continued as new──► closed
       │                           │         (commands of its code)
       └───────────────────────────┴──timed out, terminated────────────────────────────────► closed

It ends once, by one event, its last. A run without a delay runs at once. The deadline counts from
the first workflow task's time on. What continues a run, if anything does, is in `successor`.
"""

from collections.abc import Iterable
from datetime import datetime

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2
from aetheris.server.v1 import state_pb2
from aetheris_server.history.aggregates.records import find_unknown
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent
from aetheris_server.history.state.machines.lifecycle.close import (
    append_run_timed_out,
    cancel_workflow,
    closes_as,
    complete_workflow,
    fail_workflow,
)
from aetheris_server.history.state.machines.lifecycle.continuing import continue_as_new
from aetheris_server.history.state.machines.lifecycle.start import deadlines, describe
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp, to_timestamp

_STATUSES = frozenset(workflow_pb2.WorkflowExecutionStatus.values())


def _new_deadlines(state: RunState, _event: history_pb2.HistoryEvent) -> Iterable[datetime]:
    return deadlines(state)


def _deadlines(state: RunState, _inflight: Inflight, _now: datetime) -> Iterable[datetime]:
    return deadlines(state)


def _decide_due(draft: Draft, state: RunState, inflight: Inflight, _at: float) -> None:
    if state.run_deadline_time is not None and state.run_deadline_time <= draft.now:
        append_run_timed_out(draft, state, inflight)
    elif state.first_task_time is not None and state.first_task_time <= draft.now:
        draft.schedule_workflow_task()


def _close(state: RunState) -> None:
    state.first_task_time = None
    state.run_deadline_time = None


def _save(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    if state.first_task_time is not None:
        snapshot.first_task_time.CopyFrom(to_timestamp(state.first_task_time))
    if state.run_deadline_time is not None:
        snapshot.run_deadline_time.CopyFrom(to_timestamp(state.run_deadline_time))
    if state.close_event is not None:
        snapshot.close_event.CopyFrom(state.close_event)
    snapshot.status = state.status


def _load(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    if snapshot.HasField("first_task_time"):
        state.first_task_time = from_timestamp(snapshot.first_task_time)
    if snapshot.HasField("run_deadline_time"):
        state.run_deadline_time = from_timestamp(snapshot.run_deadline_time)
    if snapshot.HasField("close_event"):
        state.close_event = snapshot.close_event
    state.status = snapshot.status


def _find_unknown(snapshot: state_pb2.RunSnapshot) -> str | None:
    if snapshot.status not in _STATUSES:
        return f"the status {snapshot.status}"
    return find_unknown(snapshot.started)


def _waits(
    state: RunState, _inflight: Inflight, _now: datetime
) -> Iterable[workflow_pb2.WaitReason]:
    if state.first_task_time is not None:
        yield workflow_pb2.WaitReason(
            kind=workflow_pb2.WAIT_KIND_START_DELAY,
            since_time=to_timestamp(state.start_time),
            until_time=to_timestamp(state.first_task_time),
        )


MACHINE = Machine(
    name="lifecycle",
    commands={
        command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION: complete_workflow,
        command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION: fail_workflow,
        command_pb2.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION: cancel_workflow,
        command_pb2.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION: continue_as_new,
    },
    closing_commands=frozenset(
        {
            command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
            command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
            command_pb2.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
            command_pb2.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
        }
    ),
    events={
        # The state before the first record has what the started event says.
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: OnEvent(deadlines=_new_deadlines),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: OnEvent(
            closes_as(workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED)
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: OnEvent(
            closes_as(workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED)
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: OnEvent(
            closes_as(workflow_pb2.WORKFLOW_EXECUTION_STATUS_TIMED_OUT)
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED: OnEvent(
            closes_as(workflow_pb2.WORKFLOW_EXECUTION_STATUS_CANCELLED)
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: OnEvent(
            closes_as(workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED)
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW: OnEvent(
            closes_as(workflow_pb2.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW)
        ),
    },
    deadlines=_deadlines,
    decide_due=_decide_due,
    close=_close,
    save=_save,
    load=_load,
    find_unknown=_find_unknown,
    describe=describe,
    waits=_waits,
)
