"""The command line, against a server with canned answers."""

import base64
import json
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import error_details_pb2 as details
from aetheris.api.v1 import operator_service_pb2 as operator
from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1 import workflow_service_pb2 as service
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import (
    EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
)
from aetheris_client import DataConverter
from aetheris_client.admin.output import OutputFormat
from aetheris_client.enums import (
    QueryRejectCondition,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
    WorkflowStatus,
)
from tests.support.canned_server import CannedServer, Refusal
from tests.unit.admin.conftest import Run, make


def payloads(*values: object) -> Payloads:
    encoded = DataConverter.default().to_payloads(values)
    assert encoded is not None
    return encoded


def last_request(server: CannedServer) -> Any:
    return server.requests[-1]


# -- workflow: start and steer


def test_start_sends_the_inputs_and_prints_the_ids(server: CannedServer, run: Run):
    server.on("StartWorkflow", service.StartWorkflowResponse(run_id="r1", started=True))
    done = run(
        *["workflow", "start", "census", "--task-queue", "q", "--workflow-id", "w", "-o", "json"],
        *("--input", '{"a": [1]}', "--input", "2", "--run-timeout", "1h30m", "--memo", "who=me"),
        *("--id-conflict-policy", "use_existing", "--namespace", "shop"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"workflow_id": "w", "run_id": "r1", "started": True}
    request = last_request(server)
    assert (request.namespace, request.workflow_type.name) == ("shop", "census")
    assert request.input == payloads({"a": [1]}, 2)
    assert request.workflow_run_timeout.ToTimedelta() == timedelta(hours=1.5)
    assert request.workflow_id_conflict_policy == (
        workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
    )


def test_start_for_people_prints_the_ids(server: CannedServer, run: Run):
    server.on("StartWorkflow", service.StartWorkflowResponse(run_id="r1", started=True))
    done = run("workflow", "start", "census", "-q", "q", "-w", "w")
    assert done.stdout.split() == ["Workflow", "id", "w", "Run", "id", "r1", "Started", "yes"]


def test_start_with_a_retry_policy_sends_it(server: CannedServer, run: Run):
    server.on("StartWorkflow", service.StartWorkflowResponse(run_id="r1", started=True))
    started = ("workflow", "start", "census", "-q", "q")
    done = run(
        *started,
        *("--retry-attempts", "3", "--retry-interval", "5s", "--retry-backoff", "1.5"),
        *("--retry-max-interval", "1m", "--non-retryable", "Fatal", "--non-retryable", "Lost"),
    )
    assert done.exit_code == 0, done.output
    policy = last_request(server).retry_policy
    assert (policy.maximum_attempts, policy.backoff_coefficient) == (3, 1.5)
    assert (policy.initial_interval.seconds, policy.maximum_interval.seconds) == (5, 60)
    assert policy.non_retryable_error_types == ["Fatal", "Lost"]
    server.requests.clear()
    done = run(*started, "--retry-backoff", "0.5")
    assert done.exit_code == 2
    assert "backoff_coefficient: 0.5, expected at least 1" in done.stderr
    assert server.requests == []


def test_start_with_a_signal_sends_both(server: CannedServer, run: Run):
    server.on("SignalWithStartWorkflow", service.SignalWithStartWorkflowResponse(run_id="r1"))
    done = run(
        *["workflow", "start", "census", "-q", "q", "-w", "w", "--start-signal", "go"],
        *["--signal-input", "1", "--signal-input", '"a"'],
    )
    assert done.exit_code == 0, done.output
    assert "no, this run was open already" in done.stdout
    request = last_request(server)
    assert (request.signal_name, request.signal_input) == ("go", payloads(1, "a"))
    assert request.start.workflow_id == "w"
    done = run("workflow", "start", "census", "-q", "q", "--signal-input", "{")
    assert "--signal-input" in done.stderr


def test_start_with_bad_json_names_the_option_and_exits_2(server: CannedServer, run: Run):
    done = run("workflow", "start", "census", "-q", "q", "--input", "{")
    assert done.exit_code == 2
    assert "--input" in done.stderr
    assert "not JSON" in done.stderr
    assert server.requests == []


def test_start_of_running_workflow_is_one_clear_line_and_exit_1(server: CannedServer, run: Run):
    detail = details.WorkflowAlreadyStartedDetail(workflow_id="w", run_id="r")
    server.on("StartWorkflow", Refusal(grpc.StatusCode.ALREADY_EXISTS, detail=detail))
    done = run("workflow", "start", "census", "-q", "q", "-w", "w")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: workflow 'w' already started as run 'r'\n"


def test_steering_commands_say_what_they_did(server: CannedServer, run: Run):
    server.on("SignalWorkflow", service.SignalWorkflowResponse())
    server.on("CancelWorkflow", service.CancelWorkflowResponse())
    server.on("TerminateWorkflow", service.TerminateWorkflowResponse())
    assert run("workflow", "signal", "w", "approve", "-i", "true").stdout == (
        "signalled approve: workflow w\n"
    )
    assert last_request(server).input == payloads(True)
    assert run("workflow", "cancel", "w", "-r", "r1", "--reason", "why").stdout == (
        "requested cancellation: workflow w run r1\n"
    )
    assert last_request(server).reason == "why"
    server.on("PauseWorkflow", service.PauseWorkflowResponse())
    server.on("UnpauseWorkflow", service.UnpauseWorkflowResponse())
    assert run("workflow", "pause", "w", "--reason", "look").stdout == "paused: workflow w\n"
    assert last_request(server).reason == "look"
    assert run("workflow", "unpause", "w").stdout == "unpaused: workflow w\n"
    done = run("-o", "json", "workflow", "terminate", "w")
    assert json.loads(done.stdout)["done"] == "terminated"


def test_reset_and_fork_show_the_new_run(server: CannedServer, run: Run):
    server.on("ResetWorkflow", service.ResetWorkflowResponse(run_id="r2"))
    server.on("ForkWorkflow", service.ForkWorkflowResponse(run_id="r3"))
    done = run("-o", "json", "workflow", "reset", "w", "--first", "--exclude", "signal")
    assert json.loads(done.stdout) == {"workflow_id": "w", "run_id": "r2"}
    assert (last_request(server).point.workflow_task, last_request(server).reapply_exclude) == (
        1,
        [1],
    )
    done = run("workflow", "fork", "w", "f", "--event", "7", "--reason", "what if")
    assert "r3" in done.stdout
    assert (last_request(server).workflow_id, last_request(server).point.event_id) == ("f", 7)


@pytest.mark.parametrize("points", [[], ["--first", "--last"], ["--event", "4", "--build", "b"]])
def test_reset_without_a_point_or_with_several_is_refused(run: Run, points: list[str]):
    refused = run("workflow", "reset", "w", *points)
    assert refused.exit_code == 2
    assert "expected one of --first, --last, --event and --build" in refused.stderr


def test_query_prints_the_answer(server: CannedServer, run: Run):
    server.on("QueryWorkflow", service.QueryWorkflowResponse(query_result=payloads({"n": 1})))
    done = run("workflow", "query", "w", "progress")
    assert json.loads(done.stdout) == {"n": 1}


def test_stack_prints_the_lines_where_the_code_waits(server: CannedServer, run: Run):
    trace = "run:\n  /app/flow.py:12 in run: await workflow.sleep(1)"
    server.on("QueryWorkflow", service.QueryWorkflowResponse(query_result=payloads(trace)))
    assert run("workflow", "stack", "w").stdout == trace + "\n"
    assert last_request(server).query_type == "__stack_trace"
    assert json.loads(run("-o", "json", "workflow", "stack", "w").stdout) == trace


def test_namespace_update_sends_limits_and_shows_all(server: CannedServer, run: Run):
    info = {"name": "n", "limits": {"max_signals": 5}, "effective_limits": {"max_signals": 5}}
    server.on("UpdateNamespace", make(operator.UpdateNamespaceResponse, namespace_info=info))
    done = run(
        *["namespace", "update", "n", "--limit", "max_signals=5", "--limit", "max_updates=default"],
    )
    assert done.exit_code == 0, done.output
    assert "max_signals  5      the namespace" in done.stdout
    request = last_request(server)
    assert request.limits == operator.NamespaceLimits(max_signals=5)
    assert request.unset_limits == ["max_updates"]
    assert not request.HasField("description")
    for bad in ("max_signals", "max_signals=-1", "nothing=1"):
        done = run("namespace", "update", "n", "--limit", bad)
        assert (done.exit_code, "--limit" in done.stderr) == (2, True)


# -- workflow: watch


def info(workflow_id: str) -> dict[str, Any]:
    return {
        "execution": {"workflow_id": workflow_id, "run_id": "r"},
        "workflow_type": {"name": "census"},
        "status": workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING,
        "start_time": datetime(2026, 1, 2, tzinfo=UTC),
    }


def test_describe_for_people_and_for_programs(server: CannedServer, run: Run):
    response = make(
        service.DescribeWorkflowResponse,
        workflow_execution_info=info("w"),
        pending_activities=[
            {
                "activity_id": "7",
                "attempt": 2,
                "maximum_attempts": 3,
                "last_failure": {"message": "it broke"},
            }
        ],
        pending_timers=[{"timer_id": "t9"}],
        pending_children=[{"workflow_execution": {"workflow_id": "child-1"}, "state": 2}],
        pending_external_signals=[
            {"workflow_execution": {"workflow_id": "other-1"}, "signal_name": "go"}
        ],
        pause_info={"identity": "operator", "reason": "look"},
        wait_reasons=[{"kind": 1, "identity": "operator", "message": "look"}, {"kind": 14}],
    )
    server.on("DescribeWorkflow", response)
    server.on("DescribeTaskQueue", operator.DescribeTaskQueueResponse())
    done = run("workflow", "describe", "w")
    assert done.exit_code == 0, done.exception
    text = done.stdout
    assert "RUNNING" in text
    assert "it broke" in text
    assert "2 of 3" in text
    assert "t9" in text
    assert all(word in text for word in ("child-1", "STARTED", "other-1", "signal go"))
    assert "to be unpaused" in text
    assert "by operator: look" in text
    document = json.loads(run("workflow", "describe", "w", "-o", "json").stdout)
    assert document["info"]["start_time"] == "2026-01-02T00:00:00+00:00"
    assert document["pending_activities"][0]["last_failure"]["message"] == "it broke"
    assert [reason["kind"] for reason in document["wait_reasons"]] == ["PAUSED", "SIGNAL"]
    assert document["pause"]["reason"] == "look"


def test_describe_of_a_run_in_a_chain_says_where_it_stands(server: CannedServer, run: Run):
    attempt = {
        **info("w"),
        "status": workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED,
        "close_time": datetime(2026, 1, 2, 1, tzinfo=UTC),
        "attempt": 2,
        "first_execution_run_id": "r0",
        "continued_execution_run_id": "r0",
        "new_execution_run_id": "r2",
    }
    described = make(
        service.DescribeWorkflowResponse,
        workflow_execution_info=attempt,
        execution_config={"retry_policy": {"maximum_attempts": 3}},
    )
    server.on("DescribeWorkflow", described)
    failed = workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED
    result = {"status": failed, "failure": {"message": "no"}, "new_execution_run_id": "r2"}
    server.on(
        "PollWorkflowResult",
        make(service.PollWorkflowResultResponse, run_id="r1", result=result),
    )
    text = " ".join(run("workflow", "describe", "w").stdout.split())
    for part in ("Attempt 2 of 3", "Continues run r0", "First run r0", "Tried again as run r2"):
        assert part in text
    document = json.loads(run("workflow", "describe", "w", "-o", "json").stdout)
    assert document["info"]["new_run_id"] == "r2"
    assert document["retry_policy"]["maximum_attempts"] == 3


def test_describe_of_a_run_that_starts_later_says_when(server: CannedServer, run: Run):
    delayed = {**info("w"), "execution_time": datetime(2026, 1, 2, 1, tzinfo=UTC)}
    server.on(
        "DescribeWorkflow",
        make(service.DescribeWorkflowResponse, workflow_execution_info=delayed),
    )
    server.on("DescribeTaskQueue", operator.DescribeTaskQueueResponse())
    text = " ".join(run("workflow", "describe", "w").stdout.split())
    assert "Start delay its code begins 2026-01-02 01:00:00Z" in text


@pytest.mark.parametrize(
    "arguments, kind",
    [
        (("workflow", "list"), WorkflowStatus),
        (("workflow", "query"), QueryRejectCondition),
        (("workflow", "start"), WorkflowIdReusePolicy),
        (("workflow", "start"), WorkflowIdConflictPolicy),
        (("workflow", "start"), OutputFormat),
    ],
)
def test_help_in_80_columns_names_each_choice_unbroken(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], kind: type[StrEnum]
):
    monkeypatch.setenv("COLUMNS", "80")
    text = run(*arguments, "--help").stdout
    named = [choice.lower() for choice in kind if choice.value != "UNSPECIFIED"]
    assert [choice for choice in named if choice not in text] == []
    assert "unspecified" not in text


