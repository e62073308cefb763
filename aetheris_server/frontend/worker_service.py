# ruff: noqa: N802 - gRPC names the methods
"""WorkerService: what workers call."""

import asyncio

from aetheris.api.v1 import worker_service_pb2 as pb
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.server.v1 import matching_service_pb2 as matching
from aetheris_server.config import Settings
from aetheris_server.frontend.answers import AnsweringServicer, TaskAnswers, taken
from aetheris_server.frontend.checks import worker as checks
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.frontend.waits import SLACK_SECONDS, bounded_wait, set_seconds, to_seconds
from aetheris_server.rpc import table
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import CallContext
from aetheris_server.rpc.peers import HistoryPeer, MatchingPeer
from aetheris_server.rpc.tokens import Tokens

__all__ = ["WorkerServicer"]


class WorkerServicer(AnsweringServicer):
    """Checks, finds the namespace; polls go to matching, answers to history."""

    RespondWorkflowTaskCompleted = taken(table.RESPOND_WORKFLOW_TASK_COMPLETED)
    RespondWorkflowTaskFailed = taken(table.RESPOND_WORKFLOW_TASK_FAILED)
    RespondQueryTaskCompleted = taken(table.RESPOND_QUERY_TASK_COMPLETED)
    RespondActivityTaskCompleted = taken(table.RESPOND_ACTIVITY_TASK_COMPLETED)
    RespondActivityTaskFailed = taken(table.RESPOND_ACTIVITY_TASK_FAILED)
    RespondActivityTaskCancelled = taken(table.RESPOND_ACTIVITY_TASK_CANCELLED)
    RecordActivityTaskHeartbeat = taken(table.RECORD_ACTIVITY_TASK_HEARTBEAT)

    def __init__(
        self,
        history: HistoryPeer,
        matching: MatchingPeer,
        namespaces: NamespaceDirectory,
        gate: DrainGate,
        settings: Settings,
        tokens: Tokens,
    ) -> None:
        super().__init__(namespaces, TaskAnswers(history, tokens))
        self._matching = matching
        self._gate = gate
        self._limits = settings.limits
        self._poll_timeout = settings.matching.poll_timeout

    async def PollWorkflowTasks(
        self, request: pb.PollWorkflowTasksRequest, context: CallContext
    ) -> pb.PollWorkflowTasksResponse:
        checks.check_poll_workflow_tasks(request, self._limits)
        namespace_id = await self.namespaces.id_of(request.namespace)
        wait = self._bound_poll(request, context)
        poll = matching.PollWorkflowTasksRequest(namespace_id=namespace_id, request=request)
        # Matching answers empty in time by itself; the gate is for draining.
        answer = await self._gate.run(
            self._matching.call(table.POLL_WORKFLOW_TASKS, poll), wait + SLACK_SECONDS
        )
        return answer.response if answer is not None else pb.PollWorkflowTasksResponse()

    async def PollActivityTasks(
        self, request: pb.PollActivityTasksRequest, context: CallContext
    ) -> pb.PollActivityTasksResponse:
        checks.check_poll_activity_tasks(request, self._limits)
        namespace_id = await self.namespaces.id_of(request.namespace)
        wait = self._bound_poll(request, context)
        poll = matching.PollActivityTasksRequest(namespace_id=namespace_id, request=request)
        answer = await self._gate.run(
            self._matching.call(table.POLL_ACTIVITY_TASKS, poll), wait + SLACK_SECONDS
        )
        return answer.response if answer is not None else pb.PollActivityTasksResponse()

    async def RespondTasks(
        self, request: pb.RespondTasksRequest, context: CallContext
    ) -> pb.RespondTasksResponse:
        checks.check_respond_tasks(request)
        namespace_id = await self.namespaces.id_of(request.namespace)
        limits = self.namespaces.limits_of(request.namespace)
        results = await self.answers.take_all(
            request.namespace, namespace_id, request.answers, limits
        )
        return pb.RespondTasksResponse(results=results)

    async def ShutdownWorker(
        self, request: pb.ShutdownWorkerRequest, context: CallContext
    ) -> pb.ShutdownWorkerResponse:
        checks.check_shutdown_worker(request, self._limits)
        namespace_id = await self.namespaces.id_of(request.namespace)
        await asyncio.gather(
            *(
                self._matching.call(
                    table.SHUTDOWN_WORKER,
                    matching.ShutdownWorkerRequest(
                        namespace_id=namespace_id, task_queue_type=side, request=request
                    ),
                )
                for side in (TASK_QUEUE_TYPE_WORKFLOW, TASK_QUEUE_TYPE_ACTIVITY)
            )
        )
        return pb.ShutdownWorkerResponse()

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
