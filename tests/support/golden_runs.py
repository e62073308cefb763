"""Runs that have every event and every fact, and how a golden file is made of them.

`python -m tests.support.golden_runs FILE` writes one with the code as it is. Files are only ever
added: one whose log this program writes differently is what they are for.
"""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aetheris.api.v1 import common_pb2, task_queue_pb2, workflow_pb2
from aetheris.server.v1 import log_pb2, reset_pb2, run_calls_pb2
from aetheris_server.history.aggregates.obligation import number_of
from aetheris_server.history.state.machines.reset import append_reset_to
from aetheris_server.history.state.snapshot import to_snapshot
from aetheris_server.history.times import to_timestamp
from tests.support.resets import make_records, started_events
from tests.support.runs import (
    CHILD_ID,
    KEY,
    PARENT,
    RunDriver,
    accept_update,
    application_failure,
    cancel_activity,
    cancel_run,
    cancel_timer,
    cancel_workflow,
    close_event,
    complete_update,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    memo,
    payloads,
    record_marker,
    schedule_activity,
    search_attributes,
    seconds,
    signal_run,
    start_child,
    start_timer,
    update,
    upsert_memo,
    upsert_search_attributes,
)

_AT_MOST_ONCE = workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE


class GoldenRun(RunDriver):
    """Keeps, for each record, what a golden file has."""

    def __init__(self, **start: Any) -> None:
        self.rows: list[dict[str, str]] = []
        super().__init__(**start)

    def commit(self, record: log_pb2.LogRecord) -> log_pb2.LogRecord:
        super().commit(record)
        self.rows.append(
            {
                "record": base64.b64encode(self.stored[-1]).decode(),
                "hash": self.state.hash.hex(),
                "snapshot": base64.b64encode(to_snapshot(self.state)).decode(),
            }
        )
        return record


def _timers() -> GoldenRun:
    """Some fire while a worker decides; of those one is withdrawn. The code fails."""
    run = GoldenRun()
    timers = [start_timer("a", 5), start_timer("b", 6), start_timer("c", 7), start_timer("d", 90)]
    run.run_task(*timers, force_create_new_workflow_task=True)
    run.start_task()
    run.advance(5.5)
    run.signal("s1", input=payloads("hello"))
    run.complete_task(cancel_timer("a"), cancel_timer("b"))
    run.start_task()
    run.advance(3)
    run.complete_task(record_marker("m"))
    run.run_task(fail_workflow(application_failure()))
    return run


def _activities() -> GoldenRun:
    """They end in every way, and so does the workflow task; the run times out."""
    run = GoldenRun(workflow_run_timeout=seconds(500), start_delay=seconds(5))
    run.advance(5)
    run.run_task(
        schedule_activity("fails", capabilities=["gpu"]),
        schedule_activity("times-out", heartbeat_timeout=seconds(5)),
        schedule_activity("is-lost", delivery=_AT_MOST_ONCE),
        schedule_activity("is-not-delivered", delivery=_AT_MOST_ONCE),
        schedule_activity("never-starts", schedule_to_start_timeout=seconds(40)),
        schedule_activity("is-cancelled", start_to_close_timeout=seconds(300)),
        schedule_activity("completes", start_to_close_timeout=seconds(300)),
    )
    for activity_id in ("times-out", "is-lost", "is-not-delivered", "fails", "is-cancelled"):
        run.start_activity(activity_id)
    run.heartbeat("times-out", "half")
    run.lose_activity("is-not-delivered")
    run.fail_activity("fails", details=payloads("so far"))
    run.advance(1)
    run.start_activity("fails")
    run.fail_activity("fails", application_failure("Fatal", non_retryable=True))
    cancelled = ("is-not-delivered", "is-cancelled")
    run.run_task(*(cancel_activity(run.activity(id_).scheduled_event_id) for id_ in cancelled))
    run.cancel_activity("is-cancelled")
    for wait in (6, 60):
        run.advance(wait)
    run.start_task()
    run.advance(20)
    run.start_task()
    run.fail_task()
    run.advance(1)
    run.start_task()
    run.signal("s2")
    run.start_activity("completes")
    run.complete_activity("completes")
    run.fail_task()
    run.start_task()
    run.fail_task()
    run.advance(500)
    return run


def _cancelled() -> GoldenRun:
    run = GoldenRun(start_delay=seconds(50))
    run.request_cancel()
    run.run_task(cancel_workflow())
    return run


def _terminated() -> GoldenRun:
    """While workers have something and events wait."""
    run = GoldenRun()
    run.run_task(schedule_activity(), start_timer())
    run.signal("s1")
    run.start_task()
    run.signal("s2")
    run.start_activity()
    run.terminate()
    return run


def _continued() -> GoldenRun:
    """Its code changes the notes, and goes on as new."""
    run = GoldenRun(
        memo=memo(a="1", b="2"),
        search_attributes=search_attributes(place='"here"'),
        retry_policy=common_pb2.RetryPolicy(maximum_attempts=3),
    )
    notes = (upsert_memo(a="3", b="", c="4"), upsert_search_attributes(place="", kind='"x"'))
    run.run_task(*notes, force_create_new_workflow_task=True)
    run.run_task(continue_as_new(input=payloads("next")))
    return run


def _paused() -> GoldenRun:
    """Twice, once while a worker decides; what waits meanwhile goes on, and it is paused again."""
    run = GoldenRun()
    run.run_task(schedule_activity("a"), start_timer(timeout=5))
    run.pause("p1")
    run.advance(6)
    run.signal("s1")
    run.unpause("u1")
    run.start_task()
    run.start_activity("a")
    run.pause("p2")
    run.fail_activity("a")
    run.unpause("u2")
    run.complete_task()
    run.pause("p3")
    run.terminate()
    return run