def test_list_in_each_format_shows_the_runs(server: CannedServer, run: Run):
    answer = make(service.ListWorkflowsResponse, executions=[info("a"), info("b")])
    server.on("ListWorkflows", answer)
    lines = run("workflow", "list", "-s", "running", "--since", "2026-01-01").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["RUNNING", "a"], ["RUNNING", "b"]]
    chosen = last_request(server).filter
    assert chosen.statuses == [workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING]
    assert chosen.earliest_start_time.ToDatetime(UTC) == datetime(2026, 1, 1, tzinfo=UTC)
    array = json.loads(run("workflow", "list", "-o", "json").stdout)
    rows = [json.loads(row) for row in run("workflow", "list", "-o", "jsonl").stdout.splitlines()]
    assert array == rows
    assert [row["workflow_id"] for row in rows] == ["a", "b"]


def test_list_with_limit_stops_there_and_says_so(server: CannedServer, run: Run):
    answer = make(service.ListWorkflowsResponse, executions=[info("a"), info("b")])
    server.on("ListWorkflows", answer)
    done = run("workflow", "list", "--limit", "1")
    assert len(done.stdout.splitlines()) == 2
    assert "--limit 0" in done.stderr


def test_list_of_nothing_is_said_or_an_empty_array(server: CannedServer, run: Run):
    server.on("ListWorkflows", service.ListWorkflowsResponse())
    assert run("workflow", "list").stdout == "No such runs.\n"
    assert json.loads(run("workflow", "list", "-o", "json").stdout) == []


