"""What `workflow history --output json` writes, the Replayer's read_history reads: all of it."""

from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.history_pb2 import (
    EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    History,
    HistoryEvent,
)
from aetheris.api.v1.workflow_service_pb2 import GetWorkflowHistoryResponse
from aetheris_worker.testing import HistoryError, read_history
from tests.support.canned_server import CannedServer
from tests.support.messages import Messages
from tests.support.secrets import TOKENS
from tests.unit.admin.conftest import Run

ATTRIBUTES = HistoryEvent.DESCRIPTOR.oneofs_by_name["attributes"].fields


class RecordedMessages(Messages):
    """As a server records them: its times are times, and its numbers are numbers."""

    def __init__(self) -> None:
        super().__init__("n", TOKENS)
        # JSON has one NaN, and floats have many; and protobuf writes the largest float in so few
        # digits that it does not read it back.
        self._double = st.floats(-(2.0**127), 2.0**127, width=32)

    def of(self, descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
        if descriptor is Timestamp.DESCRIPTOR:
            return st.integers(0, 4 * 10**9).map(lambda seconds: Timestamp(seconds=seconds))
        if descriptor is Duration.DESCRIPTOR:
            return st.integers(0, 10**9 - 1).map(lambda nanos: Duration(seconds=5, nanos=nanos))
        return super().of(descriptor, depth)


def through_the_command(server: CannedServer, run: Run, path: Path, history: History) -> History:
    server.on("GetWorkflowHistory", GetWorkflowHistoryResponse(history=history))
    done = run("workflow", "history", "w", "--output", "json")
    assert done.exit_code == 0, done.exception
    path.write_text(done.stdout)
    return read_history(path)


@pytest.mark.parametrize("name", [field.name for field in ATTRIBUTES])
@settings(
    max_examples=3,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_event_of_any_type_comes_back_as_it_was(
    server: CannedServer, run: Run, tmp_path: Path, data: st.DataObject, name: str
):
    field = HistoryEvent.DESCRIPTOR.fields_by_name[name]
    event = HistoryEvent(event_id=1, event_type=EVENT_TYPE_WORKFLOW_EXECUTION_FAILED)
    getattr(event, name).CopyFrom(data.draw(RecordedMessages().of(field.message_type)))
    getattr(event, name).SetInParent()
    history = History(events=[event])
    read = through_the_command(server, run, tmp_path / "history.json", history)
    assert read.SerializeToString(deterministic=True) == history.SerializeToString(
        deterministic=True
    )


def test_history_of_long_failure_chain_comes_back(server: CannedServer, run: Run, tmp_path: Path):
    failure = Failure(message="innermost")
    for _ in range(60):
        failure = Failure(message="outer", cause=failure)
    event = HistoryEvent(event_id=1)
    event.workflow_execution_failed_event_attributes.failure.CopyFrom(failure)
    history = History(events=[event])
    assert through_the_command(server, run, tmp_path / "history.json", history) == history


def test_history_without_events_comes_back(server: CannedServer, run: Run, tmp_path: Path):
    assert through_the_command(server, run, tmp_path / "empty.json", History()) == History()


@pytest.mark.parametrize("content", [b"", b"{", b'[{"event_id":1}]', b"\xff"])
def test_file_that_is_no_history_says_what_was_expected(tmp_path: Path, content: bytes):
    path = tmp_path / "history.json"
    path.write_bytes(content)
    with pytest.raises(HistoryError, match="aetheris-admin workflow history --output json"):
        read_history(path)
