"""Workflow tasks, against a server that gives the tasks that a test has put there."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1.history_pb2 import WorkflowTaskFailedCause
from aetheris.api.v1.worker_service_pb2 import (
    ActivityTask,
    QueryResultType,
    RespondActivityTaskCompletedResponse,
    RespondTasksRequest,
    RespondTasksResponse,
    RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
    TaskAnswerError,
    TaskAnswerResult,
    WorkflowTask,
)
from aetheris.api.v1.workflow_service_pb2 import GetWorkflowHistoryRequest
from aetheris_worker import activity, workflow
from tests.support.history_builder import HistoryBuilder
from tests.unit.worker.driver import summary
from tests.unit.worker.task_server import TaskServer, value_of, working

MINUTE = timedelta(minutes=1)


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Doubles:
    def __init__(self) -> None:
        self.results: list[int] = []

    @workflow.query
    def so_far(self) -> list[int]:
        return self.results

    @workflow.query
    def fails(self) -> None:
        raise KeyError("no answer")

    @workflow.run
    async def run(self, count: int) -> list[int]:
        for number in range(count):
            result = await workflow.execute_activity(
                double, number, start_to_close_timeout=MINUTE, capabilities=["math"]
            )
            self.results.append(result)
        return self.results


def options(**more: Any) -> dict[str, Any]:
    return {"workflows": [Doubles], "activities": [double], **more}


def begin(count: int = 2) -> HistoryBuilder:
    """A run at its first task."""
    history = HistoryBuilder("Doubles", count)
    history.task_started()
    return history


def proceed(history: HistoryBuilder, number: int) -> int:
    """The task is completed, its activity gave a result, the next task begins; returns the id of
    the first event that is new then.
    """
    first_new = history.task_completed()
    scheduled = history.activity_scheduled(str(number), "double")
    history.activity_completed(scheduled, 2 * (number - 1))
    history.task_started()
    return first_new


def fetch_count(server: TaskServer) -> int:
    return len(server.canned.requests_of(GetWorkflowHistoryRequest))


async def decision(server: TaskServer, number: int) -> RespondWorkflowTaskCompletedRequest:
    """The answer of that number; it must be a decision."""
    answer = await server.wait_answer(number)
    assert answer.HasField("workflow_task_completed"), answer
    return answer.workflow_task_completed


async def test_first_task_is_answered_with_commands_and_a_sticky_queue() -> None:
    server = TaskServer()
    server.workflow_tasks.put_nowait(server.task_of(begin()))
    async with working(server, **options()) as worker:
        completed = await decision(server, 1)
    assert [summary(command) for command in completed.commands] == ["activity 1 double"]
    sticky = completed.sticky_attributes.worker_task_queue
    assert sticky == worker.config.sticky_task_queue != "queue"
    assert completed.return_new_workflow_task
    assert completed.task_token == b"task"


async def test_task_of_a_cached_run_needs_no_history() -> None:
    server, history = TaskServer(), begin()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        await decision(server, 1)
        server.workflow_tasks.put_nowait(server.task_of(history, proceed(history, 1)))
        completed = await decision(server, 2)
    assert [summary(command) for command in completed.commands] == ["activity 2 double"]
    assert fetch_count(server) == 0


async def test_whole_history_of_a_cached_run_is_accepted() -> None:
    server, history = TaskServer(), begin()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        await decision(server, 1)
        previous = proceed(history, 1) - 1
        task = server.task_of(history)
        task.previous_started_event_id = previous
        server.workflow_tasks.put_nowait(task)
        await decision(server, 2)


async def test_new_events_of_a_run_that_is_not_cached_make_the_worker_fetch_the_rest() -> None:
    server, history = TaskServer(), begin()
    server.workflow_tasks.put_nowait(server.task_of(history, proceed(history, 1)))
    async with working(server, **options()):
        completed = await decision(server, 1)
    assert [summary(command) for command in completed.commands] == ["activity 2 double"]
    assert fetch_count(server) > 1


async def test_history_in_pages_is_read_to_its_end() -> None:
    server, history = TaskServer(), begin()
    proceed(history, 1)
    task = server.task_of(history)
    del task.history.events[3:]
    task.next_page_token = b"3"
    server.workflow_tasks.put_nowait(task)
    async with working(server, **options()):
        completed = await decision(server, 1)
    assert [summary(command) for command in completed.commands] == ["activity 2 double"]


async def test_pages_of_new_events_continue_a_cached_run() -> None:
    server, history = TaskServer(), begin()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        await decision(server, 1)
        first_new = proceed(history, 1)
        task = server.task_of(history, first_new)
        del task.history.events[2:]
        task.next_page_token = str(first_new + 1).encode()
        server.workflow_tasks.put_nowait(task)
        completed = await decision(server, 2)
    assert [summary(command) for command in completed.commands] == ["activity 2 double"]
    # The one page is behind the token; with the ones before it there would be four.
    assert fetch_count(server) == 2


async def test_worker_that_caches_nothing_replays_every_time() -> None:
    server, history = TaskServer(), begin()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options(max_cached_workflows=0)):
        completed = await decision(server, 1)
        assert not completed.HasField("sticky_attributes")
        assert not completed.return_new_workflow_task
        proceed(history, 1)
        server.workflow_tasks.put_nowait(server.task_of(history))
        await decision(server, 2)


async def test_decision_that_is_not_taken_evicts_the_run() -> None:
    server, history = TaskServer(), begin()
    server.result_of("workflow_task_completed", error=TaskAnswerError(code=5, message="stale"))
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        await decision(server, 1)
        server.workflow_tasks.put_nowait(server.task_of(history, proceed(history, 1)))
        await decision(server, 2)
    assert fetch_count(server) > 0


async def test_decision_that_the_border_refuses_fails_its_task_and_says_why() -> None:
    server = TaskServer()
    refusal = TaskAnswerError(code=3, message="commands: expected at most 10000, found 12000")
    server.result_of("workflow_task_completed", error=refusal)
    server.workflow_tasks.put_nowait(server.task_of(begin()))
    async with working(server, **options()):
        answer = await server.wait_answer(2)
    assert answer.HasField("workflow_task_failed"), answer
    assert refusal.message in answer.workflow_task_failed.failure.message


async def test_activity_of_a_decision_is_run_at_once_where_it_can_be() -> None:
    server, history = TaskServer(), begin()
    eager = ActivityTask(task_token=b"eager", attempt=1, scheduled_event_id=5)
    eager.activity_type.name = "double"
    eager.workflow_execution.run_id = history.run_id
    eager.input.payloads.add(metadata={"encoding": b"json/plain"}, data=b"4")
    server.result_of(
        "workflow_task_completed",
        workflow_task_completed=RespondWorkflowTaskCompletedResponse(activity_tasks=[eager]),
    )
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options(capabilities=["math"])):
        completed = await decision(server, 1)
        assert completed.commands[
            0
        ].schedule_activity_task_command_attributes.request_eager_execution
        assert completed.capabilities == ["math"]
        answer = (await server.wait_answer(2)).activity_task_completed
    assert value_of(answer.result) == 8


@pytest.mark.parametrize(
    "setting",
    [{"capabilities": []}, {"activities": []}, {"capabilities": ["math"], "activities": []}],
)
async def test_activity_that_could_not_run_here_is_not_asked_for(setting: dict[str, Any]) -> None:
    server = TaskServer()
    server.workflow_tasks.put_nowait(server.task_of(begin()))
    async with working(server, **options(**setting)):
        completed = await decision(server, 1)
    scheduled = completed.commands[0].schedule_activity_task_command_attributes
    assert not scheduled.request_eager_execution


async def test_workflow_task_that_comes_with_an_answer_is_done_at_once() -> None:
    server, history = TaskServer(), begin()
    first = server.task_of(history)
    next_task = server.task_of(history, proceed(history, 1))
    third_task = server.task_of(history, proceed(history, 2))
    server.result_of(
        "workflow_task_completed",
        workflow_task_completed=RespondWorkflowTaskCompletedResponse(workflow_task=next_task),
    )
    server.result_of(
        "activity_task_completed",
        activity_task_completed=RespondActivityTaskCompletedResponse(workflow_task=third_task),
    )
    server.workflow_tasks.put_nowait(first)
    async with working(server, **options()):
        await decision(server, 2)
        server.add_activity("double", 1)
        completed = await decision(server, 4)
    assert [summary(command) for command in completed.commands] == ["complete"]


async def test_code_that_raises_fails_the_task_and_evicts_the_run() -> None:
    server = TaskServer()
    history = HistoryBuilder("Doubles", "not a number")
    history.task_started()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        failed = (await server.wait_answer()).workflow_task_failed
    assert failed.cause == cause("WORKFLOW_WORKER_UNHANDLED_FAILURE")
    assert failed.failure.application_failure_info.type == "PayloadDecodeError"


async def test_unknown_workflow_type_fails_the_task_saying_what_there_is() -> None:
    server = TaskServer()
    history = HistoryBuilder("Unheard")
    history.task_started()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        failed = (await server.wait_answer()).workflow_task_failed
    assert failed.failure.message == (
        "workflow type 'Unheard' is not registered here; there are ['Doubles']"
    )


async def test_code_that_changed_fails_the_task_as_nondeterministic() -> None:
    server, history = TaskServer(), begin()
    history.task_completed()
    history.activity_scheduled("1", "triple")
    history.task_started()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        failed = (await server.wait_answer()).workflow_task_failed
    assert failed.cause == cause("NON_DETERMINISTIC_ERROR")
    assert failed.failure.message == (
        "nondeterminism at event 5 (ACTIVITY_TASK_SCHEDULED): history has activity '1' of type "
        "'triple'; the code scheduled activity '1' of type 'double'"
    )


def query_task(server: TaskServer, history: HistoryBuilder, name: str) -> WorkflowTask:
    task = server.task_of(history)
    task.previous_started_event_id = task.started_event_id
    task.started_event_id = 0
    task.task_token = b"query"
    task.query.query_type = name
    return task


@pytest.mark.parametrize("cached", [True, False])
async def test_query_is_answered_from_the_cache_or_by_replay(cached: bool) -> None:
    server, history = TaskServer(), begin()
    proceed(history, 1)
    if cached:
        server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        if cached:
            await decision(server, 1)
        history.task_completed()
        history.activity_scheduled("2", "double")
        task = query_task(server, history, "so_far")
        if cached:
            del task.history.events[:]
        server.workflow_tasks.put_nowait(task)
        answer = await server.wait_answer(2 if cached else 1)
    result = answer.query_task_completed.result
    assert result.result_type == QueryResultType.QUERY_RESULT_TYPE_ANSWERED
    assert value_of(result.answer) == [0]
    assert answer.query_task_completed.task_token == b"query"


async def test_query_is_not_asked_of_a_decision_that_the_server_may_not_take() -> None:
    server, history = TaskServer(), begin()
    other = HistoryBuilder("Doubles", 1, run_id="run-2")
    other.task_started()
    asked = query_task(server, begin(), "so_far")
    taking = asyncio.Event()

    async def respond(request: RespondTasksRequest) -> RespondTasksResponse:
        if request.answers[0].workflow_task_completed.task_token != b"refused":
            return await server.respond(request)
        # In this order: the code of the other run has its turn behind the query.
        server.workflow_tasks.put_nowait(asked)
        server.workflow_tasks.put_nowait(server.task_of(other))
        await taking.wait()
        stale = TaskAnswerError(code=5, message="stale")
        return RespondTasksResponse(results=[TaskAnswerResult(error=stale)])

    server.canned.on("RespondTasks", respond)
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, **options()):
        await decision(server, 1)
        refused = server.task_of(history, proceed(history, 1))
        refused.task_token = b"refused"
        server.workflow_tasks.put_nowait(refused)
        await decision(server, 2)
        taking.set()
        answer = await server.wait_answer(3)
    assert value_of(answer.query_task_completed.result.answer) == []


@pytest.mark.parametrize(
    "name, message", [("fails", "'no answer'"), ("unheard", "query 'unheard' not found")]
)
async def test_query_that_fails_answers_with_why(name: str, message: str) -> None:
    server, history = TaskServer(), begin()
    history.task_completed()
    history.activity_scheduled("1", "double")
    server.workflow_tasks.put_nowait(query_task(server, history, name))
    async with working(server, **options()):
        result = (await server.wait_answer()).query_task_completed.result
    assert result.result_type == QueryResultType.QUERY_RESULT_TYPE_FAILED
    assert message in result.error_message
    assert message in result.failure.message


async def test_queries_that_come_with_a_task_are_answered_with_the_decision() -> None:
    server, history = TaskServer(), begin()
    proceed(history, 1)
    task = server.task_of(history)
    task.queries["q1"].query_type = "so_far"
    task.queries["q2"].query_type = "fails"
    server.workflow_tasks.put_nowait(task)
    async with working(server, **options()):
        results = (await decision(server, 1)).query_results
    assert value_of(results["q1"].answer) == [0]
    assert results["q2"].result_type == QueryResultType.QUERY_RESULT_TYPE_FAILED


def cause(name: str) -> WorkflowTaskFailedCause.ValueType:
    return WorkflowTaskFailedCause.Value(f"WORKFLOW_TASK_FAILED_CAUSE_{name}")
