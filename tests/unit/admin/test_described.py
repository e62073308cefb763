"""What `workflow describe` shows beside the server's description."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import operator_service_pb2 as operator
from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1 import workflow_service_pb2 as service
from aetheris_client import DataConverter
from tests.support.canned_server import CannedServer, Refusal
from tests.unit.admin.conftest import Run, make

CONVERTER = DataConverter.default()
NOW = datetime.now(UTC)


def running(**pending: Any) -> service.DescribeWorkflowResponse:
    info = {
        "execution": {"workflow_id": "w", "run_id": "r"},
        "task_queue": "hello",
        "status": workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING,
    }
    return make(service.DescribeWorkflowResponse, workflow_execution_info=info, **pending)


def closed(status: int) -> service.DescribeWorkflowResponse:
    info = {
        "execution": {"workflow_id": "w", "run_id": "r"},
        "status": status,
        "close_time": NOW,
    }
    return make(service.DescribeWorkflowResponse, workflow_execution_info=info)


def result(status: int, **outcome: Any) -> service.PollWorkflowResultResponse:
    return make(
        service.PollWorkflowResultResponse, run_id="r", result={"status": status, **outcome}
    )


def pollers(*found: dict[str, Any]) -> operator.DescribeTaskQueueResponse:
    return make(operator.DescribeTaskQueueResponse, pollers=found)


def test_describe_of_a_completed_run_shows_its_result(server: CannedServer, run: Run):
    status = workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED
    server.on("DescribeWorkflow", closed(status))
    server.on("PollWorkflowResult", result(status, result=CONVERTER.to_payloads([{"n": 1}])))
    assert 'Result             {"n":1}' in run("workflow", "describe", "w").stdout.splitlines()
    document = json.loads(run("workflow", "describe", "w", "-o", "json").stdout)
    assert (document["result"], document["failure"]) == ({"n": 1}, None)


def test_describe_of_a_failed_run_shows_its_failure_and_the_causes(server: CannedServer, run: Run):
    status = workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED
    failure = {
        "message": "activity failed",
        "activity_failure_info": {},
        "cause": {"message": "no money", "application_failure_info": {"type": "Broke"}},
    }
    server.on("DescribeWorkflow", closed(status))
    server.on("PollWorkflowResult", result(status, failure=failure))
    lines = run("workflow", "describe", "w").stdout.splitlines()
    assert lines[-2:] == [
        "Failure            ActivityError: activity failed",
        "… caused by        Broke: no money",
    ]
    document = json.loads(run("workflow", "describe", "w", "-o", "json").stdout)
    assert document["failure"]["cause"]["message"] == "no money"


def test_describe_of_a_continued_run_names_the_next(server: CannedServer, run: Run):
    status = workflow_pb2.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
    server.on("DescribeWorkflow", closed(status))
    server.on("PollWorkflowResult", result(status, new_execution_run_id="r2"))
    assert "Goes on as run     r2" in run("workflow", "describe", "w").stdout.splitlines()


def test_describe_shows_heartbeats_attempts_and_the_next_retry(server: CannedServer, run: Run):
    activity = {
        "activity_id": "7",
        "state": workflow_pb2.PENDING_ACTIVITY_STATE_SCHEDULED,
        "task_queue": "hello",
        "attempt": 2,
        "heartbeat_details": CONVERTER.to_payloads([{"page": 40}]),
        "next_attempt_time": datetime(2026, 1, 2, tzinfo=UTC),
        "last_failure": {"message": "it broke"},
    }
    server.on("DescribeWorkflow", running(pending_activities=[activity]))
    server.on("DescribeTaskQueue", pollers({"identity": "me", "waiting_poll_count": 1}))
    text = run("workflow", "describe", "w").stdout
    for part in ('{"page":40}', "2026-01-02 00:00:00Z", "it broke"):
        assert part in text
    assert "warning" not in text


@pytest.mark.parametrize(
    "poller,words",
    [
        (None, "no worker polls 'hello' for workflow tasks"),
        ({"last_access_time": NOW - timedelta(seconds=1)}, "has stopped or is busy (last poll"),
    ],
)
def test_describe_of_a_run_that_no_worker_polls_for_says_so(
    server: CannedServer, run: Run, poller: dict[str, Any] | None, words: str
):
    task = {"state": workflow_pb2.PENDING_WORKFLOW_TASK_STATE_SCHEDULED, "attempt": 1}
    server.on("DescribeWorkflow", running(pending_workflow_task=task))
    server.on("DescribeTaskQueue", pollers(*([poller] if poller else [])))
    assert words in run("workflow", "describe", "w").stdout
    document = json.loads(run("workflow", "describe", "w", "-o", "json").stdout)
    assert words in document["warnings"][0]


def test_describe_of_a_run_that_waits_for_no_task_trusts_a_poll_of_late(
    server: CannedServer, run: Run
):
    server.on("DescribeWorkflow", running())
    just_now = datetime.now(UTC) - timedelta(seconds=1)
    server.on("DescribeTaskQueue", pollers({"last_access_time": just_now}))
    assert "warning" not in run("workflow", "describe", "w").stdout
    server.on("DescribeTaskQueue", pollers({"last_access_time": NOW - timedelta(minutes=3)}))
    assert "warning" in run("workflow", "describe", "w").stdout


def test_describe_of_an_activity_that_no_worker_is_able_to_do_says_so(
    server: CannedServer, run: Run
):
    activity = {
        "state": workflow_pb2.PENDING_ACTIVITY_STATE_SCHEDULED,
        "task_queue": "hello",
        "capabilities": ["gpu"],
    }
    server.on("DescribeWorkflow", running(pending_activities=[activity]))
    server.on("DescribeTaskQueue", pollers({"waiting_poll_count": 1, "capabilities": ["llm"]}))
    assert "no worker with capabilities gpu polls 'hello' for activity tasks" in (
        run("workflow", "describe", "w").stdout
    )


def test_describe_without_an_answer_about_the_queue_shows_the_rest(server: CannedServer, run: Run):
    server.on("DescribeWorkflow", running())
    server.on("DescribeTaskQueue", Refusal(grpc.StatusCode.INTERNAL, "oops"))
    done = run("workflow", "describe", "w")
    assert done.exit_code == 0
    assert "RUNNING" in done.stdout
    assert "could not say more: oops" in done.stdout
