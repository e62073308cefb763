"""Protobuf messages by chance: any type, with values that lie where mistakes do."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from aetheris.server.v1.token_pb2 import PageToken, TaskToken
from aetheris_server.rpc.tokens import (
    LISTING_HISTORY,
    LISTING_NAMESPACES,
    LISTING_WORKFLOWS,
    Tokens,
)

RUN_ID = "0190a3c0-0000-7000-8000-000000000000"

_MAX_DEPTH = 4
_MAX_ITEMS = 3


def sealed_tokens(namespace_id: str, tokens: Tokens) -> list[bytes]:
    """Tokens of every kind that are well formed, and some that say nonsense."""
    named: dict[str, Any] = {"namespace_id": namespace_id, "workflow_id": "w", "run_id": RUN_ID}
    run = TaskToken(**named, attempt=1)
    never = TaskToken(**named, attempt=1, scheduled_event_id=5)
    never.started_time.seconds = -(2**63)
    elsewhere = TaskToken(namespace_id="elsewhere", workflow_id="w", run_id=RUN_ID, attempt=1)
    odd = TaskToken(namespace_id=namespace_id, workflow_id="w", run_id="\0", attempt=-1)
    tasks = [run, run, run, never, elsewhere, odd]
    pages = [
        PageToken(listing=LISTING_HISTORY, run_id=RUN_ID, next_event_id=1),
        PageToken(listing=LISTING_HISTORY, run_id="odd", next_event_id=-1),
        PageToken(listing=LISTING_WORKFLOWS, last_key=RUN_ID),
        PageToken(listing=LISTING_WORKFLOWS, last_key="odd"),
        PageToken(listing=LISTING_NAMESPACES, last_key="default"),
        PageToken(listing=LISTING_NAMESPACES, last_key="\0"),
        PageToken(listing="odd"),
    ]
    queries = [(), (namespace_id.encode(),), (namespace_id.encode(), b"")]
    pages[2].start_time.seconds = 1
    pages[3].start_time.seconds = -(2**60)
    return [
        *(tokens.seal_task(task) for task in tasks),
        *(tokens.seal_page(page, *query) for page in pages for query in queries),
    ]


class Messages:
    """Strategies for the messages of an API."""

    def __init__(self, namespace_id: str, tokens: Tokens) -> None:
        texts = ["default", "default", "default", "w", RUN_ID, "", "\0", "ü" * 600, "nowhere"]
        self._text = st.one_of(st.sampled_from(texts), st.text(max_size=8))
        self._bytes = st.one_of(
            st.sampled_from([*sealed_tokens(namespace_id, tokens), b"", b"{}", b"corrupt!"]),
            st.binary(max_size=8),
        )
        self._double = st.floats(width=32)

    def of(self, descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
        """Messages of a type; any field may be unset, and most are."""
        fields = [
            field for field in descriptor.fields if field.message_type is None or depth < _MAX_DEPTH
        ]
        values = {field.name: self._field(field, depth) for field in fields}
        made = GetMessageClass(descriptor)
        return st.fixed_dictionaries({}, optional=values).map(lambda given: _fill(made(), given))

    def _field(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name
            return st.dictionaries(
                self._text, self._one(entry["value"], depth), max_size=_MAX_ITEMS
            )
        one = self._one(field, depth)
        return st.lists(one, max_size=_MAX_ITEMS) if field.is_repeated else one

    def _one(self, field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_MESSAGE:
                # Deferred: a failure's cause is a failure.
                return st.deferred(lambda: self.of(field.message_type, depth + 1))
            case FieldDescriptor.CPPTYPE_STRING:
                return self._bytes if field.type == FieldDescriptor.TYPE_BYTES else self._text
            case FieldDescriptor.CPPTYPE_ENUM:
                known = [value.number for value in field.enum_type.values]
                return st.sampled_from([*known, 99, -1])
            case FieldDescriptor.CPPTYPE_INT32:
                return st.sampled_from([0, 1, 2, 1000, 1001, -1, 2**31 - 1, -(2**31)])
            case FieldDescriptor.CPPTYPE_INT64:
                return st.sampled_from([0, 1, 3600, 10**9, -1, 2**63 - 1, -(2**63)])
            case FieldDescriptor.CPPTYPE_BOOL:
                return st.booleans()
            case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
                return self._double
            case kind:
                raise NotImplementedError(f"{field.full_name}: {kind}")


def _fill(message: Message, values: dict[str, Any]) -> Message:
    for name, value in values.items():
        target = getattr(message, name)
        if isinstance(value, Message):
            target.CopyFrom(value)
            target.SetInParent()
        elif isinstance(value, list):
            target.extend(value)
        elif isinstance(value, dict):
            for key, item in value.items():
                if isinstance(item, Message):
                    target[key].CopyFrom(item)
                else:
                    target[key] = item
        else:
            setattr(message, name, value)
    return message
