"""What a client sends, and what it makes of the answers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, TypeVar

import grpc
import pytest

from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1.common_pb2 import Payloads, WorkflowExecution
from aetheris.api.v1.error_details_pb2 import NotReadyDetail
from aetheris.api.v1.failure_pb2 import ApplicationFailureInfo, Failure
from aetheris.api.v1.history_pb2 import History, HistoryEvent
from aetheris.api.v1.workflow_pb2 import (
    WORKFLOW_EXECUTION_STATUS_COMPLETED,
    WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW,
    WORKFLOW_EXECUTION_STATUS_FAILED,
    WORKFLOW_EXECUTION_STATUS_TERMINATED,
    WorkflowExecutionInfo,
)
from aetheris.api.v1.workflow_service_pb2 import (
    CancelWorkflowResponse,
    DescribeWorkflowResponse,
    ForkWorkflowRequest,
    ForkWorkflowResponse,
    GetWorkflowHistoryRequest,
    GetWorkflowHistoryResponse,
    ListWorkflowsRequest,
    ListWorkflowsResponse,
    PauseWorkflowResponse,
    PollWorkflowResultRequest,
    PollWorkflowResultResponse,
    QueryWorkflowRequest,
    QueryWorkflowResponse,
    ResetWorkflowRequest,
    ResetWorkflowResponse,
    SignalWithStartWorkflowRequest,
    SignalWithStartWorkflowResponse,
    SignalWorkflowRequest,
    SignalWorkflowResponse,
    StartWorkflowRequest,
    StartWorkflowResponse,
    TerminateWorkflowResponse,
    UnpauseWorkflowResponse,
    WorkflowResult,
)
from aetheris_client import (
    Client,
    ClientInterceptor,
    ClientOutbound,
    DataConverter,
    ListFilter,
    ReapplyExclude,
    ResetPoint,
    RetryPolicy,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
    WorkflowStatus,
    errors,
)
from aetheris_client.definition import (
    QUERY_DEFINITION,
    SIGNAL_DEFINITION,
    WORKFLOW_DEFINITION,
    WORKFLOW_RUN,
)
from aetheris_client.interceptor import StartedWorkflow, StartWorkflowInput
from tests.support.canned_server import CannedServer, Refusal

M = TypeVar("M")

CONVERTER = DataConverter.default()
UNAVAILABLE = Refusal(grpc.StatusCode.UNAVAILABLE, "restarting")


@dataclass
class Report:
    count: int


class Census:
    async def run(self, folder: str) -> Report:
        raise NotImplementedError

    def approve(self, who: str) -> None: ...

    def progress(self) -> Report:
        raise NotImplementedError


# As the worker SDK's decorators leave it.
setattr(Census, WORKFLOW_DEFINITION, SimpleNamespace(name="census"))
setattr(Census.run, WORKFLOW_RUN, True)
setattr(Census.run, WORKFLOW_DEFINITION, SimpleNamespace(name="census"))
setattr(Census.approve, SIGNAL_DEFINITION, SimpleNamespace(name="approve-it"))
setattr(Census.progress, QUERY_DEFINITION, SimpleNamespace(name="how-far"))


def make(kind: Callable[..., M], **fields: Any) -> M:
    """A message from plain dicts, which the generated types do not know of."""
    return kind(**fields)


def payloads(*values: object) -> Payloads:
    encoded = CONVERTER.to_payloads(values)
    assert encoded is not None
    return encoded


def completed(*values: object) -> WorkflowResult:
    return WorkflowResult(status=WORKFLOW_EXECUTION_STATUS_COMPLETED, result=payloads(*values))


# -- start


async def test_start_workflow_with_a_signal_sends_both_in_one_request(
    server: CannedServer, client: Client
):
    server.on("SignalWithStartWorkflow", SignalWithStartWorkflowResponse(run_id="r1"))
    handle = await client.start_workflow(
        Census.run,
        "/src",
        id="w",
        task_queue="q",
        request_id="req",
        start_signal=Census.approve,
        start_signal_args=["Ada"],
    )
    assert (handle.run_id, handle.is_new) == ("r1", False)
    (request,) = server.requests_of(SignalWithStartWorkflowRequest)
    assert (request.signal_name, request.signal_input) == ("approve-it", payloads("Ada"))
    assert (request.start.workflow_id, request.start.input) == ("w", payloads("/src"))
    assert (request.start.request_id, request.start.namespace) == ("req", "shop")


async def test_start_workflow_with_arguments_of_no_signal_is_refused(client: Client):
    with pytest.raises(TypeError, match="start_signal_args"):
        await client.start_workflow("census", id="w", task_queue="q", start_signal_args=["Ada"])
    with pytest.raises(TypeError, match=r"write start_signal_args=\['Ada'\]"):
        await client.start_workflow(
            "census",
            id="w",
            task_queue="q",
            start_signal="approve",
            start_signal_args="Ada",
        )


async def test_start_workflow_with_every_option_sends_them_all(
    server: CannedServer, client: Client
):
    server.on("StartWorkflow", StartWorkflowResponse(run_id="r1", started=True))
    handle = await client.start_workflow(
        Census.run,
        "/src",
        id="w",
        task_queue="q",
        execution_timeout=timedelta(hours=1),
        run_timeout=timedelta(minutes=1),
        task_timeout=timedelta(seconds=5),
        id_reuse_policy=WorkflowIdReusePolicy.REJECT_DUPLICATE,
        id_conflict_policy=WorkflowIdConflictPolicy.USE_EXISTING,
        memo={"note": [1]},
        search_attributes={"city": "Rome", "n": 3, "at": datetime(2026, 1, 1, tzinfo=UTC)},
        start_delay=timedelta(seconds=2),
        retry_policy=RetryPolicy(maximum_attempts=3, non_retryable_error_types=["Fatal"]),
        request_id="req",
    )
    assert (handle.id, handle.run_id, handle.is_new) == ("w", "r1", True)
    (request,) = server.requests_of(StartWorkflowRequest)
    expected = make(
        StartWorkflowRequest,
        namespace="shop",
        workflow_id="w",
        workflow_type={"name": "census"},
        task_queue={"name": "q"},
        input=payloads("/src"),
        workflow_execution_timeout=timedelta(hours=1),
        workflow_run_timeout=timedelta(minutes=1),
        workflow_task_timeout=timedelta(seconds=5),
        identity="tester",
        request_id="req",
        workflow_id_reuse_policy=workflow_pb2.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE,
        workflow_id_conflict_policy=workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
        memo={"fields": {"note": CONVERTER.to_payload([1])}},
        start_delay=timedelta(seconds=2),
        retry_policy={
            "initial_interval": timedelta(seconds=1),
            "backoff_coefficient": 2,
            "maximum_attempts": 3,
            "non_retryable_error_types": ["Fatal"],
        },
    )
    attributes = request.search_attributes.indexed_fields
    assert {name: item.metadata["type"] for name, item in attributes.items()} == {
        "city": b"Keyword",
        "n": b"Int",
        "at": b"Datetime",
    }
    request.ClearField("search_attributes")
    assert request == expected


async def test_start_workflow_while_unavailable_is_repeated_under_one_request_id(
    server: CannedServer, client: Client
):
    server.on(
        "StartWorkflow", UNAVAILABLE, UNAVAILABLE, StartWorkflowResponse(run_id="r", started=True)
    )
    await client.start_workflow("w", id="w", task_queue="q")
    requests = server.requests_of(StartWorkflowRequest)
    assert len(requests) == 3
    assert len({request.request_id for request in requests}) == 1
    assert requests[0].request_id


async def test_start_workflow_with_unencodable_argument_sends_nothing(
    server: CannedServer, client: Client
):
    with pytest.raises(errors.PayloadEncodeError):
        await client.start_workflow("w", object(), id="w", task_queue="q")
    assert server.requests == []


async def test_start_workflow_with_undecorated_callable_is_a_type_error(client: Client):
    with pytest.raises(TypeError, match=r"not a workflow.*@workflow\.defn"):
        await client.start_workflow(Census.progress, id="w", task_queue="q")  # pyright: ignore[reportArgumentType, reportCallIssue]


async def test_call_without_server_fails_when_its_time_is_up(server: CannedServer):
    await server.stop()
    with pytest.raises(errors.UnavailableError, match=server.address):
        await Client.connect(server.address, connect_timeout=timedelta(milliseconds=50))


async def test_call_that_is_not_answered_fails_at_its_deadline(
    server: CannedServer, client: Client
):
    async def never(_: object) -> SignalWorkflowResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.on("QueryWorkflow", never)
    with pytest.raises(errors.DeadlineExceededError):
        await client.get_workflow_handle("w").query("q", timeout=timedelta(milliseconds=50))


# -- result


async def test_execute_short_workflow_is_one_call_with_the_typed_result(
    server: CannedServer, client: Client
):
    server.on(
        "StartWorkflow",
        StartWorkflowResponse(run_id="r", started=True, result=completed({"count": 3})),
    )
    assert await client.execute_workflow(Census.run, "/", id="w", task_queue="q") == Report(3)
    assert len(server.requests) == 1
    (request,) = server.requests_of(StartWorkflowRequest)
    assert request.result_wait_timeout.ToTimedelta() == timedelta(seconds=20)


async def test_execute_long_workflow_goes_on_polling(server: CannedServer, client: Client):
    server.on("StartWorkflow", StartWorkflowResponse(run_id="r", started=True))
    server.on(
        "PollWorkflowResult",
        PollWorkflowResultResponse(run_id="r"),
        UNAVAILABLE,
        PollWorkflowResultResponse(run_id="r", result=completed({"count": 4})),
    )
    assert await client.execute_workflow(Census, "/", id="w", task_queue="q") == Report(4)
    polls = server.requests_of(PollWorkflowResultRequest)
    assert [poll.workflow_execution.run_id for poll in polls] == ["r"] * 3


async def test_result_of_workflow_that_returns_nothing_is_none(
    server: CannedServer, client: Client
):
    result = WorkflowResult(status=WORKFLOW_EXECUTION_STATUS_COMPLETED)
    server.on("StartWorkflow", StartWorkflowResponse(run_id="r", started=True, result=result))
    assert await client.execute_workflow("w", id="w", task_queue="q") is None


async def test_result_while_server_restarts_is_still_given(server: CannedServer, client: Client):
    polled = asyncio.Event()

    async def never(_: object) -> PollWorkflowResultResponse:
        polled.set()
        await asyncio.Event().wait()
        raise AssertionError

    server.on("PollWorkflowResult", never)
    async with asyncio.TaskGroup() as group:
        result = group.create_task(client.get_workflow_handle("w", "r").result())
        await polled.wait()
        await server.stop()
        server.on(
            "PollWorkflowResult", PollWorkflowResultResponse(run_id="r", result=completed("done"))
        )
        await server.start()
    assert result.result() == "done"


async def test_result_of_failed_run_raises_its_failure_chain(server: CannedServer, client: Client):
    failure = make(
        Failure,
        message="activity failed",
        activity_failure_info={"activity_type": {"name": "charge"}},
        cause=Failure(
            message="no money", application_failure_info=ApplicationFailureInfo(type="Broke")
        ),
    )
    result = WorkflowResult(status=WORKFLOW_EXECUTION_STATUS_FAILED, failure=failure)
    server.on("PollWorkflowResult", PollWorkflowResultResponse(run_id="r", result=result))
    with pytest.raises(errors.WorkflowFailedError) as caught:
        await client.get_workflow_handle("w").result()
    assert (caught.value.run_id, caught.value.status) == ("r", "FAILED")
    assert isinstance(caught.value.cause, errors.ActivityError)
    assert isinstance(caught.value.cause.cause, errors.ApplicationError)
    assert caught.value.cause.cause.type == "Broke"


async def test_result_of_terminated_run_says_so(server: CannedServer, client: Client):
    result = WorkflowResult(status=WORKFLOW_EXECUTION_STATUS_TERMINATED)
    server.on("PollWorkflowResult", PollWorkflowResultResponse(run_id="r", result=result))
    with pytest.raises(errors.WorkflowFailedError) as caught:
        await client.get_workflow_handle("w").result()
    assert isinstance(caught.value.cause, errors.TerminatedError)


async def test_result_of_continued_run_is_that_of_the_last_run(
    server: CannedServer, client: Client
):
    continued = WorkflowResult(
        status=WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW, new_execution_run_id="r2"
    )
    server.on(
        "PollWorkflowResult",
        PollWorkflowResultResponse(run_id="r1", result=continued),
        PollWorkflowResultResponse(run_id="r2", result=completed(5)),
    )
    assert await client.get_workflow_handle("w").result() == 5
    polls = server.requests_of(PollWorkflowResultRequest)
    assert [poll.workflow_execution.run_id for poll in polls] == ["", "r2"]


async def test_result_of_continued_run_that_is_not_followed_names_the_next(
    server: CannedServer, client: Client
):
    continued = WorkflowResult(
        status=WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW, new_execution_run_id="r2"
    )
    server.on("PollWorkflowResult", PollWorkflowResultResponse(run_id="r1", result=continued))
    with pytest.raises(errors.WorkflowContinuedAsNewError) as caught:
        await client.get_workflow_handle("w").result(follow_runs=False)
    assert (caught.value.run_id, caught.value.new_run_id) == ("r1", "r2")


async def test_result_of_open_run_after_timeout_is_deadline_exceeded(
    server: CannedServer, client: Client
):
    server.on("PollWorkflowResult", PollWorkflowResultResponse(run_id="r"))
    with pytest.raises(errors.DeadlineExceededError, match="still open after"):
        await client.get_workflow_handle("w").result(timeout=timedelta(milliseconds=50))


# -- steer


async def test_start_with_what_is_no_retry_policy_is_refused(server: CannedServer, client: Client):
    with pytest.raises(TypeError, match="option 'retry_policy': expected a RetryPolicy, found 3"):
        await client.start_workflow("w", id="w", task_queue="q", retry_policy=3)  # type: ignore[call-overload]
    assert server.requests == []


async def test_handle_of_a_start_is_bound_to_its_chain_and_one_of_an_id_to_none(
    server: CannedServer, client: Client
):
    response = StartWorkflowResponse(run_id="r2", started=False, first_execution_run_id="r1")
    server.on("StartWorkflow", response)
    server.on("SignalWorkflow", SignalWorkflowResponse())
    server.on("CancelWorkflow", CancelWorkflowResponse())
    server.on("TerminateWorkflow", TerminateWorkflowResponse())
    server.on("QueryWorkflow", QueryWorkflowResponse())
    result = WorkflowResult(status=WORKFLOW_EXECUTION_STATUS_COMPLETED)
    server.on("PollWorkflowResult", PollWorkflowResultResponse(run_id="r3", result=result))
    started = await client.start_workflow("w", id="w", task_queue="q")
    assert (started.run_id, started.first_execution_run_id) == ("r2", "r1")
    for handle, chain, run_id in (
        (started, "r1", "r2"),
        (client.get_workflow_handle("w"), "", ""),
        (client.get_workflow_handle("w", first_execution_run_id="r0"), "r0", ""),
    ):
        server.requests.clear()
        await handle.signal("s")
        await handle.query("q")
        await handle.cancel()
        await handle.terminate()
        await handle.result()
        requests: list[Any] = [*server.requests]
        *steered, polled = requests
        assert [request.first_execution_run_id for request in steered] == [chain] * 4
        assert [request.workflow_execution.run_id for request in steered] == [""] * 4
        assert polled.first_execution_run_id == chain
        assert polled.workflow_execution.run_id == run_id


async def test_steering_after_start_goes_to_the_newest_run_and_of_pinned_handle_to_its_own(
    server: CannedServer, client: Client
):
    server.on("StartWorkflow", StartWorkflowResponse(run_id="r1", started=True))
    server.on("SignalWorkflow", SignalWorkflowResponse())
    started = await client.start_workflow("w", id="w", task_queue="q")
    await started.signal(Census.approve, "me")
    await client.get_workflow_handle("w", "r1").signal("other")
    first, second = server.requests_of(SignalWorkflowRequest)
    assert (first.workflow_execution.run_id, first.signal_name) == ("", "approve-it")
    assert first.input == payloads("me")
    assert (second.workflow_execution.run_id, second.signal_name) == ("r1", "other")
    assert first.request_id != second.request_id


async def test_reset_and_fork_name_the_point_and_give_the_new_run(
    server: CannedServer, client: Client
):
    server.on("ResetWorkflow", ResetWorkflowResponse(run_id="r2"))
    server.on("ForkWorkflow", ForkWorkflowResponse(run_id="r3"))
    base = client.get_workflow_handle("w", "r1")
    new = await base.reset(
        ResetPoint.event(7), exclude=[ReapplyExclude.SIGNAL], reason="why", request_id="q"
    )
    fork = await client.fork_workflow(base, ResetPoint.build("b"), id="f")
    assert [(run.id, run.run_id) for run in (new, fork)] == [("w", "r2"), ("f", "r3")]
    (reset,) = server.requests_of(ResetWorkflowRequest)
    assert (reset.workflow_execution.run_id, reset.point.event_id) == ("r1", 7)
    assert (list(reset.reapply_exclude), reset.reason, reset.request_id) == ([1], "why", "q")
    (forked,) = server.requests_of(ForkWorkflowRequest)
    assert (forked.workflow_execution.workflow_id, forked.workflow_id) == ("w", "f")
    assert (forked.point.build_id, forked.identity) == ("b", client.config.identity)
    assert forked.request_id


async def test_reset_of_a_handle_that_names_no_run_is_of_the_newest(
    server: CannedServer, client: Client
):
    server.on("ResetWorkflow", ResetWorkflowResponse(run_id="r2"))
    for point in (ResetPoint.first(), ResetPoint.last()):
        await client.get_workflow_handle("w").reset(point)
    requests = server.requests_of(ResetWorkflowRequest)
    assert [request.point.workflow_task for request in requests] == [1, 2]
    assert [request.workflow_execution.run_id for request in requests] == ["", ""]


async def test_query_by_method_gives_its_annotated_type(server: CannedServer, client: Client):
    answer = QueryWorkflowResponse(query_result=payloads({"count": 2}))
    server.on("QueryWorkflow", answer)
    assert await client.get_workflow_handle("w").query(Census.progress) == Report(2)
    (request,) = server.requests_of(QueryWorkflowRequest)
    assert request.query_type == "how-far"


async def test_query_that_no_worker_answers_is_not_repeated(server: CannedServer, client: Client):
    detail = NotReadyDetail(waited_for="a worker")
    server.on("QueryWorkflow", Refusal(grpc.StatusCode.UNAVAILABLE, detail=detail))
    server.on("DescribeWorkflow", Refusal(grpc.StatusCode.INTERNAL))
    with pytest.raises(errors.NotReadyError, match=r"no answer in time from a worker$"):
        await client.get_workflow_handle("w").query("q")
    assert len(server.requests_of(QueryWorkflowRequest)) == 1


async def test_cancel_and_terminate_carry_reasons_and_request_ids(
    server: CannedServer, client: Client
):
    server.on("CancelWorkflow", CancelWorkflowResponse())
    server.on("TerminateWorkflow", TerminateWorkflowResponse())
    handle = client.get_workflow_handle("w")
    await handle.cancel(reason="late", request_id="c1")
    await handle.terminate("detail", reason="later")
    cancel, terminate = server.requests
    assert "late" in str(cancel)
    assert 'request_id: "c1"' in str(cancel)
    assert "later" in str(terminate)
    assert "request_id" in str(terminate)


async def test_pause_and_unpause_carry_reasons_and_request_ids(
    server: CannedServer, client: Client
):
    server.on("PauseWorkflow", PauseWorkflowResponse())
    server.on("UnpauseWorkflow", UnpauseWorkflowResponse())
    handle = client.get_workflow_handle("w", "r")
    await handle.pause(reason="look", request_id="p1")
    await handle.unpause(reason="seen")
    pause, unpause = server.requests
    assert "look" in str(pause)
    assert 'request_id: "p1"' in str(pause)
    assert 'run_id: "r"' in str(pause)
    assert "seen" in str(unpause)
    assert "request_id" in str(unpause)


# -- watch


def page(*ids: int, token: bytes = b"") -> GetWorkflowHistoryResponse:
    events = [HistoryEvent(event_id=event_id) for event_id in ids]
    return GetWorkflowHistoryResponse(history=History(events=events), next_page_token=token)


async def test_history_over_pages_gives_every_event_in_order(server: CannedServer, client: Client):
    server.on("GetWorkflowHistory", page(1, 2, token=b"2"), UNAVAILABLE, page(3))
    handle = client.get_workflow_handle("w", "r")
    assert [event.event_id async for event in handle.history(page_size=2)] == [1, 2, 3]
    tokens = [r.page_token for r in server.requests_of(GetWorkflowHistoryRequest)]
    assert tokens == [b"", b"2", b"2"]


async def test_history_that_waits_goes_on_after_empty_pages(server: CannedServer, client: Client):
    server.on("GetWorkflowHistory", page(1, token=b"1"), page(token=b"1"), page(2))
    events = client.get_workflow_handle("w", "r").history(wait_new_event=True)
    assert [event.event_id async for event in events] == [1, 2]
    assert all(r.wait_new_event for r in server.requests_of(GetWorkflowHistoryRequest))


async def test_list_workflows_with_filter_gives_every_page(server: CannedServer, client: Client):
    def found(workflow_id: str) -> WorkflowExecutionInfo:
        return WorkflowExecutionInfo(
            execution=WorkflowExecution(workflow_id=workflow_id, run_id="r"),
            status=WORKFLOW_EXECUTION_STATUS_COMPLETED,
        )

    server.on(
        "ListWorkflows",
        ListWorkflowsResponse(executions=[found("a")], next_page_token=b"n"),
        ListWorkflowsResponse(executions=[found("b")]),
    )
    chosen = ListFilter(workflow_type="T", statuses=[WorkflowStatus.COMPLETED])
    runs = [run async for run in client.list_workflows(chosen, page_size=1)]
    assert [(run.workflow_id, run.status) for run in runs] == [
        ("a", WorkflowStatus.COMPLETED),
        ("b", WorkflowStatus.COMPLETED),
    ]
    first, second = server.requests_of(ListWorkflowsRequest)
    assert first.filter.statuses == [WORKFLOW_EXECUTION_STATUS_COMPLETED]
    assert (first.page_token, second.page_token, second.page_size) == (b"", b"n", 1)


async def test_describe_gives_what_is_pending(server: CannedServer, client: Client):
    response = make(
        DescribeWorkflowResponse,
        workflow_execution_info={
            "execution": {"workflow_id": "w", "run_id": "r"},
            "status": workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING,
            "start_time": datetime(2026, 1, 1, tzinfo=UTC),
            "memo": {"fields": {"m": CONVERTER.to_payload(1)}},
        },
        execution_config={"workflow_task_timeout": timedelta(seconds=10)},
        pending_activities=[
            {
                "activity_id": "1",
                "state": workflow_pb2.PENDING_ACTIVITY_STATE_STARTED,
                "heartbeat_details": payloads(50),
                "last_failure": {"message": "first try"},
                "attempts": [{"attempt": 1, "failure": {"message": "first try"}}],
            }
        ],
        pending_timers=[{"timer_id": "t"}],
        pending_workflow_task={"attempt": 2},
        cancel_requested=True,
    )
    server.on("DescribeWorkflow", response)
    description = await client.get_workflow_handle("w").describe()
    assert description.status is WorkflowStatus.RUNNING
    assert description.info.start_time == datetime(2026, 1, 1, tzinfo=UTC)
    assert (description.info.close_time, description.run_timeout) == (None, None)
    assert description.info.memo == {"m": 1}
    assert description.task_timeout == timedelta(seconds=10)
    (activity,) = description.pending_activities
    assert (activity.state, activity.heartbeat_details) == ("STARTED", (50,))
    assert str(activity.attempts[0].failure) == "first try"
    assert description.pending_timers[0].timer_id == "t"
    assert description.pending_workflow_task is not None
    assert description.cancel_requested


# -- interceptors


class Named(ClientInterceptor):
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def intercept(self, next_outbound: ClientOutbound) -> ClientOutbound:
        return NamedOutbound(next_outbound, self.name, self.calls)


class NamedOutbound(ClientOutbound):
    def __init__(self, next_outbound: ClientOutbound, name: str, calls: list[str]) -> None:
        super().__init__(next_outbound)
        self.name, self.calls = name, calls

    async def start_workflow(self, request: StartWorkflowInput) -> StartedWorkflow:
        self.calls.append(self.name)
        headers = {**request.headers, self.name: CONVERTER.to_payload(1)}
        return await super().start_workflow(replace(request, headers=headers))


async def test_interceptors_wrap_calls_the_first_outermost(server: CannedServer):
    calls: list[str] = []
    server.on("StartWorkflow", StartWorkflowResponse(run_id="r", started=True))
    server.on("ListWorkflows", ListWorkflowsResponse())
    interceptors = [Named("outer", calls), Named("inner", calls)]
    async with await Client.connect(server.address, interceptors=interceptors) as client:
        await client.start_workflow("w", id="w", task_queue="q")
        assert [run async for run in client.list_workflows()] == []
    assert calls == ["outer", "inner"]
    (request,) = server.requests_of(StartWorkflowRequest)
    assert set(request.header.fields) == {"outer", "inner"}


async def test_connect_without_arguments_takes_them_from_the_environment(
    server: CannedServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AETHERIS_ADDRESS", server.address)
    monkeypatch.setenv("AETHERIS_NAMESPACE", "from-env")
    async with await Client.connect() as client:
        assert client.namespace == "from-env"
