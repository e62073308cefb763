"""A projection that only tests know: a row for each activity, with how its attempts went."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.projections.projection import AppliedRecord, Projection
from aetheris_server.history.projections.registry import PROJECTIONS
from aetheris_server.storage.arrays import int4_array, int8_array, text_array, uuid_array
from aetheris_server.storage.index_table import IndexTable
from aetheris_server.storage.row_changes import RowChanges, RowStatement

CREATE = b"""
CREATE TABLE attempts (
    shard_id integer NOT NULL,
    run_id uuid NOT NULL,
    event_id bigint NOT NULL,
    activity_id text NOT NULL,
    failed_count bigint NOT NULL,
    last_failure text,
    PRIMARY KEY (shard_id, run_id, event_id)
)
"""


@dataclass(frozen=True, slots=True)
class _Attempts:
    shard_id: int
    run_id: str
    event_id: int
    activity_id: str
    failed_count: int = 0
    last_failure: str | None = None


def _columns(rows: Sequence[_Attempts]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        int8_array([row.event_id for row in rows]),
        text_array([row.activity_id for row in rows]),
        int8_array([row.failed_count for row in rows]),
        text_array([row.last_failure for row in rows]),
    ]


INSERT = RowStatement(
    """
INSERT INTO attempts (shard_id, run_id, event_id, activity_id, failed_count, last_failure)
SELECT * FROM unnest($1::integer[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::text[])
""",
    bind=_columns,
)

UPDATE = RowStatement(
    """
UPDATE attempts a SET failed_count = u.failed_count, last_failure = u.last_failure
FROM unnest($1::integer[], $2::uuid[], $3::bigint[], $4::text[], $5::bigint[], $6::text[])
    AS u (shard_id, run_id, event_id, activity_id, failed_count, last_failure)
WHERE a.shard_id = u.shard_id AND a.run_id = u.run_id AND a.event_id = u.event_id
""",
    bind=_columns,
    key=lambda row: f"{row.run_id} {row.event_id:20}",
)


def _scheduled(applied: AppliedRecord, event: history_pb2.HistoryEvent, rows: RowChanges) -> None:
    activity_id = event.activity_task_scheduled_event_attributes.activity_id
    run_id = applied.state.key.run_id
    rows.add(INSERT, _Attempts(applied.shard_id, run_id, event.event_id, activity_id))


def _failed(applied: AppliedRecord, fact: log_pb2.Fact, rows: RowChanges) -> None:
    failed = fact.activity_attempt_failed
    activity = applied.state.activities[failed.scheduled_event_id]
    rows.add(
        UPDATE,
        _Attempts(
            applied.shard_id,
            applied.state.key.run_id,
            failed.scheduled_event_id,
            activity.scheduled.activity_id,
            activity.attempt - 1,
            failed.failure.message,
        ),
    )


ATTEMPTS = Projection(
    name="attempts",
    table=IndexTable(name="attempts", statements=(INSERT, UPDATE)),
    events={history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: _scheduled},
    facts={"activity_attempt_failed": _failed},
)


@contextmanager
def attempts_projected() -> Generator[None]:
    """Servers that begin in this process meanwhile write it too."""
    before = PROJECTIONS.all
    PROJECTIONS.use((*before, ATTEMPTS))
    try:
        yield
    finally:
        PROJECTIONS.use(before)
