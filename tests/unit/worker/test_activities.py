"""Attempts of activities, against a server that gives the tasks that a test has put there."""

import asyncio
import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from aetheris.api.v1.worker_service_pb2 import (
    ActivityCancellation,
    ActivityCancellationReason,
    ActivityTask,
    PollActivityTasksResponse,
    RecordActivityTaskHeartbeatResponse,
    TaskAnswer,
    TaskAnswerError,
)
from aetheris_client.errors import ApplicationError, CancelledError
from aetheris_worker import Worker, activity, session
from aetheris_worker.activities.calls import call_async
from aetheris_worker.testing import ActivityEnvironment
from tests.support.wait import wait_until
from tests.unit.worker.task_server import TaskServer, value_of, working

NOT_FOUND, INVALID_ARGUMENT = 5, 3


@activity.defn
async def add(left: int, right: int) -> int:
    return left + right


@activity.defn
def slow_double(number: int) -> int:
    assert threading.current_thread().name.startswith("aetheris-activity")
    return 2 * number


@activity.defn
async def fail(message: str) -> None:
    activity.heartbeat("got", 1)
    activity.heartbeat("got", 2)
    raise ApplicationError(message, "detail", type="Broken", non_retryable=True)


@activity.defn
async def wait_long() -> str:
    activity.heartbeat()
    await asyncio.sleep(60)
    return "never"


@activity.defn
def beat_until_cancelled() -> str:
    try:
        while True:
            activity.heartbeat("working")
            time.sleep(0.001)
    except CancelledError as error:
        assert activity.is_cancelled()
        raise CancelledError("stopped", str(error)) from error


@activity.defn
async def ignore_cancellation() -> str:
    work = asyncio.create_task(activity.wait_for_cancelled())
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await work
    return "finished anyway"


@activity.defn
def block_in_a_thread() -> str:
    return str(activity.wait_for_cancelled_sync(30))


ALL = [
    add,
    slow_double,
    fail,
    wait_long,
    beat_until_cancelled,
    ignore_cancellation,
    block_in_a_thread,
]


def cancellation(server: TaskServer, attempt: int = 0) -> None:
    """Tell the worker's poll to cancel what runs."""
    word = ActivityCancellation(scheduled_event_id=5, attempt=attempt)
    word.workflow_execution.run_id = "run-1"
    server.activity_polls.put_nowait(PollActivityTasksResponse(cancellations=[word]))


async def last_answer(server: TaskServer) -> TaskAnswer:
    """The first one that is not a heartbeat."""
    count = 1
    while (answer := await server.wait_answer(count)).HasField("activity_task_heartbeat"):
        count += 1
    return answer


@pytest.mark.parametrize("name, arguments, result", [("add", (1, 2), 3), ("slow_double", (4,), 8)])
async def test_activity_that_returns_answers_with_its_result(
    name: str, arguments: tuple[int, ...], result: int
) -> None:
    server = TaskServer()
    server.add_activity(name, *arguments)
    async with working(server, activities=ALL) as worker:
        completed = (await server.wait_answer()).activity_task_completed
        assert value_of(completed.result) == result
        assert completed.task_token == name.encode()
        assert completed.sticky_task_queue == worker.config.sticky_task_queue


async def test_activity_that_raises_answers_with_failure_and_last_heartbeat() -> None:
    server = TaskServer()
    server.add_activity("fail", "no more", heartbeat_timeout=timedelta(seconds=30))
    async with working(server, activities=ALL):
        failed = (await last_answer(server)).activity_task_failed
    info = failed.failure.application_failure_info
    assert (failed.failure.message, info.type, info.non_retryable) == ("no more", "Broken", True)
    assert value_of(info.details) == "detail"
    assert [payload.data for payload in failed.last_heartbeat_details.payloads] == [b'"got"', b"2"]


async def test_activity_of_unknown_type_fails_saying_what_there_is() -> None:
    server = TaskServer()
    server.add_activity("unheard of")
    async with working(server, activities=[add]):
        failed = (await server.wait_answer()).activity_task_failed
    assert failed.failure.message == (
        "activity type 'unheard of' is not registered here; there are ['add']"
    )


