"""The memo and the search attributes, as the run's code changes them."""

import pytest

from aetheris.api.v1 import command_pb2, history_pb2, workflow_service_pb2
from aetheris_server.history.runs.index import to_execution_notes
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.properties import (
    Properties,
    has_changed,
    is_changed,
    memo_of,
    search_attributes_of,
)
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import (
    KEY,
    RunDriver,
    complete_workflow,
    memo,
    search_attributes,
    upsert_memo,
    upsert_search_attributes,
)


def test_notes_that_are_not_changed_are_those_of_the_start_and_cost_nothing() -> None:
    run = RunDriver(memo=memo(a="1"), search_attributes=search_attributes(place='"here"'))
    run.run_task(force_create_new_workflow_task=True)
    assert memo_of(run.state) == memo(a="1")
    assert search_attributes_of(run.state) == search_attributes(place='"here"')
    assert not has_changed(run.state)
    assert not is_changed(run.state)
    assert Properties not in run.state.parts


def test_memo_is_merged_and_an_empty_value_removes_one() -> None:
    run = RunDriver(memo=memo(a="1", b="2"))
    run.run_task(upsert_memo(b="3", c="4"), upsert_memo(a=""), force_create_new_workflow_task=True)
    assert run.names(3) == [
        "WORKFLOW_PROPERTIES_MODIFIED",
        "WORKFLOW_PROPERTIES_MODIFIED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    event = run.history[-3]
    modified = event.workflow_properties_modified_event_attributes
    assert modified.upserted_memo == memo(b="3", c="4")
    assert modified.workflow_task_completed_event_id == event.event_id - 1
    assert memo_of(run.state) == memo(b="3", c="4")
    assert run.state.started.memo == memo(a="1", b="2")


def test_search_attributes_are_merged_and_an_empty_value_removes_one() -> None:
    run = RunDriver(search_attributes=search_attributes(place='"here"', kind='"x"'))
    run.run_task(upsert_search_attributes(place="", size="3"), force_create_new_workflow_task=True)
    assert run.names(2) == ["UPSERT_WORKFLOW_SEARCH_ATTRIBUTES", "WORKFLOW_TASK_SCHEDULED"]
    assert search_attributes_of(run.state) == search_attributes(kind='"x"', size="3")


def test_row_is_changed_by_the_record_that_changes_the_notes_alone() -> None:
    run = RunDriver()
    run.run_task(upsert_memo(a="1"))
    assert is_changed(run.state)
    run.signal()
    assert not is_changed(run.state)
    notes = to_execution_notes(0, run.state)
    assert notes is not None
    assert notes.memo == memo(a="1").SerializeToString()
    assert notes.search_attributes is None


def test_notes_that_are_all_removed_leave_nothing_in_the_row() -> None:
    run = RunDriver(memo=memo(a="1"), search_attributes=search_attributes(place='"here"'))
    run.run_task(upsert_memo(a=""), upsert_search_attributes(place=""))
    notes = to_execution_notes(0, run.state)
    assert notes is not None
    assert (notes.memo, notes.search_attributes) == (None, None)


def test_notes_are_in_snapshots_and_stay_when_the_run_closes() -> None:
    run = RunDriver(memo=memo(a="1"))
    run.run_task(upsert_memo(b="2"), upsert_search_attributes(kind='"x"'), complete_workflow())
    loaded = from_snapshot(KEY, run.state.run_seq, run.state.hash, to_snapshot(run.state))
    for state in (loaded, run.fold(), run.state):
        assert memo_of(state) == memo(a="1", b="2")
        assert search_attributes_of(state) == search_attributes(kind='"x"')
        assert state.held_bytes == run.state.held_bytes > 0
    assert not is_changed(loaded)


def test_describe_shows_the_notes_as_they_are() -> None:
    run = RunDriver(memo=memo(a="1"), search_attributes=search_attributes(place='"here"'))
    run.run_task(upsert_memo(b="2"), upsert_search_attributes(place=""))
    response = workflow_service_pb2.DescribeWorkflowResponse()
    for describe in RUN_MACHINES.describe:
        describe(run.state, run.inflight, response)
    info = response.workflow_execution_info
    assert info.memo == memo(a="1", b="2")
    assert not info.search_attributes.indexed_fields


_BAD_MEMO = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES
_BAD_ATTRIBUTES = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES
_TOO_LARGE = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PAYLOADS_TOO_LARGE


@pytest.mark.parametrize(
    "commands, cause, message",
    [
        ([upsert_memo()], _BAD_MEMO, "commands[0].upserted_memo.fields is empty"),
        ([upsert_memo(a="x" * 1000)], _TOO_LARGE, "expected at most 1000"),
        # Each is small enough, both together are not.
        ([upsert_memo(a="x" * 600), upsert_memo(b="x" * 600)], _TOO_LARGE, "expected at most 1000"),
        ([upsert_search_attributes()], _BAD_ATTRIBUTES, "indexed_fields is empty"),
        ([upsert_search_attributes(a="{")], _BAD_ATTRIBUTES, "indexed_fields['a']: expected JSON"),
        (
            [
                upsert_search_attributes(**{f"a{i}": "1" for i in range(60)}),
                upsert_search_attributes(**{f"b{i}": "1" for i in range(60)}),
            ],
            _BAD_ATTRIBUTES,
            "expected 0 to 100, found 120",
        ),
    ],
)
def test_bad_notes_are_refused_and_none_recorded(
    commands: list[command_pb2.Command],
    cause: history_pb2.WorkflowTaskFailedCause.ValueType,
    message: str,
) -> None:
    run = RunDriver(RunLimits(payload_max_bytes=1000))
    run.start_task()
    refused = run.complete_task(*commands).refused
    assert refused is not None
    assert refused.cause == cause
    assert message in str(refused)
    assert not has_changed(run.state)
