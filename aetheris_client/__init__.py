"""The Aetheris client SDK: start workflows, steer them, watch them."""

from aetheris_client.async_activity import AsyncActivityHandle
from aetheris_client.channels import TlsConfig
from aetheris_client.client import Client, StartOptions, WithStartWorkflowOperation
from aetheris_client.codec import PayloadCodec
from aetheris_client.connection import Connection
from aetheris_client.converter import DataConverter, PayloadConverter
from aetheris_client.descriptions import ListFilter, WorkflowDescription, WorkflowInfo
from aetheris_client.enums import (
    QueryRejectCondition,
    TaskQueueType,
    UpdateStage,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
    WorkflowStatus,
)
from aetheris_client.handle import WorkflowHandle
from aetheris_client.interceptor import ClientInterceptor, ClientOutbound
from aetheris_client.operator_client import OperatorClient
from aetheris_client.resets import ReapplyExclude, ResetPoint
from aetheris_client.retry import RetryPolicy
from aetheris_client.rpc_outbound import ClientConfig
from aetheris_client.update_handle import WorkflowUpdateHandle

__all__ = [
    "AsyncActivityHandle",
    "Client",
    "ClientConfig",
    "ClientInterceptor",
    "ClientOutbound",
    "Connection",
    "DataConverter",
    "ListFilter",
    "OperatorClient",
    "PayloadCodec",
    "PayloadConverter",
    "QueryRejectCondition",
    "ReapplyExclude",
    "ResetPoint",
    "RetryPolicy",
    "StartOptions",
    "TaskQueueType",
    "TlsConfig",
    "UpdateStage",
    "WithStartWorkflowOperation",
    "WorkflowDescription",
    "WorkflowHandle",
    "WorkflowIdConflictPolicy",
    "WorkflowIdReusePolicy",
    "WorkflowInfo",
    "WorkflowStatus",
    "WorkflowUpdateHandle",
]