async def test_activity_with_wrong_arguments_fails() -> None:
    server = TaskServer()
    server.add_activity("add", 1)
    async with working(server, activities=[add]):
        failed = (await server.wait_answer()).activity_task_failed
    assert failed.failure.application_failure_info.type == "TypeError"


@pytest.mark.parametrize("name", ["wait_long", "beat_until_cancelled"])
async def test_cancellation_by_poll_ends_the_activity_as_cancelled(name: str) -> None:
    server = TaskServer()
    server.add_activity(name)
    async with working(server, activities=ALL):
        await server.wait_answer()
        cancellation(server)
        answer = await last_answer(server)
    cancelled = answer.activity_task_cancelled
    assert cancelled.task_token == name.encode()
    if name == "beat_until_cancelled":
        assert value_of(cancelled.details) == "cancellation was requested"


async def test_cancellation_by_heartbeat_ends_the_activity_as_cancelled() -> None:
    server = TaskServer()
    server.result_of(
        "activity_task_heartbeat",
        activity_task_heartbeat=RecordActivityTaskHeartbeatResponse(cancel_requested=True),
    )
    server.add_activity("wait_long")
    async with working(server, activities=ALL):
        assert (await last_answer(server)).HasField("activity_task_cancelled")


async def test_activity_that_ignores_cancellation_answers_with_its_result() -> None:
    server = TaskServer()
    server.add_activity("ignore_cancellation")
    cancellation(server)
    async with working(server, activities=ALL):
        answer = await last_answer(server)
    assert value_of(answer.activity_task_completed.result) == "finished anyway"


async def test_heartbeat_that_is_not_known_any_more_stops_the_activity_without_answer() -> None:
    server = TaskServer()
    gone = TaskAnswerError(code=NOT_FOUND, message="timed out")
    server.result_of("activity_task_heartbeat", error=gone)
    server.add_activity("wait_long")
    server.add_activity("add", 1, 2, scheduled_event_id=6)
    async with working(server, activities=ALL, max_concurrent_activities=1):
        # There is one slot: that the second activity runs shows that the first one has ended.
        answer = await last_answer(server)
    assert answer.activity_task_completed.task_token == b"add"


async def test_result_that_is_refused_becomes_a_failure() -> None:
    server = TaskServer()
    refusal = TaskAnswerError(code=INVALID_ARGUMENT, message="result: too large")
    server.result_of("activity_task_completed", error=refusal)
    server.add_activity("add", 1, 2)
    async with working(server, activities=ALL):
        failed = (await server.wait_answer(2)).activity_task_failed
    assert failed.failure.message == "result: too large"
    assert failed.failure.application_failure_info.non_retryable


@activity.defn
def stop_iteration() -> None:
    next(iter(()))


@activity.defn
def exit_plain() -> None:
    sys.exit(3)


@activity.defn
async def exit_async() -> None:
    sys.exit(3)


@activity.defn
async def exit_generator() -> None:
    raise GeneratorExit


@activity.defn
async def fail_unspeakably() -> None:
    raise ApplicationError("\udc80", object(), type="Odd", non_retryable=True)


@pytest.mark.parametrize(
    "function, cause",
    [
        (stop_iteration, "StopIteration"),
        (exit_plain, "SystemExit"),
        (exit_async, "SystemExit"),
        (exit_generator, "GeneratorExit"),
    ],
)
async def test_activity_that_raises_no_plain_exception_fails_and_frees_its_slot(
    function: Callable[..., Any], cause: str
) -> None:
    server = TaskServer()
    server.add_activity(function.__name__)
    server.add_activity("add", 1, 2, scheduled_event_id=6)
    async with working(server, activities=[function, add], max_concurrent_activities=1):
        failure = (await server.wait_answer()).activity_task_failed.failure
        assert (await server.wait_answer(2)).HasField("activity_task_completed")
    assert failure.message == f"the activity raised {cause}"
    assert failure.application_failure_info.type == "RuntimeError"
    assert failure.cause.application_failure_info.type == cause


@activity.defn
async def outstay() -> None:
    await asyncio.Event().wait()


@activity.defn
def outstay_in_a_thread() -> None:
    assert activity.wait_for_cancelled_sync(30)
    assert activity.cancel_reason() is activity.CancelReason.TIMED_OUT
    activity.heartbeat()


