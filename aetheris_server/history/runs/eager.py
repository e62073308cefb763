"""Tasks that a worker takes along with an answer, past matching, and taking back what it did not.

Such a task is marked as started before the answer's record is on disk, so it must be given back
whenever the answer does not leave: else nobody has it until it times out. Where the response is
lost further on, the worker gives its answer again, and gets again what it was to take along.
"""

from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from aetheris.api.v1 import worker_service_pb2
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import RunUnreadableError, UnavailableError
from aetheris_server.history.aggregates.transition import Transition
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.task_start import (
    mark_activity_started,
    mark_workflow_task_started,
    to_activity_task,
    to_workflow_task,
)
from aetheris_server.history.state.inflight import TaskTaker
from aetheris_server.history.state.machines.activity.starting import decide_not_delivered
from aetheris_server.history.state.machines.activity.tasks import activity_ref
from aetheris_server.history.state.machines.activity.values import StartedActivity, is_owed
from aetheris_server.history.state.machines.workflow_task.ending import decide_flush
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.state.obligations import obligations
from aetheris_server.history.state.run_options import pinned_build_id
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)


@dataclass(slots=True)
class Given:
    """What one answer takes along of one run."""

    workflow_task: StartedWorkflowTask | None = None
    activities: list[StartedActivity] = field(default_factory=list[StartedActivity])
    activity_tasks: list[worker_service_pb2.ActivityTask] = field(
        default_factory=list[worker_service_pb2.ActivityTask]
    )

    def add_activity(self, started: StartedActivity, task: worker_service_pb2.ActivityTask) -> None:
        """One more activity, and the message for it."""
        self.activities.append(started)
        self.activity_tasks.append(task)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take along."""
        return self.workflow_task is None and not self.activities


@contextmanager
def given_back_on_failure(
    runs: Runs, run: LoadedRun, given: Given, *, offers_on_fault: bool = True
) -> Generator[None]:
    """Give all of it back if the block fails or is cancelled, and offer it.

    Without `offers_on_fault` it is not offered if the block fails. That is for matching, which
    holds a task until it is told what became of it, and tries again in its own time: a fault that
    always returns would else be met at once, for ever.
    """
    try:
        yield
    except Exception:
        give_back(runs, run, given, offers=offers_on_fault)
        raise
    except BaseException:
        give_back(runs, run, given)
        raise


def give_back(runs: Runs, run: LoadedRun, given: Given, *, offers: bool = True) -> None:
    """Release tasks where a failure to do so must not hide what came before."""
    try:
        for started in given.activities:
            event_id = started.scheduled_event_id
            if run.inflight.activities.get(event_id) is started:
                release_activity(runs, run, event_id, started.started_time, offers=offers)
        if given.workflow_task is not None:
            release_workflow_task(runs, run, given.workflow_task.start_id, offers=offers)
    except UnavailableError as error:
        _log.warning("tasks are out until they time out", error=str(error))


def take_again(runs: Runs, run: LoadedRun, taker: TaskTaker) -> Given:
    """What a worker was to take along with an answer that it now gives again, as far as it is still
    out: the response must have been lost, or the worker would not ask. Never awaits.

    Nothing of it where another worker gave the answer, or the tasks have timed out or were given
    back.
    Activities start anew, so that whoever still holds the lost start cannot take them back. None of
    them is at-most-once: such a one never goes along with an answer.
    """
    given = Given()
    started_task = run.inflight.workflow_task
    if started_task is not None and started_task.taker.is_repeated_by(taker):
        given.workflow_task = started_task
    started_activities = list(run.inflight.activities.values())
    for lost in (s for s in started_activities if s.taker.is_repeated_by(taker)):
        activity = run.state.activities[lost.scheduled_event_id]
        started = mark_activity_started(runs, run, activity, taker)
        given.add_activity(started, to_activity_task(runs, run, activity, started))
    return given


def may_take(runs: Runs, run: LoadedRun, worker_version: str) -> bool:
    """Whether a run's workflow tasks may go to workers of a build; empty for those of none."""
    state = run.state
    required = pinned_build_id(state) or runs.default_builds.find(
        state.key.namespace_id, state.task_queue
    )
    return not required or required == worker_version


