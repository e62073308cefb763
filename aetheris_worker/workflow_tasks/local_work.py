"""Workflow tasks that wait for local activities.

    decision ──► held ──one ended, or time──► sent, with the markers, and a new task asked for
                  ▲                                              │
                  └───────────────── next decision ◄─────────────┘

Those that end together go with one decision: the server writes one record for it, and gives the
next task with its answer. One that ends meanwhile waits for that. No decision is held longer than a
share of its task's timeout: it is sent as a sign of life, and the activities go on. While it is
held, the code learns of nothing else; so one that has commands or answers, or whose code waits for
other things too, is sent soon, then less and less often.

The run's lane is the task's all the while. If the server does not take a decision, or gives no next
task along, the activities are dropped: whoever gets the task begins them again.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aetheris.api.v1.worker_service_pb2 import TaskAnswer, WorkflowTask
from aetheris_worker.activities.attempt import CancelReason
from aetheris_worker.activities.info import seconds_of
from aetheris_worker.activities.local import LocalActivityPool, LocalRun
from aetheris_worker.runtime.machines.local_activity import LocalActivities, LocalActivityOutcome

# Of a workflow task's timeout: leaves time for the call itself.
HEARTBEAT_SHARE: Final = 0.8
DEFAULT_TASK_TIMEOUT: Final = 10.0
# What else there is waits that long, in seconds; twice as long with every sign of life in a row.
PATIENCE: Final = 0.2
# Of markers in one decision; the first goes in any case.
MAX_MARKER_BYTES: Final = 4 * 1024 * 1024


class _Held:
    """A run whose task is here.

    Attributes:
        send: Of the decision that is held; None while none is.
        beats: Decisions in a row that were sent without an outcome.
    """

    def __init__(self, answer: TaskAnswer, activities: LocalActivities) -> None:
        self.answer = answer
        self.activities = activities
        self.send: Callable[[], None] | None = None
        self.running: dict[int, LocalRun] = {}
        self.ended: dict[int, LocalActivityOutcome] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.is_due = False
        self.beats = 0


class LocalWork:
    """The runs of a worker that have local activities at work, by run id."""

    def __init__(self, pool: LocalActivityPool) -> None:
        self._pool = pool
        self._held: dict[str, _Held] = {}

    def hold(
        self,
        task: WorkflowTask,
        activities: LocalActivities,
        answer: TaskAnswer,
        received_at: float,
        send: Callable[[], None],
        *,
        waits_for_more: bool,
    ) -> bool:
        """Keep a decision until there is something to say, if local activities are open; then call
        `send`, once.

        Args:
            task: Whose decision it is.
            activities: Those of its run.
            answer: The decision; markers are added to it.
            received_at: When the task came, as `time.monotonic` has it.
            send: Sends the answer.
            waits_for_more: The code waits for other things as well.
        """
        run_id = task.workflow_execution.run_id
        requests = activities.requests()
        if not requests:
            self.drop(run_id)
            return False
        held = self._held.get(run_id)
        if held is None:
            held = self._held[run_id] = _Held(answer, activities)
        held.answer, held.activities, held.send = answer, activities, send
        wanted = {request.number: request for request in requests}
        for number in [n for n in held.running if n not in wanted]:
            _let_go(held.running.pop(number), activities)
        held.ended = {n: outcome for n, outcome in held.ended.items() if n in wanted}
        for number, request in wanted.items():
            if number not in held.running and number not in held.ended:
                held.running[number] = self._pool.start(
                    task, request, self._on_ended_of(run_id, held, number)
                )
        for number in activities.cancel_requested():
            if number in held.running:
                held.running[number].request_cancel()
        if held.ended or not held.running:
            self._make_due(run_id, held)
        else:
            seconds = _patience(task, answer, held.beats, waits_for_more)
            seconds -= time.monotonic() - received_at
            loop = asyncio.get_running_loop()
            held.timer = loop.call_later(max(0.0, seconds), self._send, run_id, held)
        return True

    def drop(self, run_id: str) -> None:
        """The run's task is not here any more."""
        held = self._held.pop(run_id, None)
        if held is None:
            return
        _stop_timer(held)
        for run in held.running.values():
            _let_go(run, held.activities)

    def stop(self) -> None:
        """The worker shuts down: decisions are sent when all that is at work has ended."""
        self._pool.stop()

    def cancel_all(self) -> None:
        """What is still at work should stop; decisions are sent without it."""
        self._pool.stop()
        for held in list(self._held.values()):
            for run in list(held.running.values()):
                run.lose()

    def abandoned(self) -> str:
        """The local activities that are at work, for people."""
        return self._pool.abandoned()

    def _on_ended_of(
        self, run_id: str, held: _Held, number: int
    ) -> Callable[[LocalActivityOutcome | None], None]:
        def on_ended(outcome: LocalActivityOutcome | None) -> None:
            held.running.pop(number, None)
            if outcome is not None:
                held.ended[number] = outcome
            if not (self._pool.is_stopping and held.running):
                self._make_due(run_id, held)

        return on_ended

    def _make_due(self, run_id: str, held: _Held) -> None:
        """Send what is held, with all that ends in this turn of the loop."""
        if held.send is not None and not held.is_due:
            held.is_due = True
            asyncio.get_running_loop().call_soon(self._send, run_id, held)

    def _send(self, run_id: str, held: _Held) -> None:
        if held.send is None or self._held.get(run_id) is not held:
            return
        _stop_timer(held)
        held.is_due = False
        completed = held.answer.workflow_task_completed
        completed.force_create_new_workflow_task = True
        # Also where the worker caches no runs: what is at work must not begin again.
        completed.return_new_workflow_task = True
        if self._pool.is_stopping:
            completed.ClearField("return_new_workflow_task")
            completed.ClearField("sticky_attributes")
        held.beats = 0 if held.ended else held.beats + 1
        size = 0
        for number, outcome in list(held.ended.items()):
            command = outcome.to_command()
            size += command.ByteSize()
            if size > MAX_MARKER_BYTES and number != next(iter(held.ended)):
                break
            completed.commands.append(command)
            del held.ended[number]
        send, held.send = held.send, None
        send()


def _let_go(run: LocalRun, activities: LocalActivities) -> None:
    """Nobody waits for it any more."""
    number = run.request.number
    if number in activities.abandoned:
        run.abandon()
    else:
        # What is still open has lost its run, or its task.
        is_open = number in activities.open
        run.drop(CancelReason.GONE if is_open else CancelReason.REQUESTED)


def _patience(task: WorkflowTask, answer: TaskAnswer, beats: int, waits_for_more: bool) -> float:
    """How long a decision may be held, in seconds since its task came."""
    limit = (seconds_of(task.start_to_close_timeout) or DEFAULT_TASK_TIMEOUT) * HEARTBEAT_SHARE
    completed = answer.workflow_task_completed
    has_more = completed.commands or completed.query_results or completed.update_rejections
    is_urgent = waits_for_more or bool(has_more)
    return min(limit, PATIENCE * 2.0 ** min(beats, 10)) if is_urgent else limit


def _stop_timer(held: _Held) -> None:
    if held.timer is not None:
        held.timer.cancel()
        held.timer = None
