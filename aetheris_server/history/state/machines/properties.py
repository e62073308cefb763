"""Notes on the run that its code may change: the memo and the search attributes.

    as it was started ──a command──► changed ──a command──► changed

A value that is empty removes the one of its name. The notes stay when the run closes, and the run
that continues it begins with them.
"""

from dataclasses import dataclass, field

from google.protobuf.message import Message

from aetheris.api.v1 import command_pb2, common_pb2, history_pb2, workflow_service_pb2
from aetheris.server.v1 import machines_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.state.command_checks import (
    CommandRefusedError,
    check_size,
)
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent
from aetheris_server.history.state.run import RunState
from aetheris_server.rpc.search_attributes import check_search_attributes

_NAME = "properties"


@dataclass(slots=True)
class Properties:
    """What has been changed since the run was started.

    Attributes:
        memo: As it is now; None for what the run was started with.
        search_attributes: The same.
        changed_seq: The record that changed them last; 0 for one from before a snapshot.
    """

    memo: common_pb2.Memo | None = None
    search_attributes: common_pb2.SearchAttributes | None = None
    changed_seq: int = field(default=0, compare=False)

    @property
    def byte_count(self) -> int:
        """What they take, about."""
        return _size_of(self.memo) + _size_of(self.search_attributes)


def memo_of(state: RunState) -> common_pb2.Memo:
    """The run's memo as it is now; not to be changed."""
    changed = state.parts.find(Properties)
    return changed.memo if changed is not None and changed.memo is not None else state.started.memo


def search_attributes_of(state: RunState) -> common_pb2.SearchAttributes:
    """The run's search attributes as they are now; not to be changed."""
    changed = state.parts.find(Properties)
    if changed is not None and changed.search_attributes is not None:
        return changed.search_attributes
    return state.started.search_attributes


def has_changed(state: RunState) -> bool:
    """Whether the code has changed them since the run was started."""
    return Properties in state.parts


def is_changed(state: RunState) -> bool:
    """Whether the newest record has changed them."""
    changed = state.parts.find(Properties)
    return changed is not None and changed.changed_seq == state.run_seq


# Commands.


def _modify(commands: CommandPass, command: command_pb2.Command) -> None:
    given = command.modify_workflow_properties_command_attributes
    cause = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES
    if not given.upserted_memo.fields:
        raise CommandRefusedError(cause, "upserted_memo.fields is empty, expected a value")
    check_size(given, commands.limits)
    changed = commands.parts.make(Properties)
    changed.memo = _merge_memo(changed.memo or memo_of(commands.state), given.upserted_memo)
    check_size(changed.memo, commands.limits)
    commands.draft.add(
        history_pb2.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED,
        history_pb2.WorkflowPropertiesModifiedEventAttributes(
            workflow_task_completed_event_id=commands.completed_id,
            upserted_memo=given.upserted_memo,
        ),
    )


def _upsert(commands: CommandPass, command: command_pb2.Command) -> None:
    given = command.upsert_workflow_search_attributes_command_attributes.search_attributes
    cause = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES
    if not given.indexed_fields:
        raise CommandRefusedError(
            cause, "search_attributes.indexed_fields is empty, expected a value"
        )
    changed = commands.parts.make(Properties)
    before = changed.search_attributes or search_attributes_of(commands.state)
    changed.search_attributes = _merge_search_attributes(before, given)
    for attributes in (given, changed.search_attributes):
        check_attributes(commands, attributes)
    commands.draft.add(
        history_pb2.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
        history_pb2.UpsertWorkflowSearchAttributesEventAttributes(
            workflow_task_completed_event_id=commands.completed_id, search_attributes=given
        ),
    )


def check_attributes(commands: CommandPass, attributes: common_pb2.SearchAttributes) -> None:
    """Refuse search attributes that a run's row could not have.

    Raises:
        CommandRefusedError: BAD_SEARCH_ATTRIBUTES.
    """
    try:
        check_search_attributes(attributes, commands.limits.id_max_bytes)
    except InvalidArgumentError as error:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES, str(error)
        ) from None


def _merge_memo(before: common_pb2.Memo, upserted: common_pb2.Memo) -> common_pb2.Memo:
    merged = {**before.fields, **upserted.fields}
    return common_pb2.Memo(
        fields={name: payload for name, payload in merged.items() if payload.ByteSize()}
    )


def _merge_search_attributes(
    before: common_pb2.SearchAttributes, upserted: common_pb2.SearchAttributes
) -> common_pb2.SearchAttributes:
    merged = {**before.indexed_fields, **upserted.indexed_fields}
    return common_pb2.SearchAttributes(
        indexed_fields={name: payload for name, payload in merged.items() if payload.data}
    )


# The fold.


def _modified(state: RunState, event: history_pb2.HistoryEvent) -> None:
    upserted = event.workflow_properties_modified_event_attributes.upserted_memo
    _change(state, memo=_merge_memo(memo_of(state), upserted))


def _upserted(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.upsert_workflow_search_attributes_event_attributes
    merged = _merge_search_attributes(search_attributes_of(state), attributes.search_attributes)
    _change(state, search_attributes=merged)


def _change(
    state: RunState,
    *,
    memo: common_pb2.Memo | None = None,
    search_attributes: common_pb2.SearchAttributes | None = None,
) -> None:
    changed = state.parts.make(Properties)
    state.held_bytes -= changed.byte_count
    changed.memo = memo if memo is not None else changed.memo
    if search_attributes is not None:
        changed.search_attributes = search_attributes
    changed.changed_seq = state.run_seq + 1
    state.held_bytes += changed.byte_count


def _size_of(message: Message | None) -> int:
    return message.ByteSize() if message is not None else 0


# In snapshots, and for users.


def _save(state: RunState) -> bytes | None:
    changed = state.parts.find(Properties)
    if changed is None:
        return None
    part = machines_pb2.PropertiesPart(
        memo=changed.memo, search_attributes=changed.search_attributes
    )
    return part.SerializeToString(deterministic=True)


def _load(state: RunState, data: bytes) -> None:
    part = machines_pb2.PropertiesPart.FromString(data)
    _change(
        state,
        memo=part.memo if part.HasField("memo") else None,
        search_attributes=part.search_attributes if part.HasField("search_attributes") else None,
    )
    state.parts.make(Properties).changed_seq = 0


def _describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    if state.parts.find(Properties) is None:
        return
    info = response.workflow_execution_info
    info.memo.CopyFrom(memo_of(state))
    info.search_attributes.CopyFrom(search_attributes_of(state))


MACHINE = Machine(
    name=_NAME,
    commands={
        command_pb2.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES: _modify,
        command_pb2.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: _upsert,
    },
    events={
        history_pb2.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED: OnEvent(_modified),
        history_pb2.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: OnEvent(_upserted),
    },
    save_part=_save,
    load_part=_load,
    describe=_describe,
)
