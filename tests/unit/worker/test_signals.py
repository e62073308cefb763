"""Signals: none is lost, and none is abandoned in silence."""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest

from aetheris_client.errors import ApplicationError
from aetheris_worker import workflow
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.workflow import HandlerUnfinishedPolicy
from tests.unit.worker.driver import Session, machine_of

MINUTE = timedelta(minutes=1)


@workflow.defn(name="Grows")
class WithoutHandlers:
    """Waits for a signal of its own."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.over = False

    @workflow.signal
    def end(self) -> None:
        self.over = True

    @workflow.run
    async def run(self) -> list[Any]:
        await workflow.wait_condition(lambda: self.over)
        return self.got


@workflow.defn(name="Grows")
class WithHandler(WithoutHandlers):
    """The next version of it."""

    @workflow.signal
    def note(self, text: str) -> None:
        self.got.append(text)

    @workflow.run
    async def run(self) -> list[Any]:
        return await super().run()


@workflow.defn
class SetsHandlers(WithoutHandlers):
    """Sets a handler, and then a dynamic one, when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.named = self.dynamic = False

    @workflow.signal
    def set_named(self) -> None:
        workflow.set_signal_handler("note", self.take)

    @workflow.signal
    def set_dynamic(self) -> None:
        workflow.set_dynamic_signal_handler(lambda name, values: self.got.append([name, *values]))

    async def take(self, text: str) -> None:
        await asyncio.sleep(0)
        self.got.append(text)

    @workflow.run
    async def run(self) -> list[Any]:
        return await super().run()


@workflow.defn
class Dynamic(WithoutHandlers):
    @workflow.signal(dynamic=True)
    def others(self, name: str, values: list[Any]) -> None:
        self.got.append([name, values])

    @workflow.run
    async def run(self) -> list[Any]:
        return await super().run()


def signal(session: Session, *signals: tuple[Any, ...]) -> None:
    for name, *arguments in signals:
        session.history.signaled(name, *arguments)


def test_signal_without_handler_reaches_a_handler_that_is_set_later_in_order() -> None:
    session = Session(SetsHandlers)
    signal(session, ("note", "a"), ("other", 1), ("note", "b"))
    session.step()
    assert session.machine.unhandled_signal_count == 3
    # The one of the same activation does not overtake those that wait.
    signal(session, ("set_named",), ("note", "c"))
    session.step()
    assert session.machine.unhandled_signal_count == 1
    signal(session, ("set_dynamic",), ("another", 2), ("end",))
    assert session.step() == ["complete"]
    assert session.result() == ["a", "b", "c", ["other", 1], ["another", 2]]
    session.replay()


def test_signal_without_handler_reaches_the_handler_of_a_newer_version() -> None:
    session = Session(WithoutHandlers)
    signal(session, ("note", "a"))
    session.step()
    assert session.machine.unhandled_signal_count == 1
    newer = machine_of(WithHandler)
    newer.advance(session.history.events)
    assert newer._entry._instance.got == ["a"]
    assert newer.unhandled_signal_count == 0


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ([1],)])
def test_signal_that_its_handler_cannot_take_stays_queued(arguments: tuple[Any, ...]) -> None:
    session = Session(WithHandler)
    signal(session, ("note", *arguments), ("note", "good"))
    assert session.step() == []
    assert session.machine._entry._instance.got == ["good"]
    assert session.machine.unhandled_signal_count == 1


def test_dynamic_handler_takes_what_has_no_handler_of_its_own() -> None:
    session = Session(Dynamic)
    signal(session, ("x", 1, [2]), ("y",), ("end",))
    session.step()
    assert session.result() == [["x", [1, [2]]], ["y", []]]


def test_signals_that_nobody_handled_are_named_when_the_run_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = Session(WithoutHandlers)
    signal(session, ("note", "a"), ("note", "b"), ("end",))
    with caplog.at_level(logging.WARNING):
        session.step()
    assert "ended with signals that nobody handled: 'note' (2)" in caplog.text


