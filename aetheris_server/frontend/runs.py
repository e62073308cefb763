"""A run's row as lists show it."""

from aetheris.api.v1 import workflow_pb2
from aetheris_server.rpc.search_attributes import decode_search_attributes
from aetheris_server.storage.execution_rows import ExecutionRow

__all__ = ["to_execution_info"]


def to_execution_info(row: ExecutionRow) -> workflow_pb2.WorkflowExecutionInfo:
    """The row in the terms of the API."""
    info = workflow_pb2.WorkflowExecutionInfo(
        task_queue=row.task_queue,
        status=workflow_pb2.WorkflowExecutionStatus.ValueType(row.status),
        history_length=row.history_length,
        history_bytes=row.history_bytes,
        first_execution_run_id=row.first_execution_run_id,
    )
    info.execution.workflow_id = row.workflow_id
    info.execution.run_id = row.run_id
    info.workflow_type.name = row.workflow_type
    info.start_time.FromDatetime(row.start_time)
    info.execution_time.FromDatetime(row.execution_time)
    if row.close_time is not None:
        info.close_time.FromDatetime(row.close_time)
    if row.memo is not None:
        info.memo.ParseFromString(row.memo)
    if row.search_attributes is not None:
        info.search_attributes.CopyFrom(decode_search_attributes(row.search_attributes))
    if row.parent_run_id:
        info.parent_execution.workflow_id = row.parent_workflow_id
        info.parent_execution.run_id = row.parent_run_id
    return info
