import asyncio
from datetime import timedelta

import pytest

from aetheris.api.v1.common_pb2 import Payloads
from aetheris_client.errors import ActivityError, ApplicationError, CancelledError
from aetheris_client.errors import TimeoutError as FailureTimeoutError
from aetheris_worker import activity, workflow
from aetheris_worker.runtime.errors import HistoryError
from aetheris_worker.workflow import ActivityCancellationType
from tests.unit.worker.driver import Session, machine_of

MINUTE = timedelta(minutes=1)


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class OneActivity:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_activity(double, number, start_to_close_timeout=MINUTE)


def test_run_with_one_activity_completes_with_its_result() -> None:
    session = Session(OneActivity, 4)
    assert session.step() == ["activity 1 double"]
    session.history.activity_completed(5, 8)
    assert session.step() == ["complete"]
    assert session.result() == 8
    assert session.machine.is_closed


def test_replay_of_a_closed_history_agrees() -> None:
    session = Session(OneActivity, 4)
    session.step()
    session.history.activity_completed(5, 8)
    session.step()
    assert session.replay().is_closed


def test_activity_that_failed_raises_activity_error_with_its_cause() -> None:
    session = Session(OneActivity, 4)
    session.step()
    session.history.activity_failed(5, "no more")
    assert session.step() == ["fail activity 'double' failed"]


@workflow.defn
class Catches:
    def __init__(self) -> None:
        self.caught: BaseException | None = None

    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.execute_activity("work", start_to_close_timeout=MINUTE)
        except ActivityError as error:
            self.caught = error


def test_activity_that_failed_shows_type_and_message_of_the_failure() -> None:
    session = Session(Catches)
    session.step()
    session.history.activity_failed(5, "no more")
    session.step()
    cause = session.machine._entry._instance.caught.cause
    assert isinstance(cause, ApplicationError)
    assert (cause.type, cause.message) == ("Broken", "no more")


def test_activity_that_timed_out_raises_with_a_timeout_as_cause() -> None:
    session = Session(Catches)
    session.step()
    session.history.activity_timed_out(5)
    session.step()
    cause = session.machine._entry._instance.caught.cause
    assert isinstance(cause, FailureTimeoutError)
    assert cause.type.name == "START_TO_CLOSE"


@workflow.defn
class TwoTimers:
    @workflow.run
    async def run(self) -> float:
        began = workflow.time()
        await asyncio.gather(workflow.sleep(3), asyncio.sleep(5))
        return workflow.time() - began


def test_sleeps_become_timers_with_ids_in_order() -> None:
    session = Session(TwoTimers)
    assert session.step() == ["timer 1 3s", "timer 2 5s"]
    session.history.timer_fired("2")
    assert session.step() == []
    session.history.timer_fired("1")
    assert session.step() == ["complete"]
    # Eight events, one second each, lie between the two tasks.
    assert session.result() == 10.0


@workflow.defn
class Cancels:
    """Cancels an activity in its own way, after a signal."""

    def __init__(self) -> None:
        self.go = False
        self.error: BaseException | None = None

    @workflow.signal
    def stop(self) -> None:
        self.go = True

    @workflow.run
    async def run(self, how: str) -> str:
        handle = workflow.start_activity(
            "work",
            start_to_close_timeout=MINUTE,
            cancellation_type=ActivityCancellationType[how],
        )
        await workflow.wait_condition(lambda: self.go)
        handle.cancel()
        try:
            return await handle
        except asyncio.CancelledError as error:
            return type(error).__name__


@pytest.mark.parametrize(
    "how, commands",
    [("TRY_CANCEL", ["cancel activity 5", "complete"]), ("ABANDON", ["complete"])],
)
def test_cancelled_activity_ends_at_once_with_cancelled_error(
    how: str, commands: list[str]
) -> None:
    session = Session(Cancels, how)
    session.step()
    session.history.signaled("stop")
    assert session.step() == commands
    assert session.result() == "CancelledError"
    session.replay()


def test_cancelled_activity_that_is_waited_for_ends_with_its_own_end() -> None:
    session = Session(Cancels, "WAIT_CANCELLATION_COMPLETED")
    session.step()
    session.history.signaled("stop")
    assert session.step() == ["cancel activity 5"]
    session.history.activity_completed(5, "finished anyway")
    assert session.step() == ["complete"]
    assert session.result() == "finished anyway"


def test_cancelled_activity_that_is_waited_for_and_cancels_raises_cancelled_error() -> None:
    session = Session(Cancels, "WAIT_CANCELLATION_COMPLETED")
    session.step()
    session.history.signaled("stop")
    session.step()
    session.history.activity_cancelled(5)
    session.step()
    assert session.result() == "CancelledError"


