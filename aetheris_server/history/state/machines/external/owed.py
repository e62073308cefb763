"""What is the same for all that a run asks of others: it is owed until something has come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import common_pb2, history_pb2
from aetheris.server.v1 import log_pb2, run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, AggregateName
from aetheris_server.history.aggregates.obligation import make_call
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.command_checks import CommandRefusedError, check_id
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machine import Obligations
from aetheris_server.history.state.run import KIND, RunState
from aetheris_server.storage.uuids import is_uuid

_FIXED_BYTES = 512
"""What one takes in memory beside its event."""


class Owed(dict[int, history_pb2.HistoryEvent]):
    """The initiated events of what has not come to anything yet, by their ids."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One kind of thing that a run asks of others, by what differs.

    Attributes:
        name: The machine's.
        part: What the state keeps; a type of its own.
        initiated: The event that asks.
        done: The event that says that it was done.
        failed: The event that says that it was not.
        to_call: From the initiated event to what the other run is called with.
        causes: Why it failed, by what came of the call.
        refused: The same for any other.
    """

    name: str
    part: type[Owed]
    initiated: "history_pb2.EventType.ValueType"
    done: "history_pb2.EventType.ValueType"
    failed: "history_pb2.EventType.ValueType"
    to_call: Callable[[history_pb2.HistoryEvent], run_calls_pb2.RunCall]
    causes: Mapping[int, int]
    refused: int

    # Commands.

    def initiate(self, commands: CommandPass, attributes: Any) -> None:
        """Append the event that asks, and where there is no such namespace the one that it failed.

        Args:
            commands: Of the decision.
            attributes: Of the initiated event, checked; its namespace is as the command has it.
        """
        attributes.namespace_id = commands.namespace_id(attributes.namespace)
        attributes.namespace = attributes.namespace or commands.request.namespace
        attributes.workflow_task_completed_event_id = commands.completed_id
        event_id = commands.draft.add(self.initiated, attributes)
        if not attributes.namespace_id:
            cause = self.causes[NAMESPACE_NOT_FOUND]
            commands.at_end.append(
                lambda: self._add_failed(commands.draft, event_id, attributes, cause)
            )

    # The fold.

    def fold_initiated(self, state: RunState, event: history_pb2.HistoryEvent) -> None:
        """It is owed. Never buffered."""
        if _attributes_of(event).namespace_id:
            state.parts.make(self.part)[event.event_id] = event
            state.held_bytes += _FIXED_BYTES + event.ByteSize()

    def fold_ended(self, state: RunState, event: history_pb2.HistoryEvent) -> None:
        """Something has come of it."""
        self._drop(state, _attributes_of(event).initiated_event_id)

    def fold_noted(
        self, state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp
    ) -> None:
        """Something has come of it, after the run had closed."""
        stored = run_calls_pb2.ExternalCallFact.FromString(fact.machine_fact.data)
        self._drop(state, stored.initiated_event_id)

    def _drop(self, state: RunState, event_id: int) -> None:
        owed = self.owed_of(state)
        event = owed.pop(event_id, None)
        if event is not None:
            state.held_bytes -= _FIXED_BYTES + event.ByteSize()
            if not owed:
                state.parts.drop(self.part)

    def owed_of(self, state: RunState) -> Owed:
        """What a run owes; where that is nothing, a value that is nobody's."""
        return state.parts.find(self.part) or Owed()

    # Calls.

    def owes(self, state: RunState) -> bool:
        """Whether there is any, open or closed."""
        return self.part in state.parts

    def obligations(self, state: RunState, _inflight: Inflight, _now: datetime) -> Obligations:
        """All of them."""
        return self.closed_obligations(state)

    def closed_obligations(self, state: RunState) -> Obligations:
        """All of them: a run owes the same when it has closed."""
        return [self._to_call(state, event) for event in self.owed_of(state).values()]

    def of_initiated(
        self, state: RunState, _inflight: Inflight, event: history_pb2.HistoryEvent, _now: datetime
    ) -> Obligations:
        """The one that has just been initiated."""
        is_owed = event.event_id in self.owed_of(state)
        return (self._to_call(state, event),) if is_owed else ()

    def _to_call(self, state: RunState, event: history_pb2.HistoryEvent) -> AggregateCall:
        attributes = _attributes_of(event)
        target = AggregateName(
            kind=KIND,
            namespace_id=attributes.namespace_id,
            name=attributes.workflow_execution.workflow_id,
            id=attributes.workflow_execution.run_id,
        )
        payload = self.to_call(event).SerializeToString()
        return make_call(state.key, event.event_id, target, payload)

    def answered(
        self, draft: Draft, state: RunState, number: int, answer: run_calls_pb2.RunCallAnswer
    ) -> None:
        """Something has come of one."""
        event = self.owed_of(state).get(number)
        if event is None:
            return
        if not state.is_open:
            fact = run_calls_pb2.ExternalCallFact(initiated_event_id=number)
            draft.add_machine_fact(self.name, fact.SerializeToString())
            return
        if answer.result == run_calls_pb2.RUN_CALL_RESULT_DONE:
            self._add_done(draft, number, _attributes_of(event))
        else:
            cause = self.causes.get(answer.result, self.refused)
            self._add_failed(draft, number, _attributes_of(event), cause)
        draft.ensure_workflow_task()

    def _add_done(self, draft: Draft, event_id: int, initiated: Any) -> None:
        done = _new_attributes(self.done)
        done.initiated_event_id = event_id
        done.namespace = initiated.namespace
        done.workflow_execution.CopyFrom(initiated.workflow_execution)
        draft.add_or_buffer(self.done, done)

    def _add_failed(self, draft: Draft, event_id: int, initiated: Any, cause: int) -> None:
        failed = _new_attributes(self.failed)
        failed.cause = cause
        failed.workflow_task_completed_event_id = initiated.workflow_task_completed_event_id
        failed.namespace = initiated.namespace
        failed.workflow_execution.CopyFrom(initiated.workflow_execution)
        failed.initiated_event_id = event_id
        draft.add_or_buffer(self.failed, failed)

    # Snapshots.

    def save(self, state: RunState) -> bytes | None:
        """All of them."""
        if not self.owes(state):
            return None
        part = run_calls_pb2.ExternalCallsPart()
        for event_id, event in self.owed_of(state).items():
            part.calls.add(initiated_event_id=event_id, initiated=event)
        return part.SerializeToString(deterministic=True)

    def load(self, state: RunState, data: bytes) -> None:
        """The same, back."""
        for stored in run_calls_pb2.ExternalCallsPart.FromString(data).calls:
            self.fold_initiated(state, stored.initiated)


NAMESPACE_NOT_FOUND = -1
"""In `causes`: the call was never made, for there is no such namespace."""


def _attributes_of(event: history_pb2.HistoryEvent) -> Any:
    return getattr(event, ATTRIBUTES[event.event_type])


def _new_attributes(event_type: "history_pb2.EventType.ValueType") -> Any:
    return getattr(history_pb2.HistoryEvent(), ATTRIBUTES[event_type])


def check_target(
    namespace: str,
    execution: common_pb2.WorkflowExecution,
    bad: "history_pb2.WorkflowTaskFailedCause.ValueType",
    limits: RunLimits,
) -> None:
    """Refuse a command that names no run that there could be.

    Raises:
        CommandRefusedError: With the cause.
    """
    if namespace:
        check_id(namespace, "namespace", bad, limits)
    check_id(execution.workflow_id, "workflow_execution.workflow_id", bad, limits)
    if execution.run_id and not is_uuid(execution.run_id):
        raise CommandRefusedError(
            bad, f"workflow_execution.run_id is {execution.run_id!r}, expected a run id (a UUID)"
        )