def history() -> tuple[service.GetWorkflowHistoryResponse, service.GetWorkflowHistoryResponse]:
    started = {
        "event_id": 1,
        "event_type": EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
        "workflow_execution_started_event_attributes": {"input": payloads("x" * 300)},
    }
    completed = {
        "event_id": 2,
        "event_type": EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
        "workflow_execution_completed_event_attributes": {"result": payloads(3)},
    }
    return (
        make(
            service.GetWorkflowHistoryResponse,
            history={"events": [started]},
            next_page_token=b"1",
        ),
        make(service.GetWorkflowHistoryResponse, history={"events": [completed]}),
    )


def test_history_prints_every_event_in_order(server: CannedServer, run: Run):
    server.on("GetWorkflowHistory", *history())
    lines = run("workflow", "history", "w", "--follow").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["Id", "1", "2"]
    assert "WorkflowExecutionCompleted" in lines[2]
    assert "result=[3]" in lines[2]
    assert last_request(server).wait_new_event


def test_history_for_programs_is_a_document_or_lines_with_whole_payloads(
    server: CannedServer, run: Run
):
    server.on("GetWorkflowHistory", *history())
    document = json.loads(run("workflow", "history", "w", "-o", "json").stdout)
    server.on("GetWorkflowHistory", *history())
    rows = run("workflow", "history", "w", "-o", "jsonl").stdout.splitlines()
    assert document["events"] == [json.loads(row) for row in rows]
    started = document["events"][0]["workflowExecutionStartedEventAttributes"]
    assert base64.b64decode(started["input"]["payloads"][0]["data"]) == b'"%s"' % (b"x" * 300)