@workflow.defn
class EndsEarly:
    """Ends as it is told to, whatever its handlers do."""

    def __init__(self) -> None:
        self.over = ""

    @workflow.signal
    async def slow(self) -> None:
        await workflow.sleep(100)

    @workflow.signal(unfinished_policy=HandlerUnfinishedPolicy.ABANDON)
    async def unimportant(self) -> None:
        await workflow.sleep(100)

    @workflow.signal
    async def fails(self) -> None:
        await asyncio.sleep(0)
        raise ApplicationError("on purpose")

    @workflow.signal
    def end(self, how: str) -> None:
        self.over = how

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: bool(self.over))
        if self.over == "fail":
            raise ApplicationError("on purpose")
        if self.over == "wait":
            await workflow.wait_condition(workflow.all_handlers_finished)


@pytest.mark.parametrize("how", ["return", "fail"])
def test_unfinished_handlers_are_named_when_the_run_ends(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(EndsEarly)
    signal(session, ("slow",), ("slow",), ("unimportant",), ("end", how))
    with caplog.at_level(logging.WARNING):
        session.step()
    assert session.machine.is_closed
    assert "handlers were still running, which are abandoned: 'slow' (2). To" in caplog.text
    caplog.clear()
    session.replay()
    assert caplog.text == ""


def test_unfinished_handlers_that_may_be_abandoned_are_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session = Session(EndsEarly)
    signal(session, ("unimportant",), ("fails",))
    with caplog.at_level(logging.WARNING):
        session.step()
    assert session.machine.is_closed
    assert caplog.text == ""


def test_run_can_wait_until_all_handlers_have_finished(caplog: pytest.LogCaptureFixture) -> None:
    session = Session(EndsEarly)
    signal(session, ("slow",), ("end", "wait"))
    assert session.step() == ["timer 1 100s"]
    assert not session.machine.is_closed
    session.history.timer_fired("1")
    with caplog.at_level(logging.WARNING):
        assert session.step() == ["complete"]
    assert caplog.text == ""
    session.replay()


def test_two_dynamic_handlers_are_refused_with_their_names() -> None:
    class Twice:
        @workflow.signal(dynamic=True)
        def a(self, name: str, values: list[Any]) -> None: ...

        @workflow.signal(dynamic=True)
        def b(self, name: str, values: list[Any]) -> None: ...

        @workflow.run
        async def run(self) -> None: ...

    with pytest.raises(ValueError, match=r"two dynamic signal handlers: .*Twice.a and .*Twice.b"):
        workflow.defn(Twice)


def test_override_of_a_dynamic_handler_keeps_its_part_and_policy() -> None:
    @workflow.defn
    class Overrides(Dynamic):
        def others(self, name: str, values: list[Any]) -> None:
            self.got.append(name)

    definition = WorkflowDefinition.of(Overrides)
    assert definition.dynamic_signal is not None
    assert definition.dynamic_signal.method is Overrides.others
    assert set(definition.signals) == {"end"}


@workflow.defn
class SetsLate:
    """Sets, once it is told to, a handler for signals that wait, and goes on in the same step."""

    def __init__(self) -> None:
        self.told = False
        self.got: list[object] = []

    @workflow.signal
    def tell(self) -> None:
        self.told = True

    @workflow.run
    async def run(self, how: str) -> list[object]:
        await workflow.wait_condition(lambda: self.told)
        workflow.set_signal_handler("late", self.fail if how == "fail" else self.plain)
        workflow.start_activity("work", start_to_close_timeout=MINUTE)
        await workflow.wait_condition(lambda: bool(self.got))
        return self.got

    def fail(self) -> None:
        raise ApplicationError("no")

    def plain(self) -> object:
        return self.note()

    async def note(self) -> None:
        await asyncio.sleep(0)
        self.got.append("noted")


def test_handler_that_ends_the_run_while_it_is_set_is_followed_by_no_command() -> None:
    session = Session(SetsLate, "fail")
    signal(session, ("late",), ("tell",))
    assert session.step() == ["fail no"]
    session.replay()


def test_async_handler_behind_a_plain_function_runs_like_another() -> None:
    session = Session(SetsLate, "note")
    signal(session, ("late",), ("tell",))
    assert session.step() == ["activity 1 work", "complete"]
    assert session.result() == ["noted"]
    session.replay()