def _changed() -> GoldenRun:
    """Its activities are changed from outside in every way, waiting and running."""
    run = GoldenRun()
    run.run_task(schedule_activity("a"), schedule_activity("b", heartbeat_timeout=seconds(5)))
    run.pause_activity("a")
    run.update_activity(
        "a",
        workflow_pb2.ActivityOptions(
            task_queue=task_queue_pb2.TaskQueue(name="elsewhere"),
            start_to_close_timeout=seconds(20),
        ),
        "task_queue",
        "start_to_close_timeout",
    )
    run.unpause_activity("a", delay=3, reset_attempts=True)
    run.start_activity("b")
    run.heartbeat("b", "half")
    run.reset_activity("b", reset_heartbeat=True)
    run.pause_activity("b")
    run.fail_activity("b", application_failure("ActivityPause"))
    run.advance(4)
    run.start_activity("a")
    run.complete_activity("a")
    run.reset_activity("b")
    run.start_activity("b")
    run.complete_activity("b")
    return run


def _moved() -> GoldenRun:
    """From build to build: while a task waits, while a worker has it, while it is tried again."""
    run = GoldenRun(pinned_build_id="b1")
    run.update_options("b2", "o1")
    run.start_task()
    run.update_options("b3", "o2")
    run.complete_task()
    run.signal("s1")
    run.start_task()
    run.fail_task()
    run.update_options("", "o3")
    run.run_task(complete_workflow())
    return run


def _reset() -> GoldenRun:
    """Made of another one, with activities and a timer open; and reset, after it has closed."""
    base = RunDriver()
    base.run_task(schedule_activity("a"), start_timer("t", 90))
    base.signal("s1")
    base.run_task()
    base.signal("s2")
    first, *others = make_records(base, started_events(base)[1].event_id, key=KEY)
    run = GoldenRun(record=first)
    for record in others:
        run.commit(record)
    run.start_activity("a")
    run.complete_activity("a")
    run.run_task(complete_workflow())
    record = log_pb2.LogRecord(time=to_timestamp(run.now))
    append_reset_to(
        record,
        reset_pb2.ResetTo(
            run_id="another", reset_time=record.time, reason="again", identity="operator"
        ),
    )
    run.commit(record)
    return run


def _completed() -> GoldenRun:
    run = GoldenRun()
    run.run_task(complete_workflow())
    return run


def _parent() -> GoldenRun:
    """Children that end in every way, some while a worker decides; calls of other runs."""
    run = GoldenRun()
    names = ("completes", "fails", "cancels", "times-out", "is-terminated", "exists", "runs-on")
    run.run_task(
        *(start_child(name, input=payloads("for it")) for name in names),
        start_child("nowhere", namespace="none"),
        signal_run("hears"),
        signal_run("is-closed"),
        cancel_run("cancels"),
        cancel_run("is-closed"),
    )
    *children, exists, runs_on, heard, unheard, asked, unasked = run.calls
    run.answer(exists, run_calls_pb2.RUN_CALL_RESULT_ALREADY_EXISTS)
    for call in (children[0], runs_on):
        run.answer(call, run_id=CHILD_ID)
    run.start_task()
    for call in (heard, asked):
        run.answer(call)
    for call in (unheard, unasked):
        run.answer(call, run_calls_pb2.RUN_CALL_RESULT_NOT_FOUND)
    closings = [
        close_event("COMPLETED", result=payloads("done")),
        close_event("FAILED", failure=application_failure()),
        close_event("CANCELLED", details=payloads("bye")),
        close_event("TIMED_OUT"),
        close_event("TERMINATED"),
    ]
    for call, closing in zip(children, closings, strict=True):
        run.hear_closed(number_of(call), closing)
    run.complete_task()
    run.run_task(start_child("too-late"), signal_run("later"), cancel_run("later"))
    late_child, late_signal, late_cancel = run.calls[-3:]
    run.signal("s1")
    run.run_task(start_child("never"), complete_workflow())
    run.answer(late_child, run_id="another-run")
    for call in (late_signal, late_cancel, *run.owed_calls()):
        run.answer(call)
    return run


def _child() -> GoldenRun:
    """Its parent is told."""
    run = GoldenRun(parent=PARENT)
    run.run_task(complete_workflow())
    run.answer(run.calls[-1])
    return run


def _updated() -> GoldenRun:
    """Along with a task, by a task of its own, and one without an outcome."""
    run = GoldenRun()
    run.start_task(updates=[update("u1"), update("u2", "wait")])
    run.complete_task(accept_update("u1"), complete_update("u1"), accept_update("u2"))
    run.start_speculative_task(update("u3"))
    run.signal("s1")
    run.complete_task(accept_update("u3"))
    run.run_task(complete_update("u3"))
    run.start_speculative_task(update("u4"))
    run.fail_task()
    run.start_task(updates=[update("u4")])
    run.complete_task(accept_update("u4"), complete_workflow())
    return run


LIVES: dict[str, Callable[[], GoldenRun]] = {
    "timers": _timers,
    "activities": _activities,
    "cancelled": _cancelled,
    "terminated": _terminated,
    "paused": _paused,
    "changed": _changed,
    "completed": _completed,
    "continued": _continued,
    "parent": _parent,
    "child": _child,
    "updated": _updated,
    "moved": _moved,
    "reset": _reset,
}

if __name__ == "__main__":
    runs = {name: make().rows for name, make in LIVES.items()}
    Path(sys.argv[1]).write_text(json.dumps(runs, indent=1) + "\n")
