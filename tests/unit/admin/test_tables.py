"""Answers as people read them."""

from datetime import UTC, datetime, timedelta

import pytest

from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.history_pb2 import (
    EVENT_TYPE_ACTIVITY_TASK_FAILED,
    ActivityTaskFailedEventAttributes,
    HistoryEvent,
)
from aetheris_client.admin import tables
from aetheris_client.errors import ActivityError, ApplicationError, WorkflowFailedError


@pytest.mark.parametrize(
    "interval,text",
    [
        (None, "-"),
        (timedelta(0), "0s"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(hours=72), "3d"),
        (timedelta(days=1, hours=2, seconds=1.5), "1d2h1.5s"),
    ],
)
def test_duration_is_written_in_its_units(interval: timedelta | None, text: str):
    assert tables.duration_text(interval) == text


def test_time_is_written_in_utc_to_the_second():
    assert tables.time_text(datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)) == "2026-01-02 03:04:05Z"
    assert tables.time_text(None) == "-"


def test_long_value_is_cut_to_one_line():
    text = tables.value_text({"a": "x\n" * 500})
    assert len(text) == tables.MAX_VALUE_CHARS
    assert text.endswith("…")
    assert "\n" not in text


def test_event_line_shows_id_time_type_and_key_attributes():
    event = HistoryEvent(
        event_id=7,
        event_type=EVENT_TYPE_ACTIVITY_TASK_FAILED,
        activity_task_failed_event_attributes=ActivityTaskFailedEventAttributes(
            scheduled_event_id=5,
            identity="a worker",
            failure=Failure(message="outer", cause=Failure(message="inner")),
        ),
    )
    event.event_time.FromDatetime(datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))
    line = tables.event_line(event)
    assert line.split()[:4] == ["7", "2026-01-02", "03:04:05.678Z", "ActivityTaskFailed"]
    assert line.endswith('failure="outer ← inner" scheduled_event_id=5 identity="a worker"')


def test_event_columns_stand_under_their_heading():
    heading, line = tables.event_heading(), tables.event_line(HistoryEvent(event_id=1))
    assert heading.index("Type") == line.index("Unspecified")


def test_bookkeeping_attributes_are_left_to_json():
    assert tables.attributes_text({"header": {}, "request_id": "r", "timer_id": "t"}) == (
        "timer_id=t"
    )


def test_failure_chain_is_a_line_for_each_cause():
    root = ApplicationError("no\nmoney", type="Broke")
    middle = ActivityError("activity failed")
    middle.__cause__ = root
    error = WorkflowFailedError("w", "r", "FAILED", middle)
    assert tables.failure_lines(error) == [
        "caused by ActivityError: activity failed",
        "caused by Broke: no money",
    ]
