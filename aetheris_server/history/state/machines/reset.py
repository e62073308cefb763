"""The reset: where a run was taken from, and what it was reset to.

    none ──made of another──► taken from it ──►┐
      └────────────────────────────────────────┴── reset, again and again ──► reset to the last one

Both are facts: what the code sees is the end of the workflow task that is decided anew. A run that
was reset may have been closed long before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import workflow_service_pb2
from aetheris.server.v1 import log_pb2, reset_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnFact, unknown_record
from aetheris_server.history.state.machines.activity import fold, timeouts
from aetheris_server.history.state.run import RunState

NAME = "reset"


@dataclass(slots=True)
class ResetState:
    """What is known of it."""

    taken_from: reset_pb2.TakenFrom | None = None
    reset_to: reset_pb2.ResetTo | None = None

    @property
    def byte_count(self) -> int:
        """What it takes, about."""
        parts = (self.taken_from, self.reset_to)
        return sum(128 + part.ByteSize() for part in parts if part is not None)


def append_taken_from(draft: Draft, taken_from: reset_pb2.TakenFrom) -> None:
    """Note, in a new run, where its events so far are from."""
    _append(draft.record, reset_pb2.ResetFact(taken_from=taken_from))


def append_reset_to(record: log_pb2.LogRecord, reset_to: reset_pb2.ResetTo) -> None:
    """Note, in a record of the base, what it was reset to."""
    _append(record, reset_pb2.ResetFact(reset_to=reset_to))


def _append(record: log_pb2.LogRecord, fact: reset_pb2.ResetFact) -> None:
    record.facts.add(machine_fact=log_pb2.MachineFact(machine=NAME, data=fact.SerializeToString()))


def find_reset_to(fact: log_pb2.Fact) -> str:
    """The run that a base was reset to, by a fact of its log; empty for any other fact."""
    if fact.machine_fact.machine != NAME:
        return ""
    return reset_pb2.ResetFact.FromString(fact.machine_fact.data).reset_to.run_id


# The fold.


def _noted(state: RunState, fact: log_pb2.Fact, time: timestamp_pb2.Timestamp) -> None:
    noted = reset_pb2.ResetFact.FromString(fact.machine_fact.data)
    known = state.parts.make(ResetState)
    state.held_bytes -= known.byte_count
    match noted.WhichOneof("fact"):
        case "taken_from":
            known.taken_from = noted.taken_from
            fold.schedule_anew(state, time)
        case "reset_to":
            known.reset_to = noted.reset_to
        case None:
            raise unknown_record(state, "a fact of the reset")
    state.held_bytes += known.byte_count


def _new_deadlines(state: RunState, _fact: log_pb2.Fact) -> Iterator[datetime]:
    return timeouts.of_all(state)


# Snapshots, and what users see.


def _save(state: RunState) -> bytes | None:
    known = state.parts.find(ResetState)
    if known is None:
        return None
    part = reset_pb2.ResetPart(taken_from=known.taken_from, reset_to=known.reset_to)
    return part.SerializeToString()


def _load(state: RunState, data: bytes) -> None:
    part = reset_pb2.ResetPart.FromString(data)
    known = state.parts.make(ResetState)
    known.taken_from = part.taken_from if part.HasField("taken_from") else None
    known.reset_to = part.reset_to if part.HasField("reset_to") else None
    state.held_bytes += known.byte_count


def _describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    known = state.parts.find(ResetState)
    if known is None:
        return
    info = response.reset_info
    if known.taken_from is not None:
        info.base_workflow_id = known.taken_from.workflow_id
        info.base_run_id = known.taken_from.run_id
        info.base_event_id = known.taken_from.started_event_id
    if known.reset_to is not None:
        info.reset_run_id = known.reset_to.run_id
        info.reset_time.CopyFrom(known.reset_to.reset_time)
        info.reset_reason = known.reset_to.reason
        info.reset_identity = known.reset_to.identity


MACHINE = Machine(
    name=NAME,
    own_fact=OnFact(_noted, deadlines=_new_deadlines),
    save_part=_save,
    load_part=_load,
    describe=_describe,
)
