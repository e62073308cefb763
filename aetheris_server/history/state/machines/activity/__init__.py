"""The activity: work with effects, in attempts.

    scheduled ──start──► started ──completed, cancelled──► closed
        ▲  │                │
        │  │ timed out,     │ failed, timed out: no attempt is left
        │  │ cancelled      └─────────────────────────────► closed
        │  └───────────────────────────────────────────────► closed
        └── failed, timed out: another attempt is left (a fact, not an event)

*Started* is in `Inflight`; an at-most-once activity's start is also a fact, on disk before its
worker gets the task. Only another fact, that the worker certainly did not get it, takes that back.
The started event is written right before the event that closes the activity. What is done to an
activity from outside (pause, reset, other options) is in `changes`: facts, too.
"""

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris_server.history.state.machine import Machine, OnEvent, OnFact
from aetheris_server.history.state.machines.activity import (
    changes,
    commands,
    fold,
    starting,
    tasks,
    timeouts,
    views,
)

MACHINE = Machine(
    name=changes.NAME,
    commands={
        command_pb2.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK: commands.schedule,
        command_pb2.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK: commands.request_cancel,
    },
    events={
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: OnEvent(
            fold.scheduled, deadlines=timeouts.of_schedule, obligations=tasks.of_schedule
        ),
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED: OnEvent(
            observe=fold.observe_closing, finish=fold.note_started_id
        ),
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: OnEvent(
            fold.completed, finish=fold.fill_started_id
        ),
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED: OnEvent(
            fold.failed, finish=fold.fill_started_id
        ),
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: OnEvent(
            fold.timed_out, finish=fold.fill_started_id
        ),
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED: OnEvent(
            fold.cancelled, finish=fold.fill_started_id
        ),
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED: OnEvent(fold.cancel_requested),
    },
    facts={
        "activity_attempt_failed": OnFact(
            fold.attempt_failed, fold.observe_attempt_failed, timeouts.of_retry, tasks.of_retry
        ),
        "activity_attempt_started": OnFact(fold.attempt_started),
        "activity_attempt_not_delivered": OnFact(
            fold.attempt_not_delivered,
            fold.observe_not_delivered,
            timeouts.of_not_delivered,
            tasks.of_not_delivered,
        ),
        "activity_heartbeat_recorded": OnFact(fold.heartbeat_recorded),
    },
    own_fact=OnFact(
        changes.changed, changes.observe_changed, changes.changed_deadlines, changes.take_changed
    ),
    deadlines=timeouts.deadlines,
    inflight_deadlines=timeouts.inflight_deadlines,
    decide_due=timeouts.decide_due,
    owes=tasks.owes,
    obligations=tasks.obligations,
    take_due=tasks.take_due,
    restore=starting.restore,
    close=fold.drop,
    save=views.save,
    load=views.load,
    find_unknown=views.find_unknown_activity,
    describe=views.describe,
    waits=views.waits,
)