@workflow.defn
class CancelsAtOnce:
    @workflow.run
    async def run(self) -> str:
        handle = workflow.start_activity("work", start_to_close_timeout=MINUTE)
        handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handle
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return "none"


def test_activity_and_timer_cancelled_at_once_leave_no_command() -> None:
    session = Session(CancelsAtOnce)
    assert session.step() == ["complete"]


@workflow.defn
class Approval:
    def __init__(self) -> None:
        self.notes: list[str] = []

    @workflow.signal
    def note(self, text: str) -> None:
        self.notes.append(text)

    @workflow.signal(name="later")
    async def note_later(self, text: str) -> None:
        await workflow.sleep(1)
        self.notes.append(text)

    @workflow.query
    def count(self) -> int:
        return len(self.notes)

    @workflow.query
    def meddle(self) -> None:
        workflow.start_activity("work", start_to_close_timeout=MINUTE)

    @workflow.run
    async def run(self, wanted: int) -> list[str]:
        await workflow.wait_condition(lambda: len(self.notes) >= wanted)
        return self.notes


def test_signals_before_the_run_waits_are_seen_in_order() -> None:
    session = Session(Approval, 2)
    session.history.signaled("note", "a")
    session.history.signaled("note", "b")
    assert session.step() == ["complete"]
    assert session.result() == ["a", "b"]


def test_async_signal_handler_may_wait() -> None:
    session = Session(Approval, 2)
    assert session.step() == []
    session.history.signaled("later", "a")
    assert session.step() == ["timer 1 1s"]
    session.history.signaled("note", "b")
    assert session.step() == []
    session.history.timer_fired("1")
    assert session.step() == ["complete"]
    assert session.result() == ["b", "a"]
    session.replay()


def test_query_answers_from_the_current_state() -> None:
    session = Session(Approval, 2)
    session.history.signaled("note", "a")
    session.step()
    answer = session.machine.query("count", Payloads())
    assert session.history.converter.from_payloads(answer) == [1]


def test_query_on_a_replayed_history_answers_the_same() -> None:
    session = Session(Approval, 2)
    session.history.signaled("note", "a")
    session.step()
    answer = session.replay().query("count", Payloads())
    assert session.history.converter.from_payloads(answer) == [1]


def test_query_that_starts_an_activity_is_refused() -> None:
    session = Session(Approval, 2)
    session.step()
    with pytest.raises(Exception, match="scheduling an activity is not allowed"):
        session.machine.query("meddle", Payloads())
    assert session.machine.is_tainted


def test_query_of_unknown_name_says_which_there_are() -> None:
    session = Session(Approval, 2)
    session.step()
    with pytest.raises(Exception, match=r"'nothing' not found; the workflow has \['count'"):
        session.machine.query("nothing", Payloads())


@workflow.defn
class CleansUp:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.sleep(100)
        finally:
            await workflow.execute_activity("clean", start_to_close_timeout=MINUTE)


def test_cancel_request_cancels_what_the_run_waits_for() -> None:
    session = Session(CleansUp)
    session.step()
    session.history.cancel_requested()
    assert session.step() == ["cancel timer 1", "activity 1 clean"]
    session.history.activity_completed(11)
    assert session.step() == ["cancel run"]
    session.replay()


def test_cancel_request_before_the_first_task_still_lets_the_run_clean_up() -> None:
    session = Session(CleansUp)
    session.history.cancel_requested()
    assert session.step() == ["activity 1 clean"]


@workflow.defn
class AwaitsActivity:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("work", start_to_close_timeout=MINUTE)


def test_cancel_request_while_an_activity_runs_ends_the_run_as_cancelled() -> None:
    session = Session(AwaitsActivity)
    session.step()
    session.history.cancel_requested()
    assert session.step() == ["cancel activity 5", "cancel run"]
    session.replay()


@workflow.defn
class Raises:
    @workflow.run
    async def run(self, kind: str) -> None:
        if kind == "application":
            raise ApplicationError("on purpose")
        if kind == "timeout":
            await workflow.wait_condition(lambda: False, timeout=1)
        if kind == "cancelled":
            raise CancelledError("nobody asked")
        raise KeyError("a mistake")


def test_application_error_fails_the_run() -> None:
    assert Session(Raises, "application").step() == ["fail on purpose"]


def test_cancelled_error_that_nobody_asked_for_fails_the_run() -> None:
    assert Session(Raises, "cancelled").step() == ["fail nobody asked"]


