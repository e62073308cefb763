"""The run as a kind of aggregate."""

from aetheris.server.v1 import log_pb2
from aetheris_server.errors import BrokenLogError, WorkflowNotFoundError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.kind import Kind
from aetheris_server.history.runs.index import RunIndex
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.run import KIND, RunKey
from aetheris_server.history.state.snapshot import from_snapshot


def _begin(key: AggregateKey, shard_id: int, record: log_pb2.LogRecord) -> Aggregate:
    events = record.events
    if not events or not events[0].HasField("workflow_execution_started_event_attributes"):
        raise BrokenLogError(key.id, 1, "the event that starts the run", f"{len(events)} events")
    return LoadedRun(shard_id, new_state(_run_key(key), record))


def _restore(key: AggregateKey, shard_id: int, seq: int, hash_: bytes, data: bytes) -> Aggregate:
    return LoadedRun(shard_id, from_snapshot(_run_key(key), seq, hash_, data))


def _run_key(key: AggregateKey) -> RunKey:
    return key if isinstance(key, RunKey) else RunKey(key.namespace_id, key.name, key.id)


def _not_found(key: AggregateKey) -> WorkflowNotFoundError:
    return WorkflowNotFoundError(key.name, key.id)


RUN = Kind(
    name=KIND,
    begin=_begin,
    restore=_restore,
    index=RunIndex(),
    make_key=RunKey,
    not_found=_not_found,
)
"""Runs."""
