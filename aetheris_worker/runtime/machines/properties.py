"""The run's memo and search attributes, as its code sees and changes them.

    as it was started ──upserted──► changed

The code sees at once what it has changed; the command that goes out with the task tells the server.
A value of None removes the one of its name: as a payload, an empty one.
"""

from collections.abc import Mapping
from typing import Final

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.common_pb2 import Memo, Payload, SearchAttributes
from aetheris.api.v1.history_pb2 import HistoryEvent, WorkflowExecutionStartedEventAttributes
from aetheris_client.converter import DataConverter
from aetheris_client.errors import PayloadEncodeError
from aetheris_client.options import check_options
from aetheris_client.search_attributes import from_search_attributes, to_search_attributes
from aetheris_worker.runtime.machine import Machine
from aetheris_worker.runtime.parts import RunPart, RunScope


class Properties(RunPart):
    """Both, as the code has made them so far.

    Attributes:
        memo: Payloads by name.
        search_attributes: The same.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.memo: dict[str, Payload] = {}
        self.search_attributes: dict[str, Payload] = {}

    def begin(self, started: WorkflowExecutionStartedEventAttributes) -> None:
        """Take what the run was started with."""
        self.memo.update(started.memo.fields)
        self.search_attributes.update(started.search_attributes.indexed_fields)

    def read_search_attributes(self) -> Mapping[str, object]:
        """Their values."""
        return from_search_attributes(SearchAttributes(indexed_fields=self.search_attributes))

    def upsert_memo(self, values: Mapping[str, object]) -> None:
        """Set values; None removes one.

        Raises:
            TypeError, ValueError: It is no mapping of names, or an empty one.
            PayloadEncodeError: A value has no encoding; names it.
        """
        self.scope.loop.check_writable("changing the memo")
        check_options("upsert_memo", memo=values)
        if not values:
            raise ValueError("upsert_memo: expected a value, found none")
        fields = {name: self._to_payload(name, value) for name, value in values.items()}
        _upsert(self.memo, fields)
        self.scope.commands.add(UpsertMemoCommand(fields))

    def upsert_search_attributes(self, values: Mapping[str, object]) -> None:
        """Set values; None removes one.

        Raises:
            TypeError, ValueError: It is no mapping of names, or an empty one.
            PayloadEncodeError: A value is not of an indexed type; names it.
        """
        self.scope.loop.check_writable("changing the search attributes")
        check_options("upsert_search_attributes", search_attributes=values)
        if not values:
            raise ValueError("upsert_search_attributes: expected a value, found none")
        kept = {name: value for name, value in values.items() if value is not None}
        encoded = to_search_attributes(kept) or SearchAttributes()
        fields = {name: encoded.indexed_fields.get(name, Payload()) for name in values}
        _upsert(self.search_attributes, fields)
        self.scope.commands.add(UpsertSearchAttributesCommand(fields))

    def _to_payload(self, name: str, value: object) -> Payload:
        if value is None:
            return Payload()
        return to_memo_payload(self.scope.converter, name, value)


def to_memo_payload(converter: DataConverter, name: str, value: object) -> Payload:
    """A value of a memo.

    Raises:
        PayloadEncodeError: It has no encoding; names it.
    """
    try:
        return converter.to_payload(value)
    except PayloadEncodeError as error:
        raise error.within(f"memo {name!r}") from error.__cause__


def _upsert(before: dict[str, Payload], fields: Mapping[str, Payload]) -> None:
    for name, payload in fields.items():
        if payload.ByteSize():
            before[name] = payload
        else:
            before.pop(name, None)


class UpsertMemoCommand:
    """Change the memo."""

    event_type: int = history_pb2.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED
    is_withdrawn: bool = False

    def __init__(self, fields: Mapping[str, Payload]) -> None:
        self._fields = fields

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES)
        attributes = command.modify_workflow_properties_command_attributes
        attributes.upserted_memo.CopyFrom(Memo(fields=self._fields))
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        return _memo_of(event).keys() == self._fields.keys()

    def mark_recorded(self, event: HistoryEvent) -> None:
        """The code has seen it already."""

    def describe(self) -> str:
        return f"changed the memo ({_named(self._fields)})"


class UpsertSearchAttributesCommand:
    """Change the search attributes."""

    event_type: int = history_pb2.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES
    is_withdrawn: bool = False

    def __init__(self, fields: Mapping[str, Payload]) -> None:
        self._fields = fields

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES)
        attributes = command.upsert_workflow_search_attributes_command_attributes
        attributes.search_attributes.CopyFrom(SearchAttributes(indexed_fields=self._fields))
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        return _search_attributes_of(event).keys() == self._fields.keys()

    def mark_recorded(self, event: HistoryEvent) -> None:
        """The code has seen it already."""

    def describe(self) -> str:
        return f"changed search attributes ({_named(self._fields)})"


def _memo_of(event: HistoryEvent) -> Mapping[str, Payload]:
    return event.workflow_properties_modified_event_attributes.upserted_memo.fields


def _search_attributes_of(event: HistoryEvent) -> Mapping[str, Payload]:
    attributes = event.upsert_workflow_search_attributes_event_attributes
    return attributes.search_attributes.indexed_fields


def _named(fields: Mapping[str, Payload]) -> str:
    return ", ".join(sorted(fields))


MACHINE: Final = Machine(
    name="properties",
    commands={
        history_pb2.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED: (
            lambda event: f"a change of the memo ({_named(_memo_of(event))})"
        ),
        history_pb2.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: (
            lambda event: f"a change of search attributes ({_named(_search_attributes_of(event))})"
        ),
    },
)
