"""Every RPC of the public API, and for each a request that is right."""

from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from aetheris.api.v1 import operator_service_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from tests.support.messages import RUN_ID
from tests.support.peers import NAMESPACE_ID
from tests.support.secrets import TOKENS

METHODS: list[MethodDescriptor] = [
    method
    for file, name in (
        (workflow_service_pb2, "WorkflowService"),
        (worker_service_pb2, "WorkerService"),
        (operator_service_pb2, "OperatorService"),
    )
    for method in file.DESCRIPTOR.services_by_name[name].methods
]


def good_request(method: str) -> Any:
    """A request of the method that passes every check."""
    execution = {"workflow_id": "w", "run_id": RUN_ID}
    token = TOKENS.seal_task(
        TaskToken(namespace_id=NAMESPACE_ID, workflow_id="w", run_id=RUN_ID, attempt=1)
    )
    in_default: dict[str, Any] = {"namespace": "default"}
    of_run = {**in_default, "workflow_execution": execution}
    of_task = {**in_default, "task_token": token}
    poll = {**in_default, "task_queue": "q", "capabilities": ["gpu"]}
    failure = {"message": "m", "application_failure_info": {"type": "t"}}
    fields: dict[str, dict[str, Any]] = {
        "StartWorkflow": {
            **in_default,
            "workflow_id": "w",
            "workflow_type": {"name": "t"},
            "task_queue": {"name": "q"},
            "workflow_task_timeout": {"seconds": 10},
        },
        "SignalWithStartWorkflow": {
            "start": {
                **in_default,
                "workflow_id": "w",
                "workflow_type": {"name": "t"},
                "task_queue": {"name": "q"},
            },
            "signal_name": "s",
        },
        "SignalWorkflow": {**of_run, "signal_name": "s"},
        "QueryWorkflow": {**of_run, "query_type": "q"},
        "UpdateWorkflow": {**of_run, "request": {"name": "u"}, "wait_stage": 3},
        "PollWorkflowUpdate": {**of_run, "update_id": "u1", "wait_stage": 3},
        "UpdateWithStartWorkflow": {
            **in_default,
            "start": {
                "workflow_id": "w",
                "workflow_type": {"name": "t"},
                "task_queue": {"name": "q"},
                "workflow_id_conflict_policy": 2,
            },
            "update": {"request": {"name": "u"}, "wait_stage": 2},
        },
        "CancelWorkflow": of_run,
        "TerminateWorkflow": of_run,
        "PauseWorkflow": of_run,
        "UnpauseWorkflow": of_run,
        "PauseActivity": {**of_run, "activity_id": "a"},
        "UnpauseActivity": {**of_run, "activity_id": "a", "jitter": {"seconds": 1}},
        "ResetActivity": {**of_run, "activity_id": "a"},
        "UpdateActivityOptions": {
            **of_run,
            "activity_id": "a",
            "activity_options": {"heartbeat_timeout": {"seconds": 1}},
            "update_mask": {"paths": ["heartbeat_timeout"]},
        },
        "UpdateWorkflowOptions": {**of_run, "pinned_build_id": "b2"},
        "ResetWorkflow": {**of_run, "point": {"workflow_task": 2}, "reapply_exclude": [1]},
        "ForkWorkflow": {**of_run, "workflow_id": "fork", "point": {"event_id": 4}},
        "DescribeWorkflow": of_run,
        "GetWorkflowHistory": {**of_run, "wait_new_event": True},
        "PollWorkflowResult": {**of_run, "wait_timeout": {"seconds": 1}},
        "ListWorkflows": {**in_default, "filter": {"workflow_id": "w", "statuses": [1]}},
        "PollWorkflowTasks": {**poll, "sticky_task_queue": "s"},
        "PollActivityTasks": poll,
        "RespondWorkflowTaskCompleted": {
            **of_task,
            "commands": [{"command_type": 3, "start_timer_command_attributes": {"timer_id": "t"}}],
        },
        "RespondWorkflowTaskFailed": {**of_task, "cause": 24, "failure": failure},
        "RespondQueryTaskCompleted": {**of_task, "result": {"result_type": 1}},
        "RespondActivityTaskCompleted": {**of_task, "result": {"payloads": [{"data": b"1"}]}},
        "RespondActivityTaskFailed": {**of_task, "failure": failure},
        "RespondActivityTaskCancelled": of_task,
        "RecordActivityTaskHeartbeat": of_task,
        "RespondTasks": {
            **in_default,
            "answers": [
                {"activity_task_completed": {"task_token": token}},
                {"activity_task_heartbeat": {"task_token": b"corrupt!"}},
            ],
        },
        "ShutdownWorker": {**in_default, "task_queue": "q", "worker_instance_id": "i"},
        "CreateNamespace": {"namespace": "another", "request_id": "r"},
        "UpdateNamespace": {**in_default, "limits": {"max_signals": 5}},
        "DescribeNamespace": in_default,
        "ListNamespaces": {"page_size": 1},
        "DescribeTaskQueue": {**in_default, "task_queue": "q", "task_queue_type": 1},
        "UpdateTaskQueue": {**in_default, "task_queue": "q", "default_build_id": "b2"},
        "DescribeCluster": {},
    }
    [input_type] = [found.input_type for found in METHODS if found.name == method]
    return GetMessageClass(input_type)(**fields[method])
