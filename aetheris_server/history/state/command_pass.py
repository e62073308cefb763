"""One pass over the commands of a decision: what each command's handler sees and may do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from aetheris.api.v1 import worker_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.command_checks import CommandRefusedError
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.parts import Parts
from aetheris_server.history.state.run import RunState


@dataclass(slots=True)
class Decision:
    """What a completed workflow task comes to.

    Attributes:
        refused: Why the commands were refused; then `record` is that of the failure.
        eager_event_ids: Scheduled events of the activities that the worker would take along: those
            that asked for it and are in the run's own task queue.
        is_overdue: It was nothing but a sign of life, and there have been enough of them: the
            workflow task has timed out.
        heartbeat_since: See `Inflight`.
        cancelled_event_ids: Scheduled events of the running activities that are asked to cancel.
    """

    record: log_pb2.LogRecord
    refused: CommandRefusedError | None = None
    is_overdue: bool = False
    heartbeat_since: datetime | None = None
    eager_event_ids: list[int] = field(default_factory=list[int])
    cancelled_event_ids: list[int] = field(default_factory=list[int])


class CommandPass:
    """The commands of one decision, in order.

    A handler checks its command against the state and what earlier commands have changed, and
    appends events to the draft, or raises `CommandRefusedError`. The state itself changes only when
    the record is applied.

    Attributes:
        state: The run's, as it was before the decision.
        inflight: What workers have of the run.
        request: The worker's.
        limits: What the run is held to.
        draft: Gathers the record.
        decision: Of the draft's record.
        completed_id: The event that completes the workflow task: what the commands' events name.
        namespaces: The ids of the namespaces that commands name, as far as there are any.
        parts: What the machines' earlier commands have changed for later ones.
        withdrawn: Indexes of buffered events that are not to be shown.
        at_end: Called, in order, behind all commands of a decision that does not close the run.
            What they append is shown to the code in a workflow task.
    """

    __slots__ = (
        "at_end",
        "completed_id",
        "decision",
        "draft",
        "inflight",
        "limits",
        "namespaces",
        "parts",
        "request",
        "state",
        "withdrawn",
    )

    def __init__(
        self,
        state: RunState,
        inflight: Inflight,
        request: worker_service_pb2.RespondWorkflowTaskCompletedRequest,
        draft: Draft,
        limits: RunLimits,
        completed_id: int,
        namespaces: Mapping[str, str],
    ) -> None:
        self.namespaces = namespaces
        self.state = state
        self.inflight = inflight
        self.request = request
        self.limits = limits
        self.draft = draft
        self.decision = Decision(draft.record)
        self.completed_id = completed_id
        self.parts = Parts()
        self.withdrawn: set[int] = set()
        self.at_end: list[Callable[[], None]] = []

    def namespace_id(self, name: str) -> str:
        """The id of the namespace that a command names, or of the run's own where it names none;
        empty where there is no such namespace.
        """
        if name in ("", self.request.namespace):
            return self.state.key.namespace_id
        return self.namespaces.get(name, "")

    @property
    def has_unseen_events(self) -> bool:
        """Whether events wait that the run's code has not seen."""
        return any(
            event.event_type not in Draft.not_for_code
            for index, event in enumerate(self.state.buffered_events)
            if index not in self.withdrawn
        )

    def flush(self) -> bool:
        """Append what is buffered and not withdrawn; whether the code must see any of that."""
        return self.draft.flush(self.withdrawn)
