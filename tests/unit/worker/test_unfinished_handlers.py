"""Runs that end only when their handlers have: `defn(waits_for_handlers=True)`."""

import logging

import pytest

from aetheris_client.errors import ApplicationError
from aetheris_worker import workflow
from tests.unit.worker.driver import Session


@workflow.defn(waits_for_handlers=True)
class Waits:
    """Ends as it is told to."""

    def __init__(self) -> None:
        self.over = ""
        self.rested: list[str] = []

    @workflow.signal
    async def rest(self, name: str) -> None:
        await workflow.sleep(100)
        self.rested.append(name)

    @workflow.signal
    async def fails(self) -> None:
        await workflow.sleep(1)
        raise ApplicationError("of the handler")

    @workflow.signal
    def end(self, how: str) -> None:
        self.over = how

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: bool(self.over))
        if self.over == "fail":
            raise ApplicationError("of the run")
        if self.over == "break":
            raise RuntimeError("a fault")
        return self.rested


def test_result_waits_for_handlers_and_sees_what_they_do(caplog: pytest.LogCaptureFixture) -> None:
    session = Session(Waits)
    session.history.signaled("rest", "a")
    session.history.signaled("end", "return")
    assert session.step() == ["timer 1 100s"]
    session.history.signaled("rest", "b")
    assert session.step() == ["timer 2 100s"]
    session.history.timer_fired("1")
    assert session.step() == []
    session.history.timer_fired("2")
    with caplog.at_level(logging.WARNING):
        assert session.step() == ["complete"]
    assert session.result() == ["a", "b"]
    assert caplog.text == ""
    session.replay()


def test_failure_of_the_run_waits_for_handlers_too() -> None:
    session = Session(Waits)
    session.history.signaled("rest", "a")
    session.history.signaled("end", "fail")
    assert session.step() == ["timer 1 100s"]
    session.history.timer_fired("1")
    assert session.step() == ["fail of the run"]
    session.replay()


def test_cancellation_of_the_run_waits_for_handlers_too() -> None:
    session = Session(Waits)
    session.history.signaled("rest", "a")
    session.step()
    session.history.cancel_requested()
    assert session.step() == []
    session.history.timer_fired("1")
    assert session.step() == ["cancel run"]
    session.replay()


def test_cancellation_while_the_result_waits_ends_the_run_at_once() -> None:
    session = Session(Waits)
    session.history.signaled("rest", "a")
    session.history.signaled("end", "return")
    session.step()
    session.history.cancel_requested()
    assert session.step() == ["cancel run"]
    session.replay()


def test_failure_of_a_handler_ends_the_run_without_waiting_for_others() -> None:
    session = Session(Waits)
    session.history.signaled("rest", "a")
    session.history.signaled("fails")
    session.history.signaled("end", "return")
    session.step()
    session.history.timer_fired("2")
    assert session.step() == ["fail of the handler"]
    session.replay()


def test_fault_of_the_code_fails_its_task_at_once() -> None:
    session = Session(Waits)
    session.history.signaled("rest", "a")
    session.history.signaled("end", "break")
    with pytest.raises(RuntimeError, match="a fault"):
        session.step()
