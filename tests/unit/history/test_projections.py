"""Who of the projections is told of a record, and which of them there are."""

import pytest

from aetheris.api.v1 import history_pb2
from aetheris_server.history.projections.errors import UnknownProjectionError
from aetheris_server.history.projections.registry import PROJECTIONS, Projections
from aetheris_server.storage.row_changes import RowChanges
from tests.support.attempts_table import ATTEMPTS, INSERT, UPDATE
from tests.support.runs import RunDriver, schedule_activity


def _project(run: RunDriver) -> RowChanges:
    """The rows of the newest record."""
    rows = RowChanges()
    Projections([ATTEMPTS]).project(7, run.state, run.records[-1], rows)
    return rows


def test_record_is_projected_by_its_events_and_its_facts() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"))
    (inserted,) = _project(run).of(INSERT)
    assert (inserted.shard_id, inserted.activity_id, inserted.failed_count) == (7, "a", 0)
    run.start_activity("a")
    run.fail_activity("a")
    (updated,) = _project(run).of(UPDATE)
    assert (updated.event_id, updated.failed_count) == (inserted.event_id, 1)


def test_record_that_concerns_no_projection_brings_no_row() -> None:
    run = RunDriver()
    run.signal("s")
    assert len(_project(run)) == 0


def test_every_projection_is_found_by_its_name_and_others_are_refused() -> None:
    assert [PROJECTIONS.find(each.name) for each in PROJECTIONS.all] == [*PROJECTIONS.all]
    with pytest.raises(UnknownProjectionError, match="'effects'; there are: executions"):
        PROJECTIONS.find("effects")


def test_two_projections_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two projections are named attempts"):
        Projections([ATTEMPTS, ATTEMPTS.__class__(name="attempts", table=ATTEMPTS.table)])


def test_event_type_and_fact_of_each_projection_are_known() -> None:
    for projection in PROJECTIONS.all:
        assert projection.events.keys() <= set(history_pb2.EventType.values())
