"""Updates that a run's code has not judged: who waits for them, and having them brought to it.

They are in memory alone. They go along with the run's next workflow task; where none is pending, a
speculative one is offered, which any worker of the run may take.
"""

from collections.abc import Sequence

from aetheris.api.v1 import failure_pb2, history_pb2, worker_service_pb2, workflow_pb2
from aetheris.api.v1.workflow_service_pb2 import DescribeWorkflowResponse
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.clock import Clock
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.runs.run import AdmittedUpdate, LoadedRun
from aetheris_server.history.state.machines.update.admitting import (
    ignored_update,
    needs_speculative_task,
)
from aetheris_server.history.state.machines.update.values import find_update
from aetheris_server.history.state.machines.workflow_task.tasks import workflow_ref
from aetheris_server.history.times import to_timestamp

# Whoever wants an update asks for it every 20 s.
_FORGET_AFTER = 60.0

Rejected = list[tuple[AdmittedUpdate, failure_pb2.Failure]]
"""Updates that were not accepted, and why."""


class UpdateOffers:
    """Offers the speculative workflow tasks of one host's runs to matching."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock) -> None:
        self._dispatcher = dispatcher
        self._clock = clock

    def offer(self, run: LoadedRun) -> None:
        """Have the updates that wait brought to the run's code, if no other task will do so."""
        if not run.updates or not needs_speculative_task(run.state, run.inflight):
            return
        ref = workflow_ref(run.state, run.inflight)
        ref.scheduled_event_id = run.state.next_event_id
        ref.attempt = 1
        ref.scheduled_time.CopyFrom(to_timestamp(self._clock.now()))
        self._dispatcher.offer_behind(run.last_ticket, [ref])


def is_speculative_ref(run: LoadedRun, ref: TaskRef) -> bool:
    """Whether the reference is to the speculative task that the run's updates need now."""
    return (
        bool(run.updates)
        and ref.scheduled_event_id == run.state.next_event_id
        and ref.attempt == 1
        and needs_speculative_task(run.state, run.inflight)
    )


def forget_unwanted(run: LoadedRun, at: float) -> None:
    """Drop the updates that nobody has asked for any more, so that they keep no others out.

    Args:
        run: Whose.
        at: The time by the clock for intervals.
    """
    for update_id, update in list(run.updates.items()):
        if not update.waiter_count and update.left_at + _FORGET_AFTER <= at:
            del run.updates[update_id]


def take_judged(
    run: LoadedRun,
    sent: Sequence[history_pb2.UpdateRequest],
    rejections: Sequence[worker_service_pb2.UpdateRejection],
) -> Rejected:
    """Have the updates wait no more that a decision, already applied, has judged.

    Args:
        run: Whose.
        sent: What its task had brought.
        rejections: Those that it does not accept.

    Returns:
        What to `tell` when the decision is on disk. Those that it accepted are in the state, and
        those that the run has closed without learn of that.
    """
    rejected: Rejected = []
    if sent and run.state.is_open:
        failures = {rejection.update_id: rejection.failure for rejection in rejections}
        for request in sent:
            update = run.updates.pop(request.update_id, None)
            if update is not None and find_update(run.state, request.update_id) is None:
                rejected.append((update, failures.get(request.update_id, ignored_update())))
    return rejected


def tell(run: LoadedRun, rejected: Rejected) -> None:
    """Wake those who wait for updates that were rejected."""
    for update, failure in rejected:
        update.rejection = failure
    if rejected:
        run.notify()


def describe_admitted(run: LoadedRun, response: DescribeWorkflowResponse) -> None:
    """Show those that wait."""
    for update_id, update in run.updates.items():
        response.pending_updates.add(
            update_id=update_id,
            name=update.request.name,
            stage=workflow_pb2.UPDATE_STAGE_ADMITTED,
            stage_time=to_timestamp(update.admitted_time),
        )
