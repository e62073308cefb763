"""A run's row in `executions`: what it says of the run, and how the run is found by it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aetheris.api.v1 import common_pb2
from aetheris_server.history.aggregates.checks import check_text
from aetheris_server.history.aggregates.index import IndexEntry
from aetheris_server.history.projections.registry import PROJECTIONS
from aetheris_server.history.state.machines.properties import (
    has_changed,
    memo_of,
    search_attributes_of,
)
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.history.times import from_duration, from_timestamp
from aetheris_server.rpc.search_attributes import encode_search_attributes
from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import (
    EXECUTION_STATEMENTS,
    ExecutionNotes,
    ExecutionRow,
    ExecutionUpdate,
)
from aetheris_server.storage.executions import NewestRun, load_executions, weigh_runs
from aetheris_server.storage.row_changes import RowStatement


def check_storable(state: RunState) -> None:
    """Check what the row of a new run is to say besides its key, whoever has asked for the run.

    Raises:
        InvalidArgumentError: The store would refuse it, and with it all that is written beside it.
    """
    started = state.started
    check_text("request_id", started.request_id)
    check_text("workflow_type.name", started.workflow_type.name)
    check_text("task_queue.name", started.task_queue.name)


def to_execution_row(
    shard_id: int, state: RunState, wake_time: datetime | None, *, repeats_id: bool, owes: bool
) -> ExecutionRow:
    """The row of a run that has just been started."""
    started = state.started
    return ExecutionRow(
        shard_id=shard_id,
        namespace_id=state.key.namespace_id,
        workflow_id=state.key.workflow_id,
        run_id=state.key.run_id,
        first_execution_run_id=started.first_execution_run_id,
        start_request_id=started.request_id,
        workflow_type=started.workflow_type.name,
        task_queue=started.task_queue.name,
        status=state.status,
        start_time=state.start_time,
        execution_time=state.start_time + from_duration(started.first_workflow_task_backoff),
        history_length=state.next_event_id - 1,
        history_bytes=state.history_bytes,
        memo=_encode_memo(started.memo) if started.HasField("memo") else None,
        search_attributes=encode_search_attributes(started.search_attributes),
        parent_namespace_id=started.parent_namespace_id,
        parent_workflow_id=started.parent_workflow_execution.workflow_id,
        parent_run_id=started.parent_workflow_execution.run_id,
        wake_time=wake_time,
        owes=owes,
        repeats_id=repeats_id,
    )


def to_execution_update(
    shard_id: int, state: RunState, wake_time: datetime | None, *, owes: bool
) -> ExecutionUpdate:
    """What the row says from now on."""
    close_event = state.close_event
    return ExecutionUpdate(
        shard_id=shard_id,
        run_id=state.key.run_id,
        status=state.status,
        close_time=from_timestamp(close_event.event_time) if close_event else None,
        wake_time=wake_time if state.is_open else None,
        history_length=state.next_event_id - 1,
        history_bytes=state.history_bytes,
        owes=owes,
    )


def to_execution_notes(shard_id: int, state: RunState) -> ExecutionNotes | None:
    """What the row says of the notes that the run's code has changed; None if there are none."""
    if not has_changed(state):
        return None
    memo = memo_of(state)
    return ExecutionNotes(
        shard_id=shard_id,
        run_id=state.key.run_id,
        memo=_encode_memo(memo) if memo.fields else None,
        search_attributes=encode_search_attributes(search_attributes_of(state)),
    )


def _encode_memo(memo: common_pb2.Memo) -> bytes:
    # So that a row that is made again is the same.
    return memo.SerializeToString(deterministic=True)


def to_newest(state: RunState) -> NewestRun:
    """What the next start of the workflow id needs to know of a run."""
    close_event = state.close_event
    return NewestRun(
        run_id=state.key.run_id,
        status=state.status,
        start_request_id=state.started.request_id,
        first_execution_run_id=state.started.first_execution_run_id,
        start_time=state.start_time,
        close_time=from_timestamp(close_event.event_time) if close_event is not None else None,
    )


class RunIndex:
    """Where runs are found: an `Index`."""

    @property
    def statements(self) -> Sequence[RowStatement[Any]]:
        """Behind those of its own, those of the projections of runs."""
        return (*EXECUTION_STATEMENTS, *PROJECTIONS.statements)

    async def load(self, db: Database, ids: Sequence[tuple[int, str]]) -> list[IndexEntry]:
        return [
            IndexEntry(
                shard_id=row.shard_id,
                key=RunKey(row.namespace_id, row.workflow_id, row.run_id),
                wake_time=row.wake_time,
                is_open=row.close_time is None,
                event_count=row.history_length,
            )
            for row in await load_executions(db, ids)
        ]

    async def weigh(
        self, db: Database, ids: Sequence[tuple[int, str]]
    ) -> list[tuple[int, str, int]]:
        return await weigh_runs(db, ids)
