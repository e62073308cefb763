"""The memo and the search attributes in workflow code."""

from datetime import UTC, datetime

import pytest

from aetheris_client.converter import DataConverter
from aetheris_client.errors import PayloadEncodeError
from aetheris_client.search_attributes import to_search_attributes
from aetheris_worker import workflow
from aetheris_worker.runtime.errors import NondeterminismError, ReadOnlyError
from tests.unit.worker.driver import Session

_CONVERTER = DataConverter.default()


@workflow.defn
class Notes:
    def __init__(self) -> None:
        self.seen: list[object] = []

    @workflow.run
    async def run(self) -> None:
        self._look()
        workflow.upsert_memo({"b": [2], "a": None})
        workflow.upsert_search_attributes({"place": None, "size": 3})
        self._look()
        await workflow.wait_condition(lambda: False)

    def _look(self) -> None:
        self.seen += [
            workflow.memo(),
            workflow.memo_value("b", result_type=tuple[int, ...]),
            workflow.memo_value("c", "none"),
            workflow.search_attributes(),
        ]

    @workflow.query
    def change(self) -> None:
        workflow.upsert_memo({"a": 1})


def _started() -> Session:
    session = Session(Notes)
    started = session.history.events[0].workflow_execution_started_event_attributes
    started.memo.fields["a"].CopyFrom(_CONVERTER.to_payload("one"))
    attributes = to_search_attributes({"place": "here", "when": datetime(2026, 1, 1, tzinfo=UTC)})
    assert attributes is not None
    started.search_attributes.CopyFrom(attributes)
    return session


def test_code_sees_what_it_changes_at_once() -> None:
    session = _started()
    assert session.step() == ["memo a, b", "search attributes place, size"]
    when = datetime(2026, 1, 1, tzinfo=UTC)
    assert session.machine._entry._instance.seen == [
        {"a": "one"},
        None,
        "none",
        {"place": "here", "when": when},
        {"b": [2]},
        (2,),
        "none",
        {"size": 3, "when": when},
    ]
    assert session.replay()._entry._instance.seen == session.machine._entry._instance.seen


def test_value_of_none_is_an_empty_payload_in_the_command() -> None:
    session = _started()
    session.history.task_started()
    memo, attributes = (
        command.to_proto() for command in session.machine.advance(session.history.events)
    )
    fields = memo.modify_workflow_properties_command_attributes.upserted_memo.fields
    assert fields["a"].ByteSize() == 0
    assert _CONVERTER.from_payload(fields["b"]) == [2]
    upserted = attributes.upsert_workflow_search_attributes_command_attributes
    assert upserted.search_attributes.indexed_fields["place"].ByteSize() == 0
    assert upserted.search_attributes.indexed_fields["size"].data == b"3"


def test_history_with_other_names_is_nondeterminism() -> None:
    session = _started()
    session.step()
    modified = session.history.events[-2].workflow_properties_modified_event_attributes
    modified.upserted_memo.fields["z"].data = b"1"
    with pytest.raises(NondeterminismError) as caught:
        session.replay()
    assert caught.value.recorded == "a change of the memo (a, b, z)"
    assert caught.value.produced == "changed the memo (a, b)"


def test_history_with_another_command_is_nondeterminism() -> None:
    session = _started()
    session.history.task_started()
    session.history.task_completed()
    session.history.timer_started("1")
    session.history.timer_fired("1")
    session.history.task_started()
    with pytest.raises(NondeterminismError, match="the code changed the memo"):
        session.machine.advance(session.history.events)


def test_query_may_not_change_notes() -> None:
    session = _started()
    session.step()
    with pytest.raises(ReadOnlyError, match="changing the memo"):
        session.ask("change")


@workflow.defn
class Mistaken:
    @workflow.run
    async def run(self, what: str) -> None:
        match what:
            case "memo value":
                workflow.upsert_memo({"a": object()})
            case "attribute value":
                workflow.upsert_search_attributes({"a": {}})
            case "no memo":
                workflow.upsert_memo({})
            case "no attributes":
                workflow.upsert_search_attributes({})
            case _:
                workflow.upsert_memo([1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "what, error, message",
    [
        ("memo value", PayloadEncodeError, "memo 'a'"),
        ("attribute value", PayloadEncodeError, "search attribute 'a'"),
        ("no memo", ValueError, "upsert_memo: expected a value"),
        ("no attributes", ValueError, "upsert_search_attributes: expected a value"),
        ("kind", TypeError, "option 'memo': expected a mapping"),
    ],
)
def test_mistake_fails_the_task_and_is_named(
    what: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Session(Mistaken, what).step()
