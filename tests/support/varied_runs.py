"""Runs of every kind that a row in `executions` can tell of, on a history of a test's own."""

import uuid
from typing import Any

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    task_queue_pb2,
    worker_service_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris.server.v1 import matching_service_pb2
from tests.support.history_host import NAMESPACE_ID, HistoryBench, signal_request, start_request
from tests.support.raw import (
    application_failure,
    complete_workflow,
    payloads,
    record_marker,
    schedule_activity,
    seconds,
    start_timer,
)
from tests.support.runs import cancel_workflow, fail_workflow
from tests.support.wait import wait_until

_WORKFLOW = task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW
_ACTIVITY = task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY
_QUEUE = task_queue_pb2.TaskQueue(name="queue")
_TERMINATE = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING


class VariedRuns:
    """What makes them. Each of its runs has the workflow id that its method names."""

    def __init__(self, bench: HistoryBench) -> None:
        self._bench = bench

    async def make_all(self) -> int:
        """One or more of each kind; how many runs that is."""
        await self.start("completed")
        await self.decide("completed", record_marker("m"), self._activity("a"))
        await self.signal("completed")
        await self._fail_activity("completed")
        self._bench.advance(1)
        await self._complete_activity("completed")
        await self.decide("completed", complete_workflow())

        await self.start("failed")
        await self.decide("failed", fail_workflow(application_failure()))

        await self.start("cancelled")
        cancel = workflow_service_pb2.CancelWorkflowRequest(request_id=str(uuid.uuid4()))
        cancel.workflow_execution.workflow_id = "cancelled"
        await self._bench.service.cancel_workflow(NAMESPACE_ID, cancel)
        await self.decide("cancelled", cancel_workflow())

        await self.start("terminated")
        terminate = workflow_service_pb2.TerminateWorkflowRequest(request_id=str(uuid.uuid4()))
        terminate.workflow_execution.workflow_id = "terminated"
        await self._bench.service.terminate_workflow(NAMESPACE_ID, terminate)

        await self.start("paused")
        await self.pause("paused")
        await self.start("unpaused")
        await self.pause("unpaused")
        await self.unpause("unpaused")
        await self.start("paused-and-terminated")
        await self.pause("paused-and-terminated")
        terminate.workflow_execution.workflow_id = "paused-and-terminated"
        await self._bench.service.terminate_workflow(NAMESPACE_ID, terminate)

        await self.start("timed-out", workflow_run_timeout=seconds(5))
        await self.decide("timed-out", start_timer("t", 60))
        self._bench.advance(6)

        await self.start("replaced")
        await self.start("replaced", workflow_id_conflict_policy=_TERMINATE)
        await self.start("replaced", workflow_id_conflict_policy=_TERMINATE)

        for _ in range(2):
            await self.start("repeated")
            await self.decide("repeated", complete_workflow())
        await self.start("repeated")

        await self.start("delayed", start_delay=seconds(3_600))
        await self.start("signalled")
        await self.decide("signalled", start_timer("late", 900), start_timer("early", 60))
        for _ in range(5):
            await self.signal("signalled")
        await self.start("backs-off", memo=_MEMO, search_attributes=_ATTRIBUTES)
        await self.decide("backs-off", self._activity("a"))
        await self._fail_activity("backs-off", next_retry_delay=seconds(600))
        await self.start("has-worker")
        await self.decide("has-worker", self._activity("a", schedule_to_start_timeout=seconds(20)))
        await self._start_activity("has-worker")
        await self.start("snapshots")
        for _ in range(40):
            await self.signal("snapshots")
        await self.start("only-started")
        return 5 + 3 + 3 + 3 + 6

    async def start(self, workflow_id: str, **fields: Any) -> None:
        await self._bench.service.start_workflow(NAMESPACE_ID, start_request(workflow_id, **fields))

    async def pause(self, workflow_id: str) -> None:
        request = workflow_service_pb2.PauseWorkflowRequest(request_id=str(uuid.uuid4()))
        request.workflow_execution.workflow_id = workflow_id
        await self._bench.service.pause_workflow(NAMESPACE_ID, request)

    async def unpause(self, workflow_id: str) -> None:
        request = workflow_service_pb2.UnpauseWorkflowRequest(request_id=str(uuid.uuid4()))
        request.workflow_execution.workflow_id = workflow_id
        await self._bench.service.unpause_workflow(NAMESPACE_ID, request)

    async def signal(self, workflow_id: str) -> None:
        request = signal_request(workflow_id, input=payloads("x" * 100))
        await self._bench.service.signal_workflow(NAMESPACE_ID, request)

    async def decide(self, workflow_id: str, *commands: command_pb2.Command) -> None:
        ref = await self._ref(workflow_id, _WORKFLOW)
        task = (await self._bench.start_task(ref)).workflow_task
        request = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            task_token=task.task_token, commands=commands
        )
        await self._bench.service.respond_workflow_task_completed(NAMESPACE_ID, request)

    def _activity(self, activity_id: str, **attributes: Any) -> command_pb2.Command:
        return schedule_activity(activity_id, task_queue=_QUEUE, **attributes)

    async def _start_activity(self, workflow_id: str) -> bytes:
        ref = await self._ref(workflow_id, _ACTIVITY)
        return (await self._bench.start_task(ref)).activity_task.task_token

    async def _fail_activity(self, workflow_id: str, **info: Any) -> None:
        request = worker_service_pb2.RespondActivityTaskFailedRequest(
            task_token=await self._start_activity(workflow_id),
            failure=application_failure(**info),
        )
        await self._bench.service.respond_activity_task_failed(NAMESPACE_ID, request)

    async def _complete_activity(self, workflow_id: str) -> None:
        request = worker_service_pb2.RespondActivityTaskCompletedRequest(
            task_token=await self._start_activity(workflow_id), result=payloads("42")
        )
        await self._bench.service.respond_activity_task_completed(NAMESPACE_ID, request)

    async def _ref(
        self, workflow_id: str, task_queue_type: "task_queue_pb2.TaskQueueType.ValueType"
    ) -> matching_service_pb2.TaskRef:
        def found() -> list[matching_service_pb2.TaskRef]:
            refs = self._bench.refs_of(task_queue_type)
            return [ref for ref in refs if ref.workflow_id == workflow_id]

        # The newest: recovery may have offered an older one again.
        ref = (await wait_until(found))[-1]
        self._bench.matching.refs.remove(ref)
        return ref


_MEMO = common_pb2.Memo(fields={"note": common_pb2.Payload(data=b"\x00\xff")})
_ATTRIBUTES = common_pb2.SearchAttributes(
    indexed_fields={
        "city": common_pb2.Payload(
            metadata={"encoding": b"json/plain", "type": b"Keyword"}, data='"Örebro"'.encode()
        )
    }
)
