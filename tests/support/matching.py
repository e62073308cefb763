"""What history offers to matching, and what workers poll it with."""

from datetime import UTC, datetime, timedelta

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.api.v1.worker_service_pb2 import (
    PollActivityTasksRequest,
    PollWorkflowTasksRequest,
)
from aetheris.server.v1.matching_service_pb2 import TaskRef

NAMESPACE_ID = "11111111-1111-1111-1111-111111111111"


def activity_ref(
    run_id: str,
    *capabilities: str,
    task_queue: str = "q",
    age: float = 0.0,
) -> TaskRef:
    ref = TaskRef(
        namespace_id=NAMESPACE_ID,
        workflow_id="w",
        run_id=run_id,
        task_queue_type=TASK_QUEUE_TYPE_ACTIVITY,
        task_queue=task_queue,
        scheduled_event_id=5,
        attempt=1,
        capabilities=sorted(capabilities),
    )
    ref.scheduled_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=age))
    return ref


def workflow_ref(
    run_id: str,
    *,
    sticky_task_queue: str = "",
    sticky_timeout: float = 10.0,
    query_id: str = "",
    expire_in: float = 10.0,
) -> TaskRef:
    ref = activity_ref(run_id)
    ref.task_queue_type = TASK_QUEUE_TYPE_WORKFLOW
    if sticky_task_queue:
        ref.sticky_task_queue = sticky_task_queue
        ref.sticky_timeout.FromTimedelta(timedelta(seconds=sticky_timeout))
    if query_id:
        ref.query_id = query_id
        ref.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=expire_in))
    return ref


def activity_poll(
    *capabilities: str,
    task_queue: str = "q",
    max_tasks: int = 1,
    worker: str = "worker",
    poll_timeout: float = 10.0,
    number: int = 0,
    received_number: int = 0,
) -> PollActivityTasksRequest:
    request = PollActivityTasksRequest(
        poll_number=number,
        received_poll_number=received_number,
        task_queue=task_queue,
        max_tasks=max_tasks,
        capabilities=capabilities,
        identity=worker,
        worker_instance_id=worker,
    )
    request.poll_timeout.FromTimedelta(timedelta(seconds=poll_timeout))
    return request


def workflow_poll(
    *, sticky_task_queue: str = "", max_tasks: int = 1, poll_timeout: float = 10.0
) -> PollWorkflowTasksRequest:
    request = PollWorkflowTasksRequest(
        task_queue="q",
        sticky_task_queue=sticky_task_queue,
        max_tasks=max_tasks,
        identity=f"worker of {sticky_task_queue or 'all'}",
        worker_instance_id=sticky_task_queue or "worker",
    )
    request.poll_timeout.FromTimedelta(timedelta(seconds=poll_timeout))
    return request
