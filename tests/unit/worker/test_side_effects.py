"""Values from outside: taken once, given back on replay, and never half recorded."""

import os
import time
import uuid
from datetime import timedelta

import pytest

from aetheris_client.errors import PayloadEncodeError
from aetheris_worker import workflow
from aetheris_worker.runtime.errors import NondeterminismError, ReadOnlyError
from tests.unit.worker.driver import Session, machine_of

SHORT = timedelta(seconds=1)
CALLS: list[str] = []


def called(value: object) -> object:
    CALLS.append(str(value))
    return value


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


@workflow.defn
class TakesTwo:
    @workflow.run
    async def run(self) -> list[object]:
        first = workflow.side_effect(lambda: called("a"))
        await workflow.sleep(5)
        return [first, workflow.side_effect(lambda: called("b"))]


def test_side_effect_is_recorded_with_the_commands_of_its_task() -> None:
    session = Session(TakesTwo)
    assert session.step() == ["marker side_effect 1", "timer 1 5s"]
    session.history.timer_fired("1")
    assert session.step() == ["marker side_effect 2", "complete"]
    assert session.result() == ["a", "b"]


def test_replay_gives_what_was_recorded_and_calls_nothing() -> None:
    session = Session(TakesTwo)
    session.step()
    session.history.timer_fired("1")
    session.step()
    CALLS.clear()
    replayed = session.replay()
    assert CALLS == []
    assert session.result_of(replayed) == ["a", "b"]


def test_run_that_is_replayed_goes_on_with_new_side_effects() -> None:
    session = Session(TakesTwo)
    session.step()
    session.history.timer_fired("1")
    CALLS.clear()
    session.machine = machine_of(TakesTwo)
    assert session.step() == ["marker side_effect 2", "complete"]
    assert CALLS == ["b"]
    assert session.result() == ["a", "b"]


def test_side_effect_may_ask_for_time_chance_and_entropy() -> None:
    @workflow.defn
    class Free:
        @workflow.run
        async def run(self) -> bool:
            def outside() -> str:
                return f"{time.time()} {uuid.uuid4()} {os.urandom(4)!r}"

            workflow.side_effect(outside)
            with pytest.raises(Exception, match="workflow code may not call"):
                time.time()
            return True

    session = Session(Free)
    assert session.step() == ["marker side_effect 1", "complete"]


def test_side_effect_is_decoded_as_its_annotation_says() -> None:
    @workflow.defn
    class Typed:
        @workflow.run
        async def run(self) -> bool:
            def take() -> uuid.UUID:
                return uuid.UUID(int=7)

            own = workflow.side_effect(take)
            given = workflow.side_effect(lambda: uuid.UUID(int=7), result_type=uuid.UUID)
            return own == given == uuid.UUID(int=7)

    session = Session(Typed)
    session.step()
    assert session.result() is True
    assert session.result_of(session.replay()) is True


def test_side_effect_within_another_is_refused() -> None:
    @workflow.defn
    class Nested:
        @workflow.run
        async def run(self) -> None:
            workflow.side_effect(lambda: workflow.side_effect(lambda: 1))

    with pytest.raises(ReadOnlyError, match="a side effect is not allowed here"):
        Session(Nested).step()


def test_side_effect_that_starts_something_is_refused() -> None:
    @workflow.defn
    class Starts:
        @workflow.run
        async def run(self) -> None:
            workflow.side_effect(lambda: workflow.start_activity("a", start_to_close_timeout=SHORT))

    with pytest.raises(ReadOnlyError):
        Session(Starts).step()


def test_async_side_effect_is_refused() -> None:
    @workflow.defn
    class Async:
        @workflow.run
        async def run(self) -> None:
            async def later() -> int:
                return 1

            _ = workflow.side_effect(later)

    with pytest.raises(TypeError, match="a function that is not async"):
        Session(Async).step()


def test_error_of_side_effect_fails_the_task_even_if_it_is_caught() -> None:
    @workflow.defn(failure_exception_types=[Exception])
    class Catches:
        @workflow.run
        async def run(self) -> None:
            try:
                workflow.side_effect(lambda: 1 / 0)
            except ZeroDivisionError:
                return

    with pytest.raises(ZeroDivisionError):
        Session(Catches).step()


def test_value_that_does_not_encode_fails_the_task() -> None:
    @workflow.defn(failure_exception_types=[Exception])
    class Bad:
        @workflow.run
        async def run(self) -> None:
            workflow.side_effect(object)

    with pytest.raises(PayloadEncodeError):
        Session(Bad).step()


@workflow.defn(name="Changed")
class Before:
    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(1)


@workflow.defn(name="Changed")
class After:
    @workflow.run
    async def run(self) -> None:
        workflow.side_effect(lambda: called("new"))
        await workflow.sleep(1)


def test_side_effect_that_the_history_does_not_have_is_told_and_not_called() -> None:
    session = Session(Before)
    session.step()
    session.workflow = After
    with pytest.raises(
        NondeterminismError, match=r"history has no value of it .*; the code had side effect 1"
    ):
        session.replay()
    assert CALLS == []


def test_side_effect_that_the_code_no_longer_has_is_told() -> None:
    session = Session(After)
    session.step()
    session.workflow = Before
    with pytest.raises(
        NondeterminismError,
        match="history has the value of side effect 1; the code started timer '1'",
    ):
        session.replay()


def test_side_effect_in_query_is_refused() -> None:
    @workflow.defn
    class Asked:
        @workflow.run
        async def run(self) -> None:
            await workflow.sleep(1)

        @workflow.query
        def ask(self) -> object:
            return workflow.side_effect(lambda: called(1))

    session = Session(Asked)
    session.step()
    with pytest.raises(ReadOnlyError):
        session.ask("ask")
    assert CALLS == []