@pytest.mark.parametrize("limit", ["start_to_close_timeout", "schedule_to_close_timeout"])
@pytest.mark.parametrize("function", [outstay, outstay_in_a_thread])
async def test_attempt_whose_time_is_up_stops_and_frees_its_slot_though_it_sends_no_heartbeat(
    function: Callable[..., Any], limit: str
) -> None:
    server = TaskServer()
    server.add_activity(function.__name__, **{limit: Duration(nanos=50_000_000)})
    server.add_activity("add", 1, 2, scheduled_event_id=6)
    async with working(server, activities=[function, add], max_concurrent_activities=1):
        answer = await server.wait_answer()
    assert value_of(answer.activity_task_completed.result) == 3
    assert len(server.answers) == 1


async def behind_a_decorator() -> int:
    return 1


class Called:
    async def __call__(self, number: int) -> int:
        return number


@pytest.mark.parametrize("function", [Called(), functools.partial(Called().__call__)])
async def test_environment_knows_every_async_callable_as_the_worker_does(
    function: Callable[..., Any],
) -> None:
    assert await ActivityEnvironment().run(function, 5) == 5


@activity.defn
@functools.wraps(behind_a_decorator)
def wrap_plainly() -> object:
    return behind_a_decorator()


async def test_plain_activity_that_leaves_a_coroutine_says_so_and_is_not_tried_again() -> None:
    server = TaskServer()
    server.add_activity("behind_a_decorator")
    async with working(server, activities=[wrap_plainly]):
        failure = (await server.wait_answer()).activity_task_failed.failure
    assert "its wrapper has to be `async def`" in failure.message
    assert failure.application_failure_info.type == "CoroutineReturned"
    assert failure.application_failure_info.non_retryable


@activity.defn
async def fail_in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail_unspeakably())


async def test_activity_whose_group_has_a_final_error_says_so_and_what_it_was() -> None:
    server = TaskServer()
    server.add_activity("fail_in_group")
    async with working(server, activities=[fail_in_group]):
        failure = (await server.wait_answer()).activity_task_failed.failure
    assert "ApplicationError: Odd: \\udc80" in failure.message
    assert failure.application_failure_info.non_retryable
    assert failure.cause.application_failure_info.type == "Odd"


def test_activity_whose_loop_went_away_is_closed_and_answers_nothing() -> None:
    waits = call_async(asyncio.Event().wait, [])
    loop = asyncio.new_event_loop()
    task = loop.create_task(waits)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert not task.done()
    waits.close()
    assert waits.cr_frame is None
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()


async def test_failure_that_cannot_be_recorded_as_it_is_keeps_type_and_retryability() -> None:
    server = TaskServer()
    server.add_activity("fail_unspeakably")
    async with working(server, activities=[fail_unspeakably]):
        failure = (await server.wait_answer()).activity_task_failed.failure
    assert failure.message.startswith("\\udc80 (details left out")
    assert failure.application_failure_info.type == "Odd"
    assert failure.application_failure_info.non_retryable


async def test_failure_that_is_refused_is_sent_trimmed() -> None:
    @activity.defn
    async def fail_retryably() -> None:
        activity.heartbeat("far too much")
        raise ApplicationError("no", "much too much", type="Broken") from ValueError("root")

    server = TaskServer()
    refusal = TaskAnswerError(code=INVALID_ARGUMENT, message="failure: too large")
    server.result_of("activity_task_failed", error=refusal)
    server.add_activity("fail_retryably")
    async with working(server, activities=[fail_retryably]):
        first = (await server.wait_answer()).activity_task_failed
        second = (await server.wait_answer(2)).activity_task_failed
    assert first.failure.application_failure_info.HasField("details")
    assert not second.HasField("last_heartbeat_details")
    assert not second.failure.HasField("cause")
    assert not second.failure.application_failure_info.HasField("details")
    assert second.failure.application_failure_info.type == "Broken"
    assert not second.failure.application_failure_info.non_retryable
    assert second.failure.message == "no (details left out: failure: too large)"