def test_history_that_breaks_off_leaves_whole_json_and_exits_1(server: CannedServer, run: Run):
    refusal = Refusal(grpc.StatusCode.INTERNAL, "oops")
    server.on("GetWorkflowHistory", history()[0], refusal)
    done = run("workflow", "history", "w", "-o", "json")
    assert len(json.loads(done.stdout)["events"]) == 1
    assert (done.exit_code, done.stderr) == (1, "error: oops\n")


def test_result_prints_what_the_run_returned(server: CannedServer, run: Run):
    result = make(
        service.PollWorkflowResultResponse,
        run_id="r",
        result={
            "status": workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED,
            "result": payloads({"n": 1}),
        },
    )
    server.on("PollWorkflowResult", result)
    assert json.loads(run("workflow", "result", "w").stdout) == {"n": 1}
    assert json.loads(run("workflow", "result", "w", "-o", "json").stdout) == {
        "workflow_id": "w",
        "status": "COMPLETED",
        "result": {"n": 1},
    }


def test_result_of_failed_run_prints_the_chain_and_exits_1(server: CannedServer, run: Run):
    failure = {
        "message": "activity failed",
        "activity_failure_info": {},
        "cause": {"message": "no money", "application_failure_info": {"type": "Broke"}},
    }
    result = make(
        service.PollWorkflowResultResponse,
        run_id="r",
        result={"status": workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED, "failure": failure},
    )
    server.on("PollWorkflowResult", result)
    done = run("workflow", "result", "w")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error: workflow 'w' run 'r' closed as FAILED",
        "  caused by ActivityError: activity failed",
        "  caused by Broke: no money",
    ]
    document = json.loads(run("workflow", "result", "w", "-o", "json").stdout)
    assert document["status"] == "FAILED"
    assert document["failure"]["cause"]["message"] == "no money"


