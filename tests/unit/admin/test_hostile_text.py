"""Whatever is in ids, failures and payloads: commands print it, and it stays text."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aetheris.api.v1 import operator_service_pb2 as operator
from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1 import workflow_service_pb2 as service
from aetheris.api.v1.common_pb2 import Memo, Payload
from aetheris.api.v1.history_pb2 import EVENT_TYPE_WORKFLOW_EXECUTION_FAILED, HistoryEvent
from aetheris_client import DataConverter
from aetheris_client.admin.text import one_line, printable
from tests.support.canned_server import CannedServer
from tests.unit.admin.conftest import Run, make

CONVERTER = DataConverter.default()

# What a protobuf string may hold: anything but lone surrogates.
OUTSIDE_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
NASTY = [
    "a[/b]c",
    "[bold red]x[/]",
    "\x1b[2J",
    "\x9b31m",
    "\u202egnp.exe",
    "a\nRUNNING b",
    ":smile:",
]
FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def with_nasty_examples(test: Any) -> Any:
    for text in NASTY:
        test = example(text=text)(test)
    return FEW(given(text=OUTSIDE_TEXT)(test))


def failure(text: str) -> dict[str, Any]:
    info = {"type": text, "details": CONVERTER.to_payloads([text])}
    return {"message": text, "application_failure_info": info, "cause": {"message": text}}


def run_info(text: str, status: int, payload: Payload | None = None) -> dict[str, Any]:
    memo = Memo(fields={text: payload or CONVERTER.to_payload({text: [text]})})
    return {
        "execution": {"workflow_id": text, "run_id": text},
        "workflow_type": {"name": text},
        "task_queue": text,
        "status": status,
        "memo": memo,
        "parent_execution": {"workflow_id": text, "run_id": text},
    }


def described(text: str) -> Any:
    return make(
        service.DescribeWorkflowResponse,
        workflow_execution_info=run_info(text, workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING),
        pending_activities=[
            {
                "activity_id": text,
                "activity_type": {"name": text},
                "last_worker_identity": text,
                "last_failure": failure(text),
                "heartbeat_details": CONVERTER.to_payloads([text]),
            }
        ],
        pending_timers=[{"timer_id": text}],
        pending_workflow_task={"attempt": 3, "last_failure": failure(text)},
    )


def closed(text: str) -> Any:
    return make(
        service.PollWorkflowResultResponse,
        run_id=text,
        result={
            "status": workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED,
            "failure": failure(text),
        },
    )


def queue(text: str) -> Any:
    return make(
        operator.DescribeTaskQueueResponse,
        pollers=[{"identity": text, "capabilities": [text]}],
        backlogs=[{"capabilities": [text]}],
    )


def history(text: str) -> Any:
    event = make(
        HistoryEvent,
        event_id=1,
        event_type=EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
        workflow_execution_failed_event_attributes={"failure": failure(text)},
    )
    return make(service.GetWorkflowHistoryResponse, history={"events": [event]})


@pytest.fixture
def ask(server: CannedServer, run: Run) -> Callable[..., str]:
    """Asks with a command, and checks that only printable text came out."""

    def ask(*arguments: str, exit_code: int = 0) -> str:
        done = run(*arguments)
        assert done.exit_code == exit_code, done.output + str(done.exception)
        for stream in (done.stdout, done.stderr):
            assert all(line.isprintable() for line in stream.split("\n"))
        return done.stdout + done.stderr

    return ask


@with_nasty_examples
def test_list_of_any_text_shows_it_as_text(server: CannedServer, ask: Any, text: str):
    run = run_info(text, workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING)
    server.on("ListWorkflows", make(service.ListWorkflowsResponse, executions=[run, run]))
    _, *rows = ask("workflow", "list").rstrip("\n").split("\n")
    assert len(rows) == 2
    assert rows[0].count(printable(text)) >= 3
    document = json.loads(ask("workflow", "list", "-o", "json"))
    assert [found["workflow_id"] for found in document] == [text, text]
    assert document[0]["memo"] == {text: {text: [text]}}


@with_nasty_examples
def test_describe_of_any_text_shows_it_as_text(server: CannedServer, ask: Any, text: str):
    server.on("DescribeWorkflow", described(text))
    server.on("DescribeTaskQueue", queue(text))
    shown = ask("workflow", "describe", "w")
    assert shown.count(printable(text)) >= 8
    document = json.loads(ask("workflow", "describe", "w", "-o", "json"))
    assert document["pending_activities"][0]["last_failure"]["message"] == text


@with_nasty_examples
def test_failure_of_any_text_shows_it_as_text(server: CannedServer, ask: Any, text: str):
    server.on("PollWorkflowResult", closed(text))
    assert ask("workflow", "result", "w", exit_code=1).count(one_line(text)) >= 3
    ask("workflow", "result", "w", "-o", "json", exit_code=1)
    server.on("GetWorkflowHistory", history(text))
    assert one_line(text) in ask("workflow", "history", "w")


@with_nasty_examples
def test_queue_and_query_of_any_text_show_it_as_text(server: CannedServer, ask: Any, text: str):
    server.on("DescribeTaskQueue", queue(text))
    assert printable(text) in ask("task-queue", "describe", "q")
    answer = CONVERTER.to_payloads([{"a": text}])
    server.on("QueryWorkflow", service.QueryWorkflowResponse(query_result=answer))
    assert json.loads(ask("workflow", "query", "w", "q")) == {"a": text}


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    "payload",
    [
        Payload(metadata={"encoding": b"json/plain"}, data=deep(900)),
        Payload(metadata={"encoding": b"json/plain"}, data=deep(100_000)),
        Payload(metadata={"encoding": b"json/plain"}, data=b"18446744073709551616"),
        Payload(metadata={"encoding": b"json/plain"}, data=rb'"\ud800"'),
        Payload(metadata={"encoding": b"json/plain"}, data=b"not json"),
        Payload(metadata={"encoding": b"json/protobuf", "messageType": b"x"}, data=b"not json"),
        Payload(metadata={"encoding": b"\xff"}, data=b"\xff"),
        Payload(),
    ],
    ids=["deep", "deeper", "large", "surrogate", "no json", "no message", "unknown", "empty"],
)
def test_payload_of_any_kind_breaks_neither_its_run_nor_the_list(
    server: CannedServer, ask: Any, payload: Payload
):
    odd = run_info("odd", workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING, payload)
    plain = run_info("plain", workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING)
    executions = [plain, odd, plain]
    server.on("ListWorkflows", make(service.ListWorkflowsResponse, executions=executions))
    server.on(
        "DescribeWorkflow", make(service.DescribeWorkflowResponse, workflow_execution_info=odd)
    )
    server.on("DescribeTaskQueue", operator.DescribeTaskQueueResponse())
    assert len(orjson.loads(ask("workflow", "list", "-o", "json"))) == 3
    assert len(ask("workflow", "list", "-o", "jsonl").splitlines()) == 3
    assert "odd" in ask("workflow", "describe", "w")
    assert '"odd"' in ask("workflow", "describe", "w", "-o", "json")


def test_time_beyond_the_calendar_does_not_break_the_list(server: CannedServer, ask: Any):
    odd = run_info("odd", workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING)
    odd["start_time"] = {"seconds": 2**60}
    server.on("ListWorkflows", make(service.ListWorkflowsResponse, executions=[odd]))
    assert "9999-12-31" in ask("workflow", "list")
