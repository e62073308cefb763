# ruff: noqa: N802 - gRPC names the methods
"""WorkerService: what workers call."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aetheris.api.v1 import worker_service_pb2 as pb
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceServicer
from aetheris.server.v1.matching_service_pb2 import ShutdownWorkerRequest
from aetheris_server.config import Settings
from aetheris_server.frontend.answers import TaskAnswers
from aetheris_server.frontend.checks import worker as checks
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.frontend.waits import SLACK_SECONDS, bounded_wait, set_seconds, to_seconds
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import CallContext
from aetheris_server.rpc.peers import HistoryPeer, MatchingPeer
from aetheris_server.rpc.tokens import Tokens

__all__ = ["WorkerServicer"]

T = TypeVar("T")


class WorkerServicer(WorkerServiceServicer):
    """Checks, finds the namespace; polls go to matching, answers to history."""

    def __init__(
        self,
        history: HistoryPeer,
        matching: MatchingPeer,
        namespaces: NamespaceDirectory,
        gate: DrainGate,
        settings: Settings,
        tokens: Tokens,
    ) -> None:
        self._matching = matching
        self._namespaces = namespaces
        self._gate = gate
        self._limits = settings.limits
        self._poll_timeout = settings.matching.poll_timeout
        self._answers = TaskAnswers(history, settings.limits, tokens)

    async def PollWorkflowTasks(
        self, request: pb.PollWorkflowTasksRequest, context: CallContext
    ) -> pb.PollWorkflowTasksResponse:
        checks.check_poll_workflow_tasks(request, self._limits)
        namespace_id = await self._namespaces.id_of(request.namespace)
        wait = self._bound_poll(request, context)
        tasks = await self._wait(self._matching.poll_workflow_tasks(namespace_id, request), wait)
        return tasks if tasks is not None else pb.PollWorkflowTasksResponse()

    async def PollActivityTasks(
        self, request: pb.PollActivityTasksRequest, context: CallContext
    ) -> pb.PollActivityTasksResponse:
        checks.check_poll_activity_tasks(request, self._limits)
        namespace_id = await self._namespaces.id_of(request.namespace)
        wait = self._bound_poll(request, context)
        tasks = await self._wait(self._matching.poll_activity_tasks(namespace_id, request), wait)
        return tasks if tasks is not None else pb.PollActivityTasksResponse()

    async def RespondWorkflowTaskCompleted(
        self, request: pb.RespondWorkflowTaskCompletedRequest, context: CallContext
    ) -> pb.RespondWorkflowTaskCompletedResponse:
        return await self._take("workflow_task_completed", request)

    async def RespondWorkflowTaskFailed(
        self, request: pb.RespondWorkflowTaskFailedRequest, context: CallContext
    ) -> pb.RespondWorkflowTaskFailedResponse:
        return await self._take("workflow_task_failed", request)

    async def RespondQueryTaskCompleted(
        self, request: pb.RespondQueryTaskCompletedRequest, context: CallContext
    ) -> pb.RespondQueryTaskCompletedResponse:
        return await self._take("query_task_completed", request)

    async def RespondActivityTaskCompleted(
        self, request: pb.RespondActivityTaskCompletedRequest, context: CallContext
    ) -> pb.RespondActivityTaskCompletedResponse:
        return await self._take("activity_task_completed", request)

    async def RespondActivityTaskFailed(
        self, request: pb.RespondActivityTaskFailedRequest, context: CallContext
    ) -> pb.RespondActivityTaskFailedResponse:
        return await self._take("activity_task_failed", request)

    async def RespondActivityTaskCancelled(
        self, request: pb.RespondActivityTaskCancelledRequest, context: CallContext
    ) -> pb.RespondActivityTaskCancelledResponse:
        return await self._take("activity_task_cancelled", request)

    async def RecordActivityTaskHeartbeat(
        self, request: pb.RecordActivityTaskHeartbeatRequest, context: CallContext
    ) -> pb.RecordActivityTaskHeartbeatResponse:
        return await self._take("activity_task_heartbeat", request)

    async def RespondTasks(
        self, request: pb.RespondTasksRequest, context: CallContext
    ) -> pb.RespondTasksResponse:
        checks.check_respond_tasks(request)
        namespace_id = await self._namespaces.id_of(request.namespace)
        results = await self._answers.take_all(request.namespace, namespace_id, request.answers)
        return pb.RespondTasksResponse(results=results)

    async def ShutdownWorker(
        self, request: pb.ShutdownWorkerRequest, context: CallContext
    ) -> pb.ShutdownWorkerResponse:
        checks.check_shutdown_worker(request, self._limits)
        namespace_id = await self._namespaces.id_of(request.namespace)
        await asyncio.gather(
            *(
                self._matching.shutdown_worker(
                    ShutdownWorkerRequest(
                        namespace_id=namespace_id, task_queue_type=side, request=request
                    )
                )
                for side in (TASK_QUEUE_TYPE_WORKFLOW, TASK_QUEUE_TYPE_ACTIVITY)
            )
        )
        return pb.ShutdownWorkerResponse()

    async def _take(self, kind: str, request: Any) -> Any:
        namespace_id = await self._namespaces.id_of(request.namespace)
        return await self._answers.take(kind, namespace_id, request)

    async def _wait(self, poll: Coroutine[Any, Any, T], wait: float) -> T | None:
        # Matching answers empty in time by itself; the gate is for draining.
        return await self._gate.run(poll, wait + SLACK_SECONDS)

    def _bound_poll(
        self,
        request: pb.PollWorkflowTasksRequest | pb.PollActivityTasksRequest,
        context: CallContext,
    ) -> float:
        """Write what is really waited and taken into the request; returns the seconds."""
        asked = (
            to_seconds(request.poll_timeout)
            if request.HasField("poll_timeout")
            else self._poll_timeout
        )
        wait = bounded_wait(asked, self._poll_timeout, context)
        set_seconds(request.poll_timeout, wait)
        request.max_tasks = min(request.max_tasks or 1, self._limits.poll_max_tasks)
        return wait