def test_result_goes_on_with_the_run_that_continues_a_closed_one_unless_told_not_to(
    server: CannedServer, run: Run
):
    continued = workflow_pb2.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
    first = make(
        service.PollWorkflowResultResponse,
        run_id="r1",
        result={"status": continued, "new_execution_run_id": "r2"},
    )
    completed = workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED
    second = make(
        service.PollWorkflowResultResponse,
        run_id="r2",
        result={"status": completed, "result": payloads("end")},
    )
    server.on("PollWorkflowResult", first, second)
    assert json.loads(run("workflow", "result", "w").stdout) == "end"
    assert last_request(server).workflow_execution.run_id == "r2"
    server.on("PollWorkflowResult", first)
    done = run("workflow", "result", "w", "--no-follow-runs")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "r2" in done.stderr


def test_result_after_timeout_exits_1(server: CannedServer, run: Run):
    server.on("PollWorkflowResult", service.PollWorkflowResultResponse(run_id="r"))
    done = run("workflow", "result", "w", "--timeout", "50ms")
    assert done.exit_code == 1
    assert "still open" in done.stderr


def test_result_that_takes_long_says_where_to_look(
    server: CannedServer, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("aetheris_client.admin.workflow_watch.PATIENCE", 0.0)
    server.on("PollWorkflowResult", service.PollWorkflowResultResponse(run_id="r"))
    done = run("workflow", "result", "w", "--timeout", "50ms")
    assert done.stderr.startswith("still open; `aetheris-admin workflow describe w`")
    done = run("workflow", "result", "w", "--timeout", "50ms", "-o", "json")
    assert "describe" not in done.stderr


# -- the other groups


def test_task_queue_describe_shows_both_sides(server: CannedServer, run: Run):
    answer = make(
        operator.DescribeTaskQueueResponse,
        pollers=[{"identity": "me", "capabilities": ["llm"], "waiting_poll_count": 2}],
        backlogs=[{"capabilities": ["gpu", "llm"], "backlog_count": 9}],
    )
    server.on("DescribeTaskQueue", answer)
    text = run("task-queue", "describe", "q").stdout
    assert "WORKFLOW" in text
    assert "ACTIVITY" in text
    assert "gpu, llm" in text
    done = run("task-queue", "describe", "q", "--type", "activity", "-o", "json")
    (side,) = json.loads(done.stdout)
    assert side["task_queue_type"] == "ACTIVITY"
    assert side["backlogs"][0]["backlog_count"] == 9


def test_builds_are_shown_where_tasks_wait_and_who_polls(server: CannedServer, run: Run):
    answer = make(
        operator.DescribeTaskQueueResponse,
        pollers=[{"identity": "me", "worker_version": "b3"}],
        backlogs=[{"backlog_count": 9}, {"pinned_build_id": "b1", "backlog_count": 1}],
        default_build_id="b2",
    )
    server.on("DescribeTaskQueue", answer)
    lines = run("task-queue", "describe", "q", "--type", "workflow").stdout.splitlines()
    assert any("Default build" in line and "b2" in line for line in lines)
    assert any("me" in line and "b3" in line for line in lines)
    assert any("b2 (default)" in line and "9" in line for line in lines)
    assert any("b1" in line and "1" in line for line in lines)


def test_task_queue_update_changes_the_default_build(server: CannedServer, run: Run):
    server.on("UpdateTaskQueue", operator.UpdateTaskQueueResponse())
    done = run("task-queue", "update", "q", "--default-build-id", "b2")
    assert done.stdout == "task queue q: default build b2\n"
    asked = last_request(server)
    assert (asked.task_queue, asked.default_build_id) == ("q", "b2")
    assert run("task-queue", "update", "q", "--any-build").stdout == (
        "task queue q: default build any\n"
    )
    assert last_request(server).HasField("default_build_id")


def test_run_is_pinned_and_unpinned(server: CannedServer, run: Run):
    server.on("UpdateWorkflowOptions", service.UpdateWorkflowOptionsResponse())
    command = ("workflow", "update-options", "w")
    done = run(*command, "--pinned-build-id", "b2", "--reason", "why")
    assert done.stdout == "pinned to b2: workflow w\n"
    asked = last_request(server)
    assert (asked.pinned_build_id, asked.reason) == ("b2", "why")
    assert run(*command, "--unpin").stdout == "unpinned: workflow w\n"
    assert last_request(server).HasField("pinned_build_id")


@pytest.mark.parametrize(
    "options",
    [
        ("workflow", "update-options", "w"),
        ("workflow", "update-options", "w", "--unpin", "--pinned-build-id", "b"),
        ("workflow", "update-options", "w", "--pinned-build-id", ""),
        ("task-queue", "update", "q"),
        ("task-queue", "update", "q", "--any-build", "--default-build-id", "b"),
    ],
)
def test_build_that_is_not_said_or_said_twice_is_refused(options: tuple[str, ...], run: Run):
    done = run(*options)
    assert done.exit_code == 2
    assert "expected" in done.output


def test_namespace_commands_show_namespaces(server: CannedServer, run: Run):
    namespace = {"name": "shop", "namespace_id": "id", "retention_interval": timedelta(hours=72)}
    server.on("CreateNamespace", make(operator.CreateNamespaceResponse, namespace_info=namespace))
    server.on(
        "DescribeNamespace", make(operator.DescribeNamespaceResponse, namespace_info=namespace)
    )
    server.on("ListNamespaces", make(operator.ListNamespacesResponse, namespaces=[namespace]))
    assert "3d" in run("namespace", "create", "shop", "--retention", "72h").stdout
    assert last_request(server).retention_interval.ToTimedelta() == timedelta(hours=72)
    assert "shop" in run("namespace", "describe", "shop").stdout
    assert "shop" in run("namespace", "list").stdout
    (listed,) = json.loads(run("namespace", "list", "-o", "json").stdout)
    assert (listed["name"], listed["retention_interval"]) == ("shop", 72 * 3600)


def cluster(owned: int) -> operator.DescribeClusterResponse:
    return make(
        operator.DescribeClusterResponse,
        server_version="1.2",
        shard_count=64,
        owned_shard_count=owned,
        components=[{"name": "postgres", "status": operator.COMPONENT_STATUS_SERVING}],
        hosts=[{"host_id": "h", "address": "a:1", "shard_count": owned}],
    )


def test_cluster_health_exits_0_if_well_and_1_if_not(server: CannedServer, run: Run):
    server.on("DescribeCluster", cluster(64))
    done = run("cluster", "health")
    assert done.exit_code == 0
    assert "healthy" in done.stdout
    server.on("DescribeCluster", cluster(63))
    done = run("cluster", "health", "--output", "json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["owned_shard_count"] == 63


def test_unreachable_server_is_one_clear_line_and_exit_1(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aetheris_client.admin.session.CONNECT_TIMEOUT", timedelta(seconds=0.2))
    done = run("cluster", "health", "--address", "127.0.0.1:1")
    assert done.exit_code == 1
    assert done.stderr == (
        "error: no server answers at 127.0.0.1:1 within 0.2 s: "
        "connection refused: nothing listens there\n"
    )


def test_address_that_is_a_url_is_said_to_be_none(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("aetheris_client.admin.session.CONNECT_TIMEOUT", timedelta(seconds=0.2))
    done = run("cluster", "health", "--address", "http://localhost:1")
    assert done.stderr.endswith("the address is not host:port\n")


def test_unknown_command_and_bad_option_exit_2(run: Run):
    assert run("workflow", "nonsense").exit_code == 2
    assert run("workflow", "result", "w", "--timeout", "soon").exit_code == 2
    assert run("workflow", "list", "--status", "odd").exit_code == 2


def test_activity_commands_say_what_they_did(server: CannedServer, run: Run):
    server.on("PauseActivity", service.PauseActivityResponse())
    server.on("UnpauseActivity", service.UnpauseActivityResponse())
    server.on("ResetActivity", service.ResetActivityResponse())
    options = make(
        service.UpdateActivityOptionsResponse,
        activity_options={
            "task_queue": {"name": "other"},
            "heartbeat_timeout": timedelta(seconds=3),
        },
    )
    server.on("UpdateActivityOptions", options)
    assert run("activity", "pause", "w", "a", "--reason", "why").stdout == (
        "paused: activity a of workflow w\n"
    )
    assert last_request(server).reason == "why"
    assert run("activity", "unpause", "w", "a", "--reset-attempts", "--jitter", "2s").exit_code == 0
    assert (last_request(server).reset_attempts, last_request(server).jitter.seconds) == (True, 2)
    done = run("-o", "json", "activity", "reset", "w", "a", "--keep-paused")
    assert json.loads(done.stdout)["done"] == "reset"
    assert last_request(server).keep_paused
    done = run("activity", "update-options", "w", "a", "-q", "other", "--heartbeat-timeout", "3s")
    assert "other" in done.stdout
    assert last_request(server).update_mask.paths == ["task_queue", "heartbeat_timeout"]
