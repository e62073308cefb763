"""A client and a worker without an SDK: what goes over the wire, with what a test does not care
about filled in.
"""

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, cast

import grpc
import grpc.aio
from google.protobuf import duration_pb2
from grpc_status import rpc_status

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    error_details_pb2,
    failure_pb2,
    history_pb2,
    task_queue_pb2,
    worker_service_pb2,
    worker_service_pb2_grpc,
    workflow_pb2,
    workflow_service_pb2,
    workflow_service_pb2_grpc,
)
from aetheris.api.v1 import operator_service_pb2 as operator_pb2
from aetheris.api.v1 import operator_service_pb2_grpc as operator_grpc

QUEUE = "queue"
_OPTIONS = [
    # A server that has restarted is found again at once.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", -1),
]
_CALL_TIMEOUT = 30.0
DEFAULT_POLL_TIMEOUT = 10.0

COMPLETED = workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED


class Raw:
    """One connection to a server. A context manager.

    Attributes:
        workflows: WorkflowService.
        workers: WorkerService.
        operators: OperatorService.
        queue: The task queue of what this starts and polls.
    """

    def __init__(self, address: str, queue: str = QUEUE, namespace: str = "default") -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.workflows: Any = workflow_service_pb2_grpc.WorkflowServiceStub(self._channel)
        self.workers: Any = worker_service_pb2_grpc.WorkerServiceStub(self._channel)
        self.operators: Any = operator_grpc.OperatorServiceStub(self._channel)
        self.queue = queue
        self.namespace = namespace

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channel.close(None)

    # What clients do.

    async def start(
        self, workflow_id: str = "", **fields: Any
    ) -> workflow_service_pb2.StartWorkflowResponse:
        fields.setdefault("request_id", str(uuid.uuid4()))
        return await self.workflows.StartWorkflow(
            workflow_service_pb2.StartWorkflowRequest(
                namespace=self.namespace,
                workflow_id=workflow_id or f"w-{uuid.uuid4()}",
                workflow_type=common_pb2.WorkflowType(name="Flow"),
                task_queue=task_queue_pb2.TaskQueue(name=self.queue),
                **fields,
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def signal_with_start(
        self, workflow_id: str, name: str = "signal", signal_input: Any = None, **start: Any
    ) -> workflow_service_pb2.SignalWithStartWorkflowResponse:
        start.setdefault("request_id", str(uuid.uuid4()))
        return await self.workflows.SignalWithStartWorkflow(
            workflow_service_pb2.SignalWithStartWorkflowRequest(
                start=workflow_service_pb2.StartWorkflowRequest(
                    namespace=self.namespace,
                    workflow_id=workflow_id,
                    workflow_type=common_pb2.WorkflowType(name="Flow"),
                    task_queue=task_queue_pb2.TaskQueue(name=self.queue),
                    **start,
                ),
                signal_name=name,
                signal_input=signal_input,
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def start_run(self, **fields: Any) -> common_pb2.WorkflowExecution:
        """A run; of a new workflow id where none is given."""
        workflow_id = fields.pop("workflow_id", f"w-{uuid.uuid4()}")
        started = await self.start(workflow_id, **fields)
        return common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=started.run_id)

    async def signal(
        self, run: common_pb2.WorkflowExecution, name: str = "signal", **fields: Any
    ) -> None:
        fields.setdefault("request_id", str(uuid.uuid4()))
        await self.workflows.SignalWorkflow(
            workflow_service_pb2.SignalWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, signal_name=name, **fields
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def update(
        self,
        run: common_pb2.WorkflowExecution,
        update_id: str = "u1",
        name: str = "update",
        wait: float = 20.0,
        stage: "workflow_pb2.UpdateStage.ValueType" = workflow_pb2.UPDATE_STAGE_COMPLETED,
        **fields: Any,
    ) -> workflow_service_pb2.UpdateWorkflowResponse:
        """How far an update of the run is, within `wait` seconds."""
        return await self.workflows.UpdateWorkflow(
            workflow_service_pb2.UpdateWorkflowRequest(
                namespace=self.namespace,
                workflow_execution=run,
                request=history_pb2.UpdateRequest(update_id=update_id, name=name, identity="raw"),
                wait_stage=stage,
                wait_timeout=seconds(wait),
                **fields,
            ),
            timeout=wait + 10,
            wait_for_ready=True,
        )

    async def poll_update(
        self,
        run: common_pb2.WorkflowExecution,
        update_id: str = "u1",
        wait: float = 20.0,
        stage: "workflow_pb2.UpdateStage.ValueType" = workflow_pb2.UPDATE_STAGE_COMPLETED,
    ) -> workflow_service_pb2.PollWorkflowUpdateResponse:
        """The same of one that was asked for before."""
        return await self.workflows.PollWorkflowUpdate(
            workflow_service_pb2.PollWorkflowUpdateRequest(
                namespace=self.namespace,
                workflow_execution=run,
                update_id=update_id,
                wait_stage=stage,
                wait_timeout=seconds(wait),
            ),
            timeout=wait + 10,
            wait_for_ready=True,
        )

    async def cancel(self, run: common_pb2.WorkflowExecution, **fields: Any) -> None:
        fields.setdefault("request_id", str(uuid.uuid4()))
        await self.workflows.CancelWorkflow(
            workflow_service_pb2.CancelWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, **fields
            ),
            timeout=_CALL_TIMEOUT,
        )

    async def terminate(self, run: common_pb2.WorkflowExecution, **fields: Any) -> None:
        fields.setdefault("request_id", str(uuid.uuid4()))
        await self.workflows.TerminateWorkflow(
            workflow_service_pb2.TerminateWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, **fields
            ),
            timeout=_CALL_TIMEOUT,
        )

    async def pause(self, run: common_pb2.WorkflowExecution, **fields: Any) -> None:
        fields.setdefault("request_id", str(uuid.uuid4()))
        await self.workflows.PauseWorkflow(
            workflow_service_pb2.PauseWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, **fields
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def unpause(self, run: common_pb2.WorkflowExecution, **fields: Any) -> None:
        fields.setdefault("request_id", str(uuid.uuid4()))
        await self.workflows.UnpauseWorkflow(
            workflow_service_pb2.UnpauseWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, **fields
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def change_activity(
        self, verb: str, run: common_pb2.WorkflowExecution, activity_id: str = "a", **fields: Any
    ) -> Any:
        """`PauseActivity` and its kind."""
        fields.setdefault("request_id", str(uuid.uuid4()))
        request = getattr(workflow_service_pb2, f"{verb}Request")(
            namespace=self.namespace,
            workflow_execution=run,
            activity_id=activity_id,
            **fields,
        )
        call = getattr(self.workflows, verb)
        return await call(request, timeout=_CALL_TIMEOUT, wait_for_ready=True)

    async def reset(
        self, run: common_pb2.WorkflowExecution, **fields: Any
    ) -> common_pb2.WorkflowExecution:
        """To the point in `fields`; the last workflow task without one. The new run."""
        fields.setdefault("request_id", str(uuid.uuid4()))
        fields.setdefault("point", {"workflow_task": workflow_service_pb2.WORKFLOW_TASK_POINT_LAST})
        made = await self.workflows.ResetWorkflow(
            workflow_service_pb2.ResetWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, **fields
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )
        return common_pb2.WorkflowExecution(workflow_id=run.workflow_id, run_id=made.run_id)

    async def fork(
        self, run: common_pb2.WorkflowExecution, workflow_id: str = "", **fields: Any
    ) -> common_pb2.WorkflowExecution:
        """From the point in `fields`; the last workflow task without one. The new run."""
        workflow_id = workflow_id or f"f-{uuid.uuid4()}"
        fields.setdefault("request_id", str(uuid.uuid4()))
        fields.setdefault("point", {"workflow_task": workflow_service_pb2.WORKFLOW_TASK_POINT_LAST})
        made = await self.workflows.ForkWorkflow(
            workflow_service_pb2.ForkWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, workflow_id=workflow_id, **fields
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )
        return common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=made.run_id)

    async def query(
        self, run: common_pb2.WorkflowExecution, name: str = "query", **fields: Any
    ) -> str:
        """The answer's text."""
        response = await self.workflows.QueryWorkflow(
            workflow_service_pb2.QueryWorkflowRequest(
                namespace=self.namespace, workflow_execution=run, query_type=name, **fields
            ),
            timeout=_CALL_TIMEOUT,
        )
        return text_of(response.query_result)

    async def pin(self, run: common_pb2.WorkflowExecution, build_id: str, **fields: Any) -> str:
        """Pin a run to a build, or to none; the build that holds then."""
        fields.setdefault("request_id", str(uuid.uuid4()))
        response = await self.workflows.UpdateWorkflowOptions(
            workflow_service_pb2.UpdateWorkflowOptionsRequest(
                namespace=self.namespace,
                workflow_execution=run,
                pinned_build_id=build_id,
                **fields,
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )
        return response.pinned_build_id

    async def prefer(self, build_id: str, **fields: Any) -> str:
        """Have the queue's tasks go to a build, or to any; the build that holds then."""
        fields.setdefault("request_id", str(uuid.uuid4()))
        response = await self.operators.UpdateTaskQueue(
            operator_pb2.UpdateTaskQueueRequest(
                namespace=self.namespace,
                task_queue=self.queue,
                default_build_id=build_id,
                **fields,
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )
        return response.default_build_id

    async def describe_queue(
        self,
        task_queue_type: task_queue_pb2.TaskQueueType.ValueType = (
            task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW
        ),
    ) -> operator_pb2.DescribeTaskQueueResponse:
        return await self.operators.DescribeTaskQueue(
            operator_pb2.DescribeTaskQueueRequest(
                namespace=self.namespace, task_queue=self.queue, task_queue_type=task_queue_type
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def describe(
        self, run: common_pb2.WorkflowExecution
    ) -> workflow_service_pb2.DescribeWorkflowResponse:
        return await self.workflows.DescribeWorkflow(
            workflow_service_pb2.DescribeWorkflowRequest(
                namespace=self.namespace, workflow_execution=run
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def result(
        self, run: common_pb2.WorkflowExecution, wait: float = 20.0
    ) -> workflow_service_pb2.WorkflowResult | None:
        """How the run ended; None if it has not, within `wait` seconds."""
        response = await self.workflows.PollWorkflowResult(
            workflow_service_pb2.PollWorkflowResultRequest(
                namespace=self.namespace,
                workflow_execution=run,
                wait_timeout=seconds(wait),
            ),
            timeout=wait + 10,
            wait_for_ready=True,
        )
        return response.result if response.HasField("result") else None

    async def history_page(
        self, run: common_pb2.WorkflowExecution, **fields: Any
    ) -> workflow_service_pb2.GetWorkflowHistoryResponse:
        return await self.workflows.GetWorkflowHistory(
            workflow_service_pb2.GetWorkflowHistoryRequest(
                namespace=self.namespace, workflow_execution=run, **fields
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def history(
        self, run: common_pb2.WorkflowExecution, token: bytes = b"", page_size: int = 0
    ) -> list[history_pb2.HistoryEvent]:
        """All events from a page on, over as many pages as it takes."""
        events: list[history_pb2.HistoryEvent] = []
        while True:
            page = await self.history_page(run, page_token=token, page_size=page_size)
            events += page.history.events
            token = page.next_page_token
            if not token:
                return events

    async def list(self, **filters: Any) -> list[workflow_pb2.WorkflowExecutionInfo]:
        """The first page."""
        return [*(await self.list_page(**filters)).executions]

    async def list_page(
        self, token: bytes = b"", page_size: int = 0, **filters: Any
    ) -> workflow_service_pb2.ListWorkflowsResponse:
        return await self.workflows.ListWorkflows(
            workflow_service_pb2.ListWorkflowsRequest(
                namespace=self.namespace,
                page_size=page_size,
                page_token=token,
                filter=workflow_service_pb2.ListWorkflowsFilter(**filters),
            ),
            timeout=_CALL_TIMEOUT,
        )

    async def namespace_id(self) -> str:
        response = await self.operators.DescribeNamespace(
            operator_pb2.DescribeNamespaceRequest(namespace=self.namespace), timeout=_CALL_TIMEOUT
        )
        return response.namespace_info.namespace_id

    async def create_namespace(self, name: str) -> None:
        await self.operators.CreateNamespace(
            operator_pb2.CreateNamespaceRequest(namespace=name, request_id=str(uuid.uuid4())),
            timeout=_CALL_TIMEOUT,
        )

    # What workers do.

    async def poll_workflow(
        self, wait: float = DEFAULT_POLL_TIMEOUT, sticky: str = "", **fields: Any
    ) -> worker_service_pb2.WorkflowTask:
        """A workflow task. Fails if none comes."""
        tasks = await self.poll_workflows(wait, sticky, **fields)
        assert tasks, f"no workflow task within {wait} s"
        return tasks[0]

    async def poll_workflows(
        self, wait: float, sticky: str = "", max_tasks: int = 1, **fields: Any
    ) -> Sequence[worker_service_pb2.WorkflowTask]:
        """Workflow tasks; empty if none comes."""
        fields.setdefault("identity", "raw")
        response = await self.workers.PollWorkflowTasks(
            worker_service_pb2.PollWorkflowTasksRequest(
                namespace=self.namespace,
                task_queue=self.queue,
                sticky_task_queue=sticky,
                max_tasks=max_tasks,
                poll_timeout=seconds(wait),
                **fields,
            ),
            timeout=wait + 10,
            wait_for_ready=True,
        )
        return response.tasks

    async def poll_activity(
        self, wait: float = DEFAULT_POLL_TIMEOUT, **fields: Any
    ) -> worker_service_pb2.ActivityTask:
        """An activity task. Fails if none comes."""
        response = await self.poll_activities(wait, **fields)
        assert response.tasks, f"no activity task within {wait} s"
        return response.tasks[0]

    async def poll_activities(
        self, wait: float, max_tasks: int = 1, **fields: Any
    ) -> worker_service_pb2.PollActivityTasksResponse:
        fields.setdefault("identity", "raw")
        return await self.workers.PollActivityTasks(
            worker_service_pb2.PollActivityTasksRequest(
                namespace=self.namespace,
                task_queue=self.queue,
                max_tasks=max_tasks,
                poll_timeout=seconds(wait),
                **fields,
            ),
            timeout=wait + 10,
            wait_for_ready=True,
        )

    async def decide(
        self,
        task: worker_service_pb2.WorkflowTask,
        *commands: command_pb2.Command,
        sticky: str = "",
        **fields: Any,
    ) -> worker_service_pb2.RespondWorkflowTaskCompletedResponse:
        """Complete a workflow task."""
        if sticky:
            fields["sticky_attributes"] = {"worker_task_queue": sticky}
        fields.setdefault("identity", "raw")
        return await self.workers.RespondWorkflowTaskCompleted(
            worker_service_pb2.RespondWorkflowTaskCompletedRequest(
                namespace=self.namespace, task_token=task.task_token, commands=commands, **fields
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def fail_decision(
        self, task: worker_service_pb2.WorkflowTask, message: str = "cannot decide"
    ) -> None:
        """Fail a workflow task."""
        await self.workers.RespondWorkflowTaskFailed(
            worker_service_pb2.RespondWorkflowTaskFailedRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                cause=history_pb2.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE,
                failure=failure_pb2.Failure(message=message),
                identity="raw",
            ),
            timeout=_CALL_TIMEOUT,
        )

    async def complete_activity(
        self, task: worker_service_pb2.ActivityTask, result: str = "done", **fields: Any
    ) -> worker_service_pb2.RespondActivityTaskCompletedResponse:
        fields.setdefault("identity", "raw")
        return await self.workers.RespondActivityTaskCompleted(
            worker_service_pb2.RespondActivityTaskCompletedRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                result=payloads(result),
                **fields,
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )

    async def fail_activity(
        self, task: worker_service_pb2.ActivityTask, message: str = "oops", **info: Any
    ) -> None:
        await self.workers.RespondActivityTaskFailed(
            worker_service_pb2.RespondActivityTaskFailedRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                failure=application_failure(message, **info),
                identity="raw",
            ),
            timeout=_CALL_TIMEOUT,
        )

    async def cancel_activity(self, task: worker_service_pb2.ActivityTask) -> None:
        """Say that it did as it was asked."""
        await self.workers.RespondActivityTaskCancelled(
            worker_service_pb2.RespondActivityTaskCancelledRequest(
                namespace=self.namespace, task_token=task.task_token, identity="raw"
            ),
            timeout=_CALL_TIMEOUT,
        )

    async def heartbeat(self, task: worker_service_pb2.ActivityTask, details: str = "") -> bool:
        """Whether the activity should cancel."""
        response = await self.workers.RecordActivityTaskHeartbeat(
            worker_service_pb2.RecordActivityTaskHeartbeatRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                details=payloads(details) if details else None,
                identity="raw",
            ),
            timeout=_CALL_TIMEOUT,
            wait_for_ready=True,
        )
        return response.cancel_requested

    async def answer_query(
        self, task: worker_service_pb2.WorkflowTask, result: worker_service_pb2.WorkflowQueryResult
    ) -> None:
        await self.workers.RespondQueryTaskCompleted(
            worker_service_pb2.RespondQueryTaskCompletedRequest(
                namespace=self.namespace,
                task_token=task.task_token,
                result=result,
                identity="raw",
            ),
            timeout=_CALL_TIMEOUT,
        )


@asynccontextmanager
async def raw(address: str, **options: Any) -> AsyncGenerator[Raw]:
    """A connection, for as long as the block."""
    async with Raw(address, **options) as connection:
        yield connection


def seconds(value: float) -> duration_pb2.Duration:
    """A duration."""
    duration = duration_pb2.Duration()
    duration.FromTimedelta(timedelta(seconds=value))
    return duration


def payloads(text: str) -> common_pb2.Payloads:
    """One value."""
    return common_pb2.Payloads(payloads=[common_pb2.Payload(data=text.encode())])


def text_of(value: common_pb2.Payloads) -> str:
    """The first value."""
    return value.payloads[0].data.decode() if value.payloads else ""


def application_failure(message: str = "oops", **info: Any) -> failure_pb2.Failure:
    """An error that user code raised."""
    info.setdefault("type", "Oops")
    return failure_pb2.Failure(
        message=message, application_failure_info=failure_pb2.ApplicationFailureInfo(**info)
    )


def query_answer(text: str) -> worker_service_pb2.WorkflowQueryResult:
    """An answer to a query."""
    return worker_service_pb2.WorkflowQueryResult(
        result_type=worker_service_pb2.QUERY_RESULT_TYPE_ANSWERED, answer=payloads(text)
    )


def query_failure(message: str) -> worker_service_pb2.WorkflowQueryResult:
    """What a worker says that cannot answer."""
    return worker_service_pb2.WorkflowQueryResult(
        result_type=worker_service_pb2.QUERY_RESULT_TYPE_FAILED, error_message=message
    )


# Commands.


def schedule_activity(activity_id: str = "a", **attributes: Any) -> command_pb2.Command:
    """start_to_close_timeout is a minute where no timeout is given."""
    if not attributes.keys() & {"schedule_to_close_timeout", "start_to_close_timeout"}:
        attributes["start_to_close_timeout"] = seconds(60)
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
        schedule_activity_task_command_attributes=(
            command_pb2.ScheduleActivityTaskCommandAttributes(
                activity_id=activity_id,
                activity_type=common_pb2.ActivityType(name="Act"),
                **attributes,
            )
        ),
    )


def cancel_activity(scheduled_event_id: int) -> command_pb2.Command:
    """Ask an activity to cancel."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK,
        request_cancel_activity_task_command_attributes=(
            command_pb2.RequestCancelActivityTaskCommandAttributes(
                scheduled_event_id=scheduled_event_id
            )
        ),
    )


def start_timer(timer_id: str, delay: float) -> command_pb2.Command:
    """A timer."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_START_TIMER,
        start_timer_command_attributes=command_pb2.StartTimerCommandAttributes(
            timer_id=timer_id, start_to_fire_timeout=seconds(delay)
        ),
    )


def cancel_timer(timer_id: str) -> command_pb2.Command:
    """Stop a timer."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_CANCEL_TIMER,
        cancel_timer_command_attributes=command_pb2.CancelTimerCommandAttributes(timer_id=timer_id),
    )


def complete_workflow(result: str = "result") -> command_pb2.Command:
    """End the run well."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=(
            command_pb2.CompleteWorkflowExecutionCommandAttributes(result=payloads(result))
        ),
    )


def start_child(workflow_id: str, **attributes: Any) -> command_pb2.Command:
    """The command, for a child of type Child."""
    given = command_pb2.StartChildWorkflowExecutionCommandAttributes(
        workflow_id=workflow_id, workflow_type=common_pb2.WorkflowType(name="Child"), **attributes
    )
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION,
        start_child_workflow_execution_command_attributes=given,
    )


def signal_run(workflow_id: str, run_id: str = "", **attributes: Any) -> command_pb2.Command:
    """The command that signals another run."""
    given = command_pb2.SignalExternalWorkflowExecutionCommandAttributes(
        workflow_execution=common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        signal_name="hello",
        **attributes,
    )
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION,
        signal_external_workflow_execution_command_attributes=given,
    )


def cancel_run(workflow_id: str, run_id: str = "", **attributes: Any) -> command_pb2.Command:
    """The command that asks another run to cancel."""
    given = command_pb2.RequestCancelExternalWorkflowExecutionCommandAttributes(
        workflow_execution=common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
        **attributes,
    )
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION,
        request_cancel_external_workflow_execution_command_attributes=given,
    )


def record_marker(name: str) -> command_pb2.Command:
    """An event that changes nothing."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_RECORD_MARKER,
        record_marker_command_attributes=command_pb2.RecordMarkerCommandAttributes(
            marker_name=name
        ),
    )


# What came back.


def types(events: Sequence[history_pb2.HistoryEvent]) -> list[str]:
    """The events' types, for people."""
    return [
        history_pb2.EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in events
    ]


def ids(events: Sequence[history_pb2.HistoryEvent]) -> list[int]:
    """The events' ids."""
    return [event.event_id for event in events]


def code_of(error: grpc.aio.AioRpcError) -> grpc.StatusCode:
    """The error's code."""
    return error.code()


def detail_of(error: grpc.aio.AioRpcError, name: str) -> Any:
    """The error's typed detail, a message of error_details.proto."""
    status = rpc_status.from_call(cast("Any", error))
    assert status is not None, "the error has no detail"
    (packed,) = status.details
    detail = getattr(error_details_pb2, name)()
    assert packed.Unpack(detail), f"the detail is a {packed.type_url}"
    return detail