def test_other_exception_fails_the_task_only() -> None:
    with pytest.raises(KeyError, match="a mistake"):
        Session(Raises, "other").step()


def test_wait_condition_that_times_out_fails_the_run() -> None:
    session = Session(Raises, "timeout")
    assert session.step() == ["timer 1 1s"]
    session.history.timer_fired("1")
    assert session.step() == ["fail the condition did not hold in time"]


@workflow.defn(failure_exception_types=[KeyError])
class FailsOnKeyError(Raises):
    @workflow.run
    async def run(self, kind: str) -> None:
        raise KeyError(kind)


def test_exception_named_by_the_workflow_fails_the_run() -> None:
    assert Session(FailsOnKeyError, "other").step() == ["fail 'other'"]


@workflow.defn
class WaitsWithTimeout:
    def __init__(self) -> None:
        self.done = False

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.run
    async def run(self) -> bool:
        await workflow.wait_condition(lambda: self.done, timeout=timedelta(minutes=5))
        return self.done


def test_wait_condition_that_holds_cancels_its_timer() -> None:
    session = Session(WaitsWithTimeout)
    assert session.step() == ["timer 1 300s"]
    session.history.signaled("finish")
    assert session.step() == ["cancel timer 1", "complete"]
    session.replay()


def test_failed_and_timed_out_tasks_are_one_activation_with_the_next() -> None:
    session = Session(Approval, 2)
    session.history.task_started()
    session.history.task_failed()
    session.history.signaled("note", "a")
    session.history.task_started()
    session.history.task_timed_out()
    session.history.signaled("note", "b")
    assert session.step() == ["complete"]
    session.replay()


@workflow.defn
class Chance:
    @workflow.run
    async def run(self) -> list[str]:
        return [str(workflow.uuid4()), str(workflow.random().random()), workflow.now().isoformat()]


def test_chance_and_time_repeat_on_replay_and_differ_between_runs() -> None:
    results = []
    for run_id in ("run-1", "run-1", "run-2"):
        session = Session(Chance)
        session.history.events[
            0
        ].workflow_execution_started_event_attributes.original_execution_run_id = run_id
        session.step()
        results.append(session.result())
    assert results[0] == results[1]
    assert results[0][:2] != results[2][:2]
    assert results[0][2] == "2023-11-14T22:13:22+00:00"


def test_events_with_a_gap_are_refused() -> None:
    session = Session(OneActivity, 4)
    session.step()
    session.history.activity_completed(5, 8)
    session.history.task_started()
    with pytest.raises(HistoryError, match="event 6 follows event 3"):
        session.machine.advance(session.history.events[5:])


def test_result_of_an_activity_that_is_not_open_is_refused() -> None:
    session = Session(OneActivity, 4)
    session.step()
    session.history.activity_completed(5, 8)
    session.history.activity_completed(5, 8)
    with pytest.raises(HistoryError, match="activity of event 5, which is not open"):
        session.step()


def test_closed_run_whose_code_goes_on_sends_nothing_more() -> None:
    @workflow.defn
    class LeavesATask:
        @workflow.run
        async def run(self) -> None:
            self.task = asyncio.create_task(self.more())

        async def more(self) -> None:
            await workflow.execute_activity("work", start_to_close_timeout=MINUTE)

    assert Session(LeavesATask).step() == ["complete"]


def test_machine_of_another_run_shares_nothing() -> None:
    first, second = machine_of(Approval), machine_of(Approval)
    session = Session(Approval, 9)
    session.history.signaled("note", "a")
    session.history.task_started()
    first.advance(session.history.events)
    second.advance(session.history.events)
    assert first._entry._instance.notes == second._entry._instance.notes == ["a"]


@workflow.defn
class RunsAGroup:
    @workflow.run
    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b"):
                group.create_task(workflow.execute_activity(name, start_to_close_timeout=MINUTE))


def test_task_group_whose_activity_failed_fails_the_run_with_that_cause() -> None:
    session = Session(RunsAGroup)
    assert session.step() == ["activity 1 a", "activity 2 b"]
    session.history.activity_failed(5)
    commands = session.step()
    assert commands[0] == "cancel activity 6"
    assert commands[1].startswith("fail unhandled errors in a TaskGroup")
    session.replay()


def test_task_group_in_a_cancelled_run_ends_the_run_as_cancelled() -> None:
    session = Session(RunsAGroup)
    session.step()
    session.history.cancel_requested()
    assert session.step() == ["cancel activity 5", "cancel activity 6", "cancel run"]
    session.replay()
