"""The innermost outbound: makes requests of a client's calls and sends them."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from aetheris.api.v1 import task_queue_pb2, workflow_pb2, workflow_service_pb2
from aetheris.api.v1.common_pb2 import Header, Memo, Payload, WorkflowExecution, WorkflowType
from aetheris.api.v1.operator_service_pb2 import DescribeTaskQueueRequest
from aetheris.api.v1.task_queue_pb2 import TaskQueue
from aetheris.api.v1.workflow_service_pb2 import (
    CancelWorkflowRequest,
    DescribeWorkflowRequest,
    ForkWorkflowRequest,
    ListWorkflowsRequest,
    PauseActivityRequest,
    PauseWorkflowRequest,
    QueryWorkflowRequest,
    ResetActivityRequest,
    ResetWorkflowRequest,
    SignalWithStartWorkflowRequest,
    SignalWorkflowRequest,
    StartWorkflowRequest,
    TerminateWorkflowRequest,
    UnpauseActivityRequest,
    UnpauseWorkflowRequest,
    UpdateActivityOptionsRequest,
    UpdateWorkflowOptionsRequest,
)
from aetheris_client import enums
from aetheris_client.activity_options import ActivityOptions
from aetheris_client.connection import Connection
from aetheris_client.converter import DataConverter
from aetheris_client.descriptions import WorkflowDescription, WorkflowInfo
from aetheris_client.errors import (
    DeadlineExceededError,
    NotReadyError,
    PayloadEncodeError,
    RpcError,
)
from aetheris_client.interceptor import (
    CancelWorkflowInput,
    ClientOutbound,
    DescribeWorkflowInput,
    ForkWorkflowInput,
    Headers,
    ListWorkflowsInput,
    PauseActivityInput,
    PauseWorkflowInput,
    PollUpdateInput,
    QueryWorkflowInput,
    ResetActivityInput,
    ResetWorkflowInput,
    SignalWorkflowInput,
    StartedWorkflow,
    StartWorkflowInput,
    TerminateWorkflowInput,
    UnpauseActivityInput,
    UnpauseWorkflowInput,
    UpdateActivityOptionsInput,
    UpdateProgress,
    UpdateWithStartInput,
    UpdateWorkflowInput,
    UpdateWorkflowOptionsInput,
)
from aetheris_client.resets import excludes_to_proto
from aetheris_client.rpc_updates import UpdateCalls
from aetheris_client.search_attributes import to_search_attributes

_ActivityChangeInput = (
    PauseActivityInput | UnpauseActivityInput | ResetActivityInput | UpdateActivityOptionsInput
)

# Seconds for each question about a query that nobody answered.
_EXPLAIN_TIMEOUT: Final = 2.0


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """What all calls of one client have in common.

    Attributes:
        rpc_timeout: For one call with its retries, beside what the call asks the server to wait.
            Long enough for a server to restart meanwhile.
    """

    namespace: str
    identity: str
    converter: DataConverter
    rpc_timeout: timedelta = timedelta(seconds=30)


class RpcOutbound(ClientOutbound):
    """Sends each call as one request."""

    def __init__(self, connection: Connection, config: ClientConfig) -> None:
        self._connection = connection
        self._config = config
        self._timeout = config.rpc_timeout.total_seconds()
        self._updates = UpdateCalls(connection, config.namespace, config.identity, config.converter)

    async def start_workflow(self, request: StartWorkflowInput) -> StartedWorkflow:
        message = await self._start_request(request)
        timeout = self._timeout
        if request.result_wait_timeout is not None:
            timeout += request.result_wait_timeout.total_seconds()
        if request.start_signal is None:
            response = await self._connection.call(
                lambda stubs: stubs.workflow_service.StartWorkflow, message, timeout
            )
        else:
            response = await self._connection.call(
                lambda stubs: stubs.workflow_service.SignalWithStartWorkflow,
                SignalWithStartWorkflowRequest(
                    start=message,
                    signal_name=request.start_signal,
                    signal_input=await self._config.converter.encode(
                        request.start_signal_args, request.start_signal_arg_types
                    ),
                    signal_header=message.header if message.HasField("header") else None,
                ),
                timeout,
            )
        result = response.result if response.HasField("result") else None
        first_run_id = response.first_execution_run_id
        return StartedWorkflow(response.run_id, response.started, result, first_run_id)

    async def update_workflow(self, request: UpdateWorkflowInput) -> UpdateProgress:
        return await self._updates.update(request)

    async def poll_workflow_update(self, request: PollUpdateInput) -> UpdateProgress:
        return await self._updates.poll(request)

    async def update_with_start_workflow(
        self, request: UpdateWithStartInput
    ) -> tuple[StartedWorkflow, UpdateProgress]:
        start = await self._start_request(request.start)
        response, progress = await self._updates.update_with_start(start, request.update)
        started = StartedWorkflow(
            response.start.run_id,
            response.start.started,
            first_execution_run_id=response.start.first_execution_run_id,
        )
        return started, progress

    async def _start_request(self, request: StartWorkflowInput) -> StartWorkflowRequest:
        message = StartWorkflowRequest(
            namespace=self._config.namespace,
            workflow_id=request.id,
            workflow_type=WorkflowType(name=request.workflow),
            task_queue=TaskQueue(name=request.task_queue),
            input=await self._config.converter.encode(request.args, request.arg_types),
            identity=self._config.identity,
            request_id=request.request_id,
            header=_header(request.headers),
            search_attributes=to_search_attributes(request.search_attributes),
            pinned_build_id=request.pinned_build_id,
        )
        if request.result_wait_timeout is not None:
            message.result_wait_timeout.FromTimedelta(request.result_wait_timeout)
        _write_durations(request, message)
        _write_policies(request, message)
        if request.retry_policy is not None:
            message.retry_policy.CopyFrom(request.retry_policy.to_proto())
        if request.memo:
            message.memo.CopyFrom(await self._memo(request.memo))
        return message

    async def signal_workflow(self, request: SignalWorkflowInput) -> None:
        message = SignalWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            first_execution_run_id=request.first_execution_run_id,
            signal_name=request.signal,
            input=await self._config.converter.encode(request.args, request.arg_types),
            identity=self._config.identity,
            request_id=request.request_id,
            header=_header(request.headers),
        )
        await self._connection.call(
            lambda stubs: stubs.workflow_service.SignalWorkflow, message, self._timeout
        )

    async def query_workflow(self, request: QueryWorkflowInput) -> object:
        message = QueryWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            first_execution_run_id=request.first_execution_run_id,
            query_type=request.query,
            query_args=await self._config.converter.encode(request.args, request.arg_types),
            identity=self._config.identity,
            header=_header(request.headers),
        )
        if request.reject_condition is not None:
            message.query_reject_condition = enums.to_proto(
                request.reject_condition,
                workflow_service_pb2.QueryRejectCondition,
                "QUERY_REJECT_CONDITION_",
            )
        timeout = request.timeout.total_seconds() if request.timeout else self._timeout
        try:
            response = await self._connection.call(
                lambda stubs: stubs.workflow_service.QueryWorkflow, message, timeout
            )
        except (NotReadyError, DeadlineExceededError) as error:
            await self._raise_if_no_worker_polls(message.workflow_execution)
            raise error from None
        results = await self._config.converter.decode(response.query_result, [request.result_type])
        return results[0] if results else None

    async def cancel_workflow(self, request: CancelWorkflowInput) -> None:
        message = CancelWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            first_execution_run_id=request.first_execution_run_id,
            reason=request.reason,
            identity=self._config.identity,
            request_id=request.request_id,
        )
        await self._connection.call(
            lambda stubs: stubs.workflow_service.CancelWorkflow, message, self._timeout
        )

    async def terminate_workflow(self, request: TerminateWorkflowInput) -> None:
        message = TerminateWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            first_execution_run_id=request.first_execution_run_id,
            reason=request.reason,
            details=await self._config.converter.encode(request.details),
            identity=self._config.identity,
            request_id=request.request_id,
        )
        await self._connection.call(
            lambda stubs: stubs.workflow_service.TerminateWorkflow, message, self._timeout
        )

    async def reset_workflow(self, request: ResetWorkflowInput) -> str:
        message = ResetWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            point=request.point.to_proto(),
            reapply_exclude=excludes_to_proto(request.exclude),
            reason=request.reason,
            identity=self._config.identity,
            request_id=request.request_id,
        )
        response = await self._connection.call(
            lambda stubs: stubs.workflow_service.ResetWorkflow, message, self._timeout
        )
        return response.run_id

    async def fork_workflow(self, request: ForkWorkflowInput) -> str:
        message = ForkWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            workflow_id=request.new_id,
            point=request.point.to_proto(),
            reapply_exclude=excludes_to_proto(request.exclude),
            reason=request.reason,
            identity=self._config.identity,
            request_id=request.request_id,
        )
        response = await self._connection.call(
            lambda stubs: stubs.workflow_service.ForkWorkflow, message, self._timeout
        )
        return response.run_id

    async def pause_workflow(self, request: PauseWorkflowInput) -> None:
        message = PauseWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            first_execution_run_id=request.first_execution_run_id,
            reason=request.reason,
            identity=self._config.identity,
            request_id=request.request_id,
        )
        await self._connection.call(
            lambda stubs: stubs.workflow_service.PauseWorkflow, message, self._timeout
        )

    async def unpause_workflow(self, request: UnpauseWorkflowInput) -> None:
        message = UnpauseWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            first_execution_run_id=request.first_execution_run_id,
            reason=request.reason,
            identity=self._config.identity,
            request_id=request.request_id,
        )
        await self._connection.call(
            lambda stubs: stubs.workflow_service.UnpauseWorkflow, message, self._timeout
        )

    async def pause_activity(self, request: PauseActivityInput) -> None:
        message = PauseActivityRequest(**self._activity_change(request))
        await self._connection.call(
            lambda stubs: stubs.workflow_service.PauseActivity, message, self._timeout
        )

    async def unpause_activity(self, request: UnpauseActivityInput) -> None:
        message = UnpauseActivityRequest(
            **self._activity_change(request),
            reset_attempts=request.reset_attempts,
            reset_heartbeat=request.reset_heartbeat,
        )
        if request.jitter is not None:
            message.jitter.FromTimedelta(request.jitter)
        await self._connection.call(
            lambda stubs: stubs.workflow_service.UnpauseActivity, message, self._timeout
        )

    async def reset_activity(self, request: ResetActivityInput) -> None:
        message = ResetActivityRequest(
            **self._activity_change(request),
            keep_paused=request.keep_paused,
            reset_heartbeat=request.reset_heartbeat,
        )
        if request.jitter is not None:
            message.jitter.FromTimedelta(request.jitter)
        await self._connection.call(
            lambda stubs: stubs.workflow_service.ResetActivity, message, self._timeout
        )

    async def update_activity_options(self, request: UpdateActivityOptionsInput) -> ActivityOptions:
        options, mask = request.options.to_proto()
        message = UpdateActivityOptionsRequest(
            **self._activity_change(request), activity_options=options, update_mask=mask
        )
        response = await self._connection.call(
            lambda stubs: stubs.workflow_service.UpdateActivityOptions, message, self._timeout
        )
        return ActivityOptions.from_proto(response.activity_options)

    def _activity_change(self, request: _ActivityChangeInput) -> Mapping[str, Any]:
        """The fields that all requests to change an activity have."""
        return {
            "namespace": self._config.namespace,
            "workflow_execution": _execution(request.id, request.run_id),
            "activity_id": request.activity_id,
            "reason": request.reason,
            "identity": self._config.identity,
            "request_id": request.request_id,
        }

    async def describe_workflow(self, request: DescribeWorkflowInput) -> WorkflowDescription:
        message = DescribeWorkflowRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
        )
        response = await self._connection.call(
            lambda stubs: stubs.workflow_service.DescribeWorkflow, message, self._timeout
        )
        if self._config.converter.codec is not None:
            await self._config.converter.codec.decode_message(response)
        return WorkflowDescription.from_proto(response, self._config.converter)

    async def update_workflow_options(self, request: UpdateWorkflowOptionsInput) -> None:
        message = UpdateWorkflowOptionsRequest(
            namespace=self._config.namespace,
            workflow_execution=_execution(request.id, request.run_id),
            pinned_build_id=request.pinned_build_id,
            reason=request.reason,
            identity=self._config.identity,
            request_id=request.request_id,
            first_execution_run_id=request.first_execution_run_id,
        )
        await self._connection.call(
            lambda stubs: stubs.workflow_service.UpdateWorkflowOptions, message, self._timeout
        )

    async def list_workflows(self, request: ListWorkflowsInput) -> AsyncIterator[WorkflowInfo]:
        message = ListWorkflowsRequest(
            namespace=self._config.namespace,
            page_size=request.page_size,
            filter=request.filter.to_proto(),
        )
        converter = self._config.converter
        while True:
            response = await self._connection.call(
                lambda stubs: stubs.workflow_service.ListWorkflows, message, self._timeout
            )
            if converter.codec is not None:
                await converter.codec.decode_message(response)
            for info in response.executions:
                yield WorkflowInfo.from_proto(info, converter)
            if not response.next_page_token:
                return
            message.page_token = response.next_page_token

    async def _raise_if_no_worker_polls(self, execution: WorkflowExecution) -> None:
        """Find out why nobody answered, as far as the server can tell in time.

        Raises:
            NotReadyError: No worker polls the run's task queue.
        """
        namespace = self._config.namespace
        asked = DescribeWorkflowRequest(namespace=namespace, workflow_execution=execution)
        try:
            run = await self._connection.call(
                lambda stubs: stubs.workflow_service.DescribeWorkflow, asked, _EXPLAIN_TIMEOUT
            )
            task_queue = run.workflow_execution_info.task_queue
            queue = await self._connection.call(
                lambda stubs: stubs.operator_service.DescribeTaskQueue,
                DescribeTaskQueueRequest(
                    namespace=namespace,
                    task_queue=task_queue,
                    task_queue_type=task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW,
                ),
                _EXPLAIN_TIMEOUT,
            )
        except RpcError:
            # The caller is told what it waited for all the same.
            return
        if not any(poller.waiting_poll_count for poller in queue.pollers):
            raise NotReadyError(
                "a worker", f"no worker polls task queue {task_queue!r} now"
            ) from None

    async def _memo(self, values: Mapping[str, object]) -> Memo:
        converter = self._config.converter
        fields: dict[str, Payload] = {}
        for name, value in values.items():
            try:
                payload = converter.to_payload(value)
            except PayloadEncodeError as error:
                raise error.within(f"memo {name!r}") from error.__cause__
            if converter.codec is not None:
                (payload,) = await converter.codec.encode([payload])
            fields[name] = payload
        return Memo(fields=fields)


def _execution(workflow_id: str, run_id: str) -> WorkflowExecution:
    return WorkflowExecution(workflow_id=workflow_id, run_id=run_id)


def _header(headers: Headers) -> Header | None:
    return Header(fields=headers) if headers else None


def _write_durations(request: StartWorkflowInput, message: StartWorkflowRequest) -> None:
    if request.execution_timeout is not None:
        message.workflow_execution_timeout.FromTimedelta(request.execution_timeout)
    if request.run_timeout is not None:
        message.workflow_run_timeout.FromTimedelta(request.run_timeout)
    if request.task_timeout is not None:
        message.workflow_task_timeout.FromTimedelta(request.task_timeout)
    if request.start_delay is not None:
        message.start_delay.FromTimedelta(request.start_delay)


def _write_policies(request: StartWorkflowInput, message: StartWorkflowRequest) -> None:
    if request.id_reuse_policy is not None:
        message.workflow_id_reuse_policy = enums.to_proto(
            request.id_reuse_policy,
            workflow_pb2.WorkflowIdReusePolicy,
            "WORKFLOW_ID_REUSE_POLICY_",
        )
    if request.id_conflict_policy is not None:
        message.workflow_id_conflict_policy = enums.to_proto(
            request.id_conflict_policy,
            workflow_pb2.WorkflowIdConflictPolicy,
            "WORKFLOW_ID_CONFLICT_POLICY_",
        )
