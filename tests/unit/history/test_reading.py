"""Reading a run back: what is not whole, or not known, is refused and never guessed at."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.server.v1 import log_pb2, state_pb2
from aetheris_server.errors import BrokenLogError, RunUnreadableError, UnknownRecordError
from aetheris_server.history.aggregates.records import EMPTY_HASH, chain_hash
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.snapshot import SNAPSHOT_VERSION, to_snapshot
from aetheris_server.storage.log import RunRecord
from aetheris_server.storage.snapshots import SnapshotRow
from tests.support.engines import fold_run
from tests.support.runs import KEY, RunDriver, schedule_activity, start_timer

_NEW_FIELD = b"\xfa\x7f\x01x"
"""Field 2047, which no message here has."""


def _driver() -> RunDriver:
    """A run with events, a buffered event and failed attempts."""
    run = RunDriver()
    run.run_task(schedule_activity("a"), schedule_activity("b"), start_timer())
    run.start_activity("a")
    run.fail_activity("a")
    run.signal()
    run.start_task()
    run.signal("s2")
    return run


def _rows(run: RunDriver) -> list[RunRecord]:
    """The log of a run as its host wrote it."""
    rows: list[RunRecord] = []
    link, next_id = EMPTY_HASH, 1
    for seq, (record, stored) in enumerate(zip(run.records, run.stored, strict=True), start=1):
        link = chain_hash(link, stored)
        rows.append(RunRecord(seq, seq, next_id, len(record.events), stored, link))
        next_id += len(record.events)
    return rows


def _with_last(run: RunDriver, record: log_pb2.LogRecord, stored: bytes = b"") -> list[RunRecord]:
    """The log of a run with one more record, as another program would have written it."""
    rows = _rows(run)
    stored = stored or record.SerializeToString()
    return [
        *rows,
        RunRecord(
            len(rows) + 1,
            len(rows) + 1,
            run.state.next_event_id,
            len(record.events),
            stored,
            chain_hash(rows[-1].hash, stored),
        ),
    ]


def _snapshot(run: RunDriver, data: bytes = b"") -> SnapshotRow:
    state = run.state
    return SnapshotRow(1, KEY.run_id, state.run_seq, state.hash, data or to_snapshot(state))


def test_log_that_is_whole_is_folded() -> None:
    run = _driver()
    assert fold_run(KEY, 1, None, _rows(run)).state == run.state


def test_snapshot_and_the_log_behind_it_are_folded() -> None:
    run = _driver()
    snapshot = _snapshot(run)
    run.signal("s3")
    loaded = fold_run(KEY, 1, snapshot, _rows(run)[snapshot.run_seq - 1 :])
    assert loaded.state == run.state
    assert loaded.snapshot_seq == snapshot.run_seq


def _alter(row: RunRecord) -> RunRecord:
    return replace(row, record=row.record[:-1] + bytes([row.record[-1] ^ 1]))


@pytest.mark.parametrize(
    "break_,run_seq",
    [
        pytest.param(lambda rows: [], 1, id="empty"),
        pytest.param(lambda rows: rows[1:], 1, id="first-missing"),
        pytest.param(lambda rows: [*rows[:2], *rows[3:]], 3, id="one-missing"),
        pytest.param(lambda rows: [*rows[:3], rows[2], *rows[3:]], 4, id="one-twice"),
        pytest.param(lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], 2, id="out-of-order"),
        pytest.param(lambda rows: [*rows[:2], _alter(rows[2]), *rows[3:]], 3, id="altered"),
        pytest.param(
            lambda rows: [*rows[:2], replace(rows[2], hash=bytes(32)), *rows[3:]], 3, id="hash"
        ),
        pytest.param(
            lambda rows: [rows[0], replace(rows[1], first_event_id=9), *rows[2:]], 2, id="events"
        ),
        pytest.param(
            lambda rows: [rows[0], replace(rows[1], record=b"\xff"), *rows[2:]], 2, id="bytes"
        ),
    ],
)
def test_log_that_is_not_whole_is_refused_and_the_record_named(
    break_: Callable[[list[RunRecord]], list[RunRecord]], run_seq: int
) -> None:
    with pytest.raises(BrokenLogError) as caught:
        fold_run(KEY, 1, None, break_(_rows(_driver())))
    assert (caught.value.run_id, caught.value.run_seq) == (KEY.run_id, run_seq)


def test_records_of_two_writers_are_refused() -> None:
    ours, theirs = _driver(), _driver()
    ours.signal("s3")
    theirs.request_cancel()
    mixed = [*_rows(ours), _rows(theirs)[-1]]
    mixed[-1] = replace(mixed[-1], run_seq=len(mixed))
    with pytest.raises(BrokenLogError):
        fold_run(KEY, 1, None, mixed)


def test_snapshot_that_the_log_does_not_bear_out_is_refused() -> None:
    run = _driver()
    snapshot, rows = _snapshot(run), _rows(run)
    for broken, records in (
        (snapshot, []),
        (replace(snapshot, hash=bytes(32)), rows[-1:]),
        (replace(snapshot, run_seq=snapshot.run_seq + 1), rows[-1:]),
    ):
        with pytest.raises(BrokenLogError):
            fold_run(KEY, 1, broken, records)


def _event(run: RunDriver, event_type: int, field: str) -> log_pb2.LogRecord:
    record = log_pb2.LogRecord()
    event = record.events.add(event_id=run.state.next_event_id)
    event.event_type = event_type  # pyright: ignore[reportAttributeAccessIssue] - any number
    if field:
        getattr(event, field).SetInParent()
    return record


@pytest.mark.parametrize(
    "event_type,field",
    [
        pytest.param(999, "", id="type"),
        pytest.param(
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ADMITTED,
            "workflow_execution_update_admitted_event_attributes",
            id="not-of-this-program",
        ),
        pytest.param(history_pb2.EVENT_TYPE_MARKER_RECORDED, "", id="attributes-missing"),
        pytest.param(
            history_pb2.EVENT_TYPE_MARKER_RECORDED,
            "timer_fired_event_attributes",
            id="attributes-of-another",
        ),
    ],
)
@pytest.mark.parametrize("is_buffered", [False, True])
def test_event_that_is_not_known_is_refused(event_type: int, field: str, is_buffered: bool) -> None:
    run = _driver()
    record = _event(run, event_type, field)
    if is_buffered:
        record.facts.add().event_buffered.CopyFrom(record.events.pop())
    with pytest.raises(UnknownRecordError, match=f"record {run.state.run_seq + 1}: "):
        fold_run(KEY, 1, None, _with_last(run, record))


def test_fact_that_is_not_known_is_refused() -> None:
    run = _driver()
    record = log_pb2.LogRecord()
    record.facts.add().MergeFromString(_NEW_FIELD)
    with pytest.raises(UnknownRecordError, match="field 2047 of Fact"):
        fold_run(KEY, 1, None, _with_last(run, record))
    record = log_pb2.LogRecord()
    record.facts.add().shard_acquired.host_id = "h"
    with pytest.raises(UnknownRecordError, match="the fact shard_acquired"):
        apply(run.state, record, b"")


def test_field_that_is_not_known_is_refused_wherever_a_server_wrote_it() -> None:
    run = _driver()
    places = [
        lambda record: record,
        lambda record: record.events[0],
        lambda record: record.events[0].activity_task_scheduled_event_attributes,
    ]
    of_facts = [lambda record: record.facts[0], lambda record: record.facts[0].event_buffered]
    scheduled = log_pb2.LogRecord(events=[run.last_event("ACTIVITY_TASK_SCHEDULED")])
    buffering = run.records[-1]
    for record, chosen in ((scheduled, places), (buffering, of_facts)):
        for place in chosen:
            newer = log_pb2.LogRecord()
            newer.CopyFrom(record)
            place(newer).MergeFromString(_NEW_FIELD)
            with pytest.raises(UnknownRecordError, match="field 2047"):
                fold_run(KEY, 1, None, _with_last(run, newer))


def test_field_that_only_clients_know_is_kept() -> None:
    run = RunDriver()
    command = schedule_activity("a")
    attributes = command.schedule_activity_task_command_attributes
    attributes.input.payloads.add().MergeFromString(_NEW_FIELD)
    run.run_task(command)
    state = fold_run(KEY, 1, None, _rows(run)).state
    (activity,) = state.activities.values()
    assert _NEW_FIELD in activity.scheduled.input.SerializeToString()


def test_delivery_that_is_not_known_is_refused() -> None:
    run = _driver()
    record = _event(
        run,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
        "activity_task_scheduled_event_attributes",
    )
    attributes = record.events[0].activity_task_scheduled_event_attributes
    attributes.delivery = 9  # pyright: ignore[reportAttributeAccessIssue] - a newer program's
    with pytest.raises(UnknownRecordError, match="the activity delivery 9"):
        fold_run(KEY, 1, None, _with_last(run, record))


def _newer_version(snapshot: state_pb2.RunSnapshot) -> None:
    snapshot.version = SNAPSHOT_VERSION + 1


def _newer_status(snapshot: state_pb2.RunSnapshot) -> None:
    snapshot.status = 99  # pyright: ignore[reportAttributeAccessIssue] - a newer program's


@pytest.mark.parametrize(
    "change,problem",
    [
        pytest.param(_newer_version, "version 2", id="version"),
        pytest.param(_newer_status, "status 99", id="status"),
        pytest.param(
            lambda snapshot: snapshot.MergeFromString(_NEW_FIELD), "field 2047", id="field"
        ),
        pytest.param(
            lambda snapshot: snapshot.activities[0].MergeFromString(_NEW_FIELD),
            "field 2047 of ActivityState",
            id="field-of-an-activity",
        ),
    ],
)
def test_snapshot_that_is_not_known_is_refused(
    change: Callable[[state_pb2.RunSnapshot], None], problem: str
) -> None:
    run = _driver()
    snapshot = state_pb2.RunSnapshot.FromString(to_snapshot(run.state))
    change(snapshot)
    with pytest.raises(UnknownRecordError, match=problem):
        fold_run(KEY, 1, _snapshot(run, snapshot.SerializeToString()), _rows(run)[-1:])


def test_snapshot_from_before_there_were_versions_is_read() -> None:
    run = _driver()
    snapshot = state_pb2.RunSnapshot.FromString(to_snapshot(run.state))
    snapshot.ClearField("version")
    row = _snapshot(run, snapshot.SerializeToString())
    assert fold_run(KEY, 1, row, _rows(run)[-1:]).state == run.state


def test_bytes_that_are_no_snapshot_are_refused() -> None:
    run = _driver()
    with pytest.raises(RunUnreadableError, match="expected a snapshot"):
        fold_run(KEY, 1, _snapshot(run, b"\xff"), _rows(run)[-1:])


def test_everything_that_this_program_writes_is_known_to_it() -> None:
    run = _driver()
    run.complete_task(
        command_pb2.Command(
            command_type=command_pb2.COMMAND_TYPE_RECORD_MARKER,
            record_marker_command_attributes=command_pb2.RecordMarkerCommandAttributes(),
        )
    )
    run.terminate()
    assert fold_run(KEY, 1, None, _rows(run)).state == run.state
