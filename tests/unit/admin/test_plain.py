"""API messages as plain JSON values."""

import json
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration

from aetheris.api.v1.common_pb2 import ActivityType, Memo, Payload, Payloads, SearchAttributes
from aetheris.api.v1.failure_pb2 import ApplicationFailureInfo, Failure
from aetheris.api.v1.history_pb2 import (
    EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
    ActivityTaskScheduledEventAttributes,
    HistoryEvent,
)
from aetheris.api.v1.task_queue_pb2 import TaskQueue
from aetheris.api.v1.workflow_pb2 import ACTIVITY_DELIVERY_AT_MOST_ONCE
from aetheris_client import DataConverter
from aetheris_client.admin.plain import plain, to_json
from aetheris_client.errors import AetherisError, ApplicationError

CONVERTER = DataConverter.default()


def test_plain_event_shows_decoded_payloads_short_enums_and_names():
    event = HistoryEvent(
        event_id=5,
        event_type=EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
        activity_task_scheduled_event_attributes=ActivityTaskScheduledEventAttributes(
            activity_id="1",
            activity_type=ActivityType(name="parse"),
            task_queue=TaskQueue(name="q"),
            input=CONVERTER.to_payloads(["/a", {"n": 1}]),
            start_to_close_timeout=Duration(seconds=1, nanos=500_000_000),
            capabilities=["llm"],
            delivery=ACTIVITY_DELIVERY_AT_MOST_ONCE,
        ),
    )
    event.event_time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    assert plain(event) == {
        "event_id": 5,
        "event_time": "2026-01-02T00:00:00+00:00",
        "event_type": "ACTIVITY_TASK_SCHEDULED",
        "attributes": {
            "activity_id": "1",
            "activity_type": "parse",
            "task_queue": "q",
            "input": ["/a", {"n": 1}],
            "start_to_close_timeout": 1.5,
            "capabilities": ["llm"],
            "delivery": "AT_MOST_ONCE",
        },
    }


def test_plain_event_of_unknown_type_is_its_number_without_attributes():
    event = HistoryEvent.FromString(b"\x08\x01\x18\xe7\x07")
    assert plain(event)["event_type"] == "999"
    assert plain(event)["attributes"] == {}


def test_plain_maps_of_payloads_are_objects_of_values():
    payload = CONVERTER.to_payload("v")
    assert plain(Memo(fields={"a": payload})) == {"a": "v"}
    assert plain(SearchAttributes(indexed_fields={"a": payload})) == {"a": "v"}


def test_plain_payload_of_unknown_encoding_keeps_metadata_and_data():
    payload = Payload(metadata={"encoding": b"enc"}, data=b"\x01")
    assert to_json(Payloads(payloads=[payload]), indent=False) == (
        '[{"metadata":{"encoding":"ZW5j"},"data":"AQ=="}]'
    )


def test_plain_protobuf_payload_of_unknown_type_is_its_json():
    metadata = {"encoding": b"json/protobuf", "messageType": b"not.known.Here"}
    assert plain(Payload(metadata=metadata, data=b'{"a":1}')) == {"a": 1}


def test_json_of_error_is_its_failure_chain():
    error = ApplicationError("outer", type="Outer")
    error.__cause__ = AetherisError("inner")
    text = to_json({"failure": error}, indent=False)
    assert '"message":"outer"' in text
    assert '"cause":{"message":"inner"' in text


def test_plain_failure_keeps_its_kind():
    failure = Failure(message="m", application_failure_info=ApplicationFailureInfo(type="T"))
    assert plain(failure) == {"message": "m", "application_failure_info": {"type": "T"}}


def test_json_with_integer_beyond_64_bits_is_exact():
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b"[18446744073709551617]")
    text = to_json({"at": datetime(2026, 1, 1, tzinfo=UTC), "result": payload}, indent=False)
    assert json.loads(text) == {"at": "2026-01-01T00:00:00+00:00", "result": [2**64 + 1]}