def take_workflow_task(
    runs: Runs, run: LoadedRun, transition: Transition, taker: TaskTaker
) -> StartedWorkflowTask | None:
    """Start the workflow task that a transition has brought, before it is offered to anybody else.

    None where the transition has brought none that is due. Never awaits.
    """
    task = run.state.workflow_task
    if task is None or task.is_transient:
        return None
    if not withdraw_tasks(transition, {task.scheduled_event_id}):
        return None
    return mark_workflow_task_started(runs, run, taker)


def withdraw_tasks(transition: Transition, scheduled_event_ids: Collection[int]) -> bool:
    """Take tasks from those that are to be offered; whether there were any of them."""
    owed = transition.obligations
    others = [
        each
        for each in owed
        if not (isinstance(each, TaskRef) and each.scheduled_event_id in scheduled_event_ids)
    ]
    is_changed = len(others) < len(owed)
    owed[:] = others
    return is_changed


async def build_workflow_task(
    runs: Runs, run: LoadedRun, started: StartedWorkflowTask
) -> worker_service_pb2.WorkflowTask | None:
    """The message for a workflow task that was taken; None, and given back, if it cannot be built.

    What it goes along with is on disk already, and is answered all the same.
    """
    try:
        return await to_workflow_task(runs, run, started)
    except (UnavailableError, RunUnreadableError) as error:
        _log.warning("a workflow task is offered instead of taken along", error=str(error))
    except Exception:  # noqa: BLE001 - logged whole
        _log.exception("a workflow task cannot be taken along", run_id=run.key.run_id)
    give_back(runs, run, Given(started))
    return None


def release_workflow_task(
    runs: Runs, run: LoadedRun, start_id: str, *, offers: bool = True
) -> None:
    """Take a started workflow task back, and offer it again unless others do.

    Raises:
        UnavailableError: The disk is too far behind; the task stays started.
    """
    started, sticky = run.inflight.workflow_task, run.inflight.sticky
    if run.is_dropped or started is None or started.start_id != start_id:
        return
    run.inflight.workflow_task = None
    run.inflight.sticky = None
    record = decide_flush(run.state, run.inflight, runs.time_of(run))
    if record is not None:
        try:
            runs.commit(run, record)
        except UnavailableError:
            run.inflight.workflow_task, run.inflight.sticky = started, sticky
            raise
    if not offers:
        return
    if started.is_speculative:
        runs.updates.offer(run)
        return
    scheduled_event_id = started.scheduled_event_id
    owed = obligations(run.state, run.inflight, runs.time_of(run))
    runs.dispatcher.offer_behind(
        run.last_ticket,
        (
            each
            for each in owed
            if isinstance(each, TaskRef) and each.scheduled_event_id == scheduled_event_id
        ),
    )


def release_activity(
    runs: Runs,
    run: LoadedRun,
    scheduled_event_id: int,
    started_time: datetime,
    *,
    offers: bool = True,
) -> None:
    """Take a started activity back, whose worker certainly did not get it, and offer it again
    unless others do.

    Only the start of that time: one and the same loss may be told of twice, and the attempt have
    been given to another worker in between.

    Raises:
        UnavailableError: The disk is too far behind; an at-most-once activity stays started.
    """
    activity = run.state.activities.get(scheduled_event_id)
    started = run.inflight.activities.get(scheduled_event_id)
    if (
        run.is_dropped
        or activity is None
        or started is None
        or started.started_time != started_time
    ):
        return
    if activity.is_at_most_once:
        now = runs.time_of(run)
        record = decide_not_delivered(run.state, run.inflight, activity, now)
        transition = runs.commit(run, record)
        if not offers:
            withdraw_tasks(transition, {scheduled_event_id})
        return
    del run.inflight.activities[scheduled_event_id]
    runs.wakeups.note_given_back(run)
    if offers and is_owed(run.state, activity, run.inflight, runs.time_of(run)):
        runs.dispatcher.offer_behind(run.last_ticket, [activity_ref(run.state, activity)])
