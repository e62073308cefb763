"""A run's row as the API shows it, and the two columns of it whose form is not the table's own.

History writes what the frontend reads, so both come here for the form. Search attributes are a JSON
object of `{"type": ..., "value": ...}` by name, so that they can be searched.
"""

from typing import Any

import orjson

from aetheris.api.v1 import common_pb2, workflow_pb2
from aetheris_server.storage.executions import ExecutionRow

__all__ = ["encode_memo", "encode_search_attributes", "to_execution_info"]

_JSON = b"json/plain"


def encode_memo(memo: common_pb2.Memo) -> bytes | None:
    """The column `memo`; None for an empty one."""
    return memo.SerializeToString(deterministic=True) or None


def encode_search_attributes(attributes: common_pb2.SearchAttributes) -> bytes | None:
    """The column `search_attributes`: JSON in UTF-8; None where there are none.

    Args:
        attributes: Of a checked request: every value is JSON, or empty for one that is not set.
    """
    values = {
        name: {
            "type": payload.metadata["type"].decode("ascii", "ignore"),
            "value": orjson.Fragment(payload.data),
        }
        for name, payload in sorted(attributes.indexed_fields.items())
        if payload.data
    }
    return orjson.dumps(values) if values else None


def to_execution_info(row: ExecutionRow) -> workflow_pb2.WorkflowExecutionInfo:
    """The row as lists show it."""
    info = workflow_pb2.WorkflowExecutionInfo(
        execution=common_pb2.WorkflowExecution(workflow_id=row.workflow_id, run_id=row.run_id),
        workflow_type=common_pb2.WorkflowType(name=row.workflow_type),
        task_queue=row.task_queue,
        status=workflow_pb2.WorkflowExecutionStatus.ValueType(row.status),
        history_length=row.history_length,
        history_bytes=row.history_bytes,
        first_execution_run_id=row.first_execution_run_id,
    )
    info.start_time.FromDatetime(row.start_time)
    info.execution_time.FromDatetime(row.execution_time)
    if row.close_time is not None:
        info.close_time.FromDatetime(row.close_time)
    if row.memo is not None:
        info.memo.ParseFromString(row.memo)
    if row.search_attributes is not None:
        info.search_attributes.CopyFrom(_decode_search_attributes(row.search_attributes))
    if row.parent_run_id:
        info.parent_execution.workflow_id = row.parent_workflow_id
        info.parent_execution.run_id = row.parent_run_id
    return info


def _decode_search_attributes(data: bytes) -> common_pb2.SearchAttributes:
    values: dict[str, dict[str, Any]] = orjson.loads(data)
    return common_pb2.SearchAttributes(
        indexed_fields={
            name: common_pb2.Payload(
                metadata={"encoding": _JSON, "type": value["type"].encode()},
                data=orjson.dumps(value["value"]),
            )
            for name, value in values.items()
        }
    )