async def test_next_attempt_stops_the_one_before_and_leaves_its_slot() -> None:
    server = TaskServer()
    server.add_activity("wait_long")
    async with working(server, activities=ALL, max_concurrent_activities=2):
        await server.wait_answer()
        server.add_activity("block_in_a_thread", attempt=2)
        # It only gets the slot of the first attempt; the second one goes on.
        server.add_activity("add", 1, 2, scheduled_event_id=6)
        answer = await last_answer(server)
        assert answer.activity_task_completed.task_token == b"add"
        cancellation(server, attempt=1)
        cancellation(server, attempt=2)
        await server.wait_answer(3)
    assert [answer.WhichOneof("answer") for answer in server.answers] == [
        "activity_task_heartbeat",
        "activity_task_completed",
        "activity_task_completed",
    ]


async def test_cancellation_of_another_attempt_leaves_the_running_one_alone() -> None:
    server = TaskServer()
    server.add_activity("wait_long", attempt=2)
    async with working(server, activities=ALL):
        await server.wait_answer()
        cancellation(server, attempt=1)
        server.add_activity("add", 1, 2, scheduled_event_id=6)
        answer = await last_answer(server)
        assert answer.activity_task_completed.task_token == b"add"
        cancellation(server, attempt=2)
        assert (await server.wait_answer(3)).HasField("activity_task_cancelled")


async def test_heartbeat_that_is_refused_is_said_once_and_goes_out_without_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @activity.defn
    async def beat_and_wait() -> None:
        activity.heartbeat("too much")
        await asyncio.sleep(60)

    server = TaskServer()
    refusal = TaskAnswerError(code=INVALID_ARGUMENT, message="details: too large")
    server.result_of("activity_task_heartbeat", error=refusal)
    server.add_activity("beat_and_wait")
    with caplog.at_level(logging.WARNING):
        async with working(server, activities=[beat_and_wait]):
            first = (await server.wait_answer()).activity_task_heartbeat
            second = (await server.wait_answer(2)).activity_task_heartbeat
            cancellation(server)
            await server.wait_answer(3)
    assert (first.HasField("details"), second.HasField("details")) == (True, False)
    assert caplog.text.count("details: too large") == 1


async def test_task_that_comes_twice_runs_once() -> None:
    server = TaskServer()
    server.add_activity("block_in_a_thread")
    server.add_activity("block_in_a_thread")
    async with working(server, activities=ALL):
        server.add_activity("add", 1, 2, scheduled_event_id=6)
        await server.wait_answer()
        cancellation(server)
        await server.wait_answer(2)
    assert [answer.activity_task_completed.task_token for answer in server.answers] == [
        b"add",
        b"block_in_a_thread",
    ]


async def test_shutdown_lets_activities_finish_in_time() -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    @activity.defn
    async def finish_later() -> str:
        started.set()
        await finish.wait()
        return "done"

    server = TaskServer()
    server.add_activity("finish_later")
    async with working(server, activities=[finish_later]) as worker:
        await started.wait()
        stopping = asyncio.create_task(worker.shutdown())
        await asyncio.sleep(0)
        finish.set()
        await stopping
    assert value_of(server.answers[0].activity_task_completed.result) == "done"


@pytest.mark.parametrize("name", ["wait_long", "beat_until_cancelled"])
async def test_shutdown_cancels_what_takes_too_long_and_says_so(name: str) -> None:
    server = TaskServer()
    server.add_activity(name)
    async with working(server, activities=ALL, graceful_shutdown_timeout=timedelta(0)):
        await server.wait_answer()
    failed = (await last_answer(server)).activity_task_failed
    assert failed.failure.application_failure_info.type == "WorkerShutdown"
    assert not failed.failure.application_failure_info.non_retryable


async def test_shutdown_does_not_wait_for_what_swallows_its_cancellation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("CANCEL_GRACE", "LAST_ANSWERS_GRACE", "ABANDON_GRACE"):
        monkeypatch.setattr(session, name, 0.05)
    release = asyncio.Event()

    @activity.defn
    async def never_stop() -> None:
        activity.heartbeat()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    server = TaskServer()
    server.add_activity("never_stop")
    async with asyncio.timeout(10):
        async with working(server, activities=[never_stop], graceful_shutdown_timeout=timedelta(0)):
            await server.wait_answer()
    release.set()
    assert "in spite of cancellation: never_stop" in caplog.text


