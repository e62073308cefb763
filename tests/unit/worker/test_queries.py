"""Queries of the code: its handlers', and those that the worker answers by itself."""

import asyncio
from typing import Any

import pytest

from aetheris.api.v1.common_pb2 import Payloads
from aetheris_client.converter import DataConverter
from aetheris_worker import workflow
from aetheris_worker.runtime.entry import QueryNotFoundError
from tests.unit.worker.driver import Session

CONVERTER = DataConverter.default()


def ask(session: Session, name: str, *arguments: object) -> Any:
    answer = session.machine.query(name, CONVERTER.to_payloads(arguments) or Payloads())
    assert answer is not None
    return CONVERTER.from_payloads(answer)[0]


@workflow.defn
class Asked:
    """Waits in several places at once."""

    def __init__(self) -> None:
        self.over = False

    @workflow.query
    def plain(self, number: int = 1) -> int:
        """Give the number."""
        return number

    @workflow.query(dynamic=True)
    def any_other(self, name: str, arguments: list[Any]) -> list[Any]:
        return [name, *arguments]

    @workflow.signal
    async def rest(self) -> None:
        """Sleep a while."""
        await workflow.sleep(50)  # in the handler

    @workflow.signal
    def end(self) -> None:
        self.over = True

    @workflow.update
    def rename(self) -> None:
        """Take another name."""

    async def inner(self) -> None:
        await workflow.sleep(100)  # in inner

    @workflow.run
    async def run(self) -> str:
        workflow.set_query_handler("late", lambda: "set by the code")
        inner = asyncio.create_task(self.inner(), name="inner")
        await workflow.wait_condition(lambda: self.over)  # in run
        inner.cancel()
        return "done"


@pytest.fixture
def asked() -> Session:
    session = Session(Asked)
    session.history.signaled("rest")
    session.step()
    return session


def test_query_without_a_handler_of_its_own_goes_to_the_dynamic_one(asked: Session) -> None:
    assert ask(asked, "plain", 2) == 2
    assert ask(asked, "whatever", 1, "a") == ["whatever", 1, "a"]
    assert ask(asked, "late") == "set by the code"


def test_stack_trace_shows_where_each_task_waits_and_its_own_line_first(asked: Session) -> None:
    paragraphs = dict(
        paragraph.split(":\n", 1) for paragraph in ask(asked, "__stack_trace").split("\n\n")
    )
    assert list(paragraphs) == ["signal rest", "run", "inner"]
    for task, function, line in [
        ("run", "run", "await workflow.wait_condition(lambda: self.over)  # in run"),
        ("inner", "inner", "await workflow.sleep(100)  # in inner"),
        ("signal rest", "rest", "await workflow.sleep(50)  # in the handler"),
    ]:
        [only] = paragraphs[task].split("\n")
        assert only.startswith(f"  {__file__}:")
        assert only.endswith(f" in {function}: {line}")


def test_stack_trace_follows_calls_down_to_the_innermost() -> None:
    @workflow.defn
    class Nested:
        async def lower(self) -> None:
            await asyncio.sleep(100)

        @workflow.run
        async def run(self) -> None:
            await asyncio.gather(self.lower())
            await self.lower()

    session = Session(Nested)
    session.step()
    session.history.timer_fired("1")
    session.step()
    text = ask(session, "__stack_trace")
    functions = [line.split(" in ")[1].split(":")[0] for line in text.split("\n")[1:]]
    assert functions == ["lower", "run"]


def test_stack_trace_of_code_that_has_ended_says_so(asked: Session) -> None:
    asked.history.signaled("end")
    asked.step()
    assert asked.machine.is_closed
    assert ask(asked, "__stack_trace") == "the run's code has ended"


def test_stack_trace_is_the_same_after_a_replay(asked: Session) -> None:
    before = ask(asked, "__stack_trace")
    asked.machine = asked.replay()
    assert ask(asked, "__stack_trace") == before


def test_metadata_names_the_handlers_with_their_docstrings(asked: Session) -> None:
    metadata = ask(asked, "__workflow_metadata")
    assert metadata["type"] == "Asked"
    assert metadata["signals"] == [
        {"name": "end", "description": ""},
        {"name": "rest", "description": "Sleep a while."},
    ]
    assert metadata["updates"] == [{"name": "rename", "description": "Take another name."}]
    queries = {query["name"]: query["description"] for query in metadata["queries"]}
    assert queries["plain"] == "Give the number."
    assert set(queries) == {"plain", "late", "__stack_trace", "__workflow_metadata"}


def test_query_of_no_handler_names_those_there_are() -> None:
    @workflow.defn
    class Silent:
        @workflow.run
        async def run(self) -> None:
            await workflow.sleep(1)

    session = Session(Silent)
    session.step()
    with pytest.raises(QueryNotFoundError, match="__stack_trace"):
        ask(session, "nothing")


def test_names_of_the_worker_are_refused_to_handlers() -> None:
    with pytest.raises(ValueError, match="begin with __"):
        workflow.query(name="__stack_trace")(lambda self: 1)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(ValueError, match="expected none for a dynamic handler"):
        workflow.query(name="a", dynamic=True)


def test_two_dynamic_query_handlers_are_refused_with_their_names() -> None:
    class Twice:
        @workflow.query(dynamic=True)
        def a(self, name: str, values: list[Any]) -> None: ...

        @workflow.query(dynamic=True)
        def b(self, name: str, values: list[Any]) -> None: ...

        @workflow.run
        async def run(self) -> None: ...

    with pytest.raises(ValueError, match=r"two dynamic query handlers: .*Twice.a and .*Twice.b"):
        workflow.defn(Twice)
