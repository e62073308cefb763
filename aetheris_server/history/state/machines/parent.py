"""The parent of a run that was started as a child: it is told how the run's chain ended.

    none ──the run closes, and none goes on──► owed ──told──► none

Owed by the run that ends the chain, from its last event on; a fact says that the parent knows.
Where the parent's close policy has closed the run, the fact is in the closing record.
"""

from dataclasses import dataclass

from google.protobuf import timestamp_pb2

from aetheris.server.v1 import log_pb2, run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateName
from aetheris_server.history.aggregates.obligation import make_call
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.machine import Machine, Obligations, OnFact
from aetheris_server.history.state.machines.lifecycle.successor import find_next_run_id
from aetheris_server.history.state.run import KIND, RunState

NAME = "parent"


@dataclass(frozen=True, slots=True)
class _Told:
    """The parent knows."""


def note_told(record: log_pb2.LogRecord) -> None:
    """Say in a record that the parent need not be told any more how the run ends."""
    fact = record.facts.add().machine_fact
    fact.machine = NAME
    fact.data = run_calls_pb2.ParentFact().SerializeToString()


def _owes(state: RunState) -> bool:
    event = state.close_event
    return (
        state.started.HasField("parent_workflow_execution")
        and _Told not in state.parts
        and event is not None
        and not find_next_run_id(event)
    )


def _obligations(state: RunState) -> Obligations:
    event = state.close_event
    if event is None or not _owes(state):
        return ()
    started = state.started
    closed = run_calls_pb2.ChildClosedCall(
        initiated_event_id=started.parent_initiated_event_id,
        first_execution_run_id=started.first_execution_run_id,
        workflow_type=started.workflow_type,
        close_event=event,
    )
    target = AggregateName(
        kind=KIND,
        namespace_id=started.parent_namespace_id,
        name=started.parent_workflow_execution.workflow_id,
        id=started.parent_workflow_execution.run_id,
    )
    payload = run_calls_pb2.RunCall(child_closed=closed).SerializeToString()
    return (make_call(state.key, event.event_id, target, payload),)


def _answered(
    draft: Draft, state: RunState, _number: int, _answer: run_calls_pb2.RunCallAnswer
) -> None:
    """The parent knows, or is not there any more."""
    if _owes(state):
        note_told(draft.record)


def _noted(state: RunState, _fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp) -> None:
    state.parts.make(_Told)


def _save(state: RunState) -> bytes | None:
    return run_calls_pb2.ParentFact().SerializeToString() if _Told in state.parts else None


def _load(state: RunState, _data: bytes) -> None:
    state.parts.make(_Told)


MACHINE = Machine(
    name=NAME,
    own_fact=OnFact(_noted),
    closed_owes=_owes,
    closed_obligations=_obligations,
    answered={"child_closed": _answered},
    save_part=_save,
    load_part=_load,
)