async def test_worker_that_is_cancelled_tells_activities_that_it_shuts_down() -> None:
    reasons: list[activity.CancelReason | None] = []

    @activity.defn
    async def ask_why() -> None:
        activity.heartbeat()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            reasons.append(activity.cancel_reason())
            raise

    server = TaskServer()
    server.add_activity("ask_why")
    async with server.canned:
        worker = Worker(server.canned.address, task_queue="queue", activities=[ask_why])
        running = asyncio.create_task(worker.run())
        await server.wait_answer()
        running.cancel()
        await asyncio.wait([running], timeout=10)
    assert reasons == [activity.CancelReason.SHUTDOWN]


async def test_environment_runs_activities_and_keeps_heartbeats() -> None:
    environment = ActivityEnvironment()
    assert await environment.run(add, 1, 2) == 3
    with pytest.raises(ApplicationError):
        await environment.run(fail, "no")
    assert environment.heartbeats == [("got", 1), ("got", 2)]


async def test_environment_cancels_async_and_plain_activities() -> None:
    environment = ActivityEnvironment()
    running = asyncio.ensure_future(environment.run(wait_long))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    task = asyncio.create_task(asyncio.to_thread(environment.run, block_in_a_thread))
    await wait_until(lambda: environment._attempt and environment._attempt._on_cancel)
    environment.cancel()
    assert await task == "True"


def test_environment_shows_the_task_as_info() -> None:
    @activity.defn
    def look() -> tuple[str, int]:
        info = activity.info()
        return info.workflow_id, info.attempt

    environment = ActivityEnvironment()
    environment.task.attempt = 3
    assert environment.run(look) == ("workflow", 3)


def test_activity_functions_outside_of_an_activity_say_so() -> None:
    with pytest.raises(activity.NotInActivityError, match=r"activity\.info was called outside"):
        activity.info()
    assert not activity.in_activity()


seen_details: list[activity.CancellationDetails | None] = []


has_begun = threading.Event()


@activity.defn
async def heed() -> None:
    has_begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        seen_details.append(activity.cancellation_details())


@activity.defn
def heed_in_a_thread() -> None:
    has_begun.set()
    assert activity.wait_for_cancelled_sync(30)
    seen_details.append(activity.cancellation_details())
    activity.heartbeat()


_BREAKS = [("PAUSED", "ActivityPause", "paused"), ("RESET", "ActivityReset", "reset")]


@pytest.mark.parametrize("reason,type_,detail", _BREAKS)
@pytest.mark.parametrize("function", [heed, heed_in_a_thread])
async def test_pause_and_reset_break_an_attempt_off_and_say_why(
    function: Callable[..., Any], reason: str, type_: str, detail: str
) -> None:
    seen_details.clear()
    has_begun.clear()
    server = TaskServer()
    task = server.add_activity(function.__name__)
    notice = ActivityCancellation(
        workflow_execution=task.workflow_execution,
        scheduled_event_id=task.scheduled_event_id,
        attempt=task.attempt,
        reason=ActivityCancellationReason.Value(f"ACTIVITY_CANCELLATION_REASON_{reason}"),
    )
    async with working(server, activities=[function]):
        await wait_until(has_begun.is_set, what="it runs")
        server.activity_polls.put_nowait(PollActivityTasksResponse(cancellations=[notice]))
        answer = await server.wait_answer()
    info = answer.activity_task_failed.failure.application_failure_info
    assert (info.type, info.non_retryable) == (type_, False)
    assert seen_details == [activity.CancellationDetails(**{detail: True})]


async def test_attempt_after_a_reset_runs_beside_the_first_one_and_ends_it() -> None:
    seen_details.clear()
    has_begun.clear()
    server = TaskServer()
    first = server.add_activity("heed")
    again = ActivityTask()
    again.CopyFrom(first)
    again.attempt_number = 3
    async with working(server, activities=[heed], max_concurrent_activities=2):
        await wait_until(has_begun.is_set, what="the first runs")
        server.activity_polls.put_nowait(PollActivityTasksResponse(tasks=[again]))
        await wait_until(lambda: len(seen_details) == 1, what="the first ends")
        assert seen_details == [activity.CancellationDetails(gone=True)]
