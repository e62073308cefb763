"""Arguments and results are encoded for the hints of what takes them."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pytest

from aetheris.api.v1.common_pb2 import Payloads
from aetheris_client import Client, Connection
from aetheris_client.errors import PayloadEncodeError
from aetheris_worker import activity, workflow
from tests.unit.worker.driver import Session
from tests.unit.worker.task_server import TaskServer, value_of, working

SOON = timedelta(seconds=10)


@dataclass
class Item:
    price: int


@activity.defn
async def total(first: Item, *rest: Item) -> int:
    return first.price + sum(item.price for item in rest)


@activity.defn
async def misnamed() -> dict[str, list[int]]:
    return {"prices": cast("list[int]", [1, "2"])}


@activity.defn
def with_factory() -> dict[str, int]:
    return defaultdict(int, a=1)


@workflow.defn(failure_exception_types=[PayloadEncodeError])
class Caller:
    @workflow.run
    async def run(self, how: str) -> int:
        items: list[Any] = [Item(1), {"price": 2}]
        if how == "argument":
            await workflow.execute_activity(total, args=items, start_to_close_timeout=SOON)
        return cast("int", "one")

    @workflow.query
    def answer(self) -> int:
        return cast("int", "two")

    @workflow.signal
    def give(self, item: Item) -> None: ...


@pytest.mark.parametrize(
    "name, path", [("misnamed", "[0].prices[1]"), ("with_factory", "[0]: a defaultdict")]
)
async def test_activity_whose_result_would_not_come_back_fails_for_good(
    name: str, path: str
) -> None:
    server = TaskServer()
    server.add_activity(name)
    async with working(server, activities=[misnamed, with_factory]):
        failure = (await server.wait_answer()).activity_task_failed.failure
    info = failure.application_failure_info
    assert (info.type, info.non_retryable) == ("PayloadEncodeError", True)
    assert path in failure.message
    # Said once.
    assert "code" not in failure.cause.message


async def test_argument_that_does_not_decode_is_told_by_its_number() -> None:
    server = TaskServer()
    server.add_activity("total", {"price": 1}, 2)
    async with working(server, activities=[total]):
        failure = (await server.wait_answer()).activity_task_failed.failure
    assert "cannot decode Item at [1]: found a number" in failure.message


async def test_any_number_of_arguments_are_decoded_as_their_hint_says() -> None:
    server = TaskServer()
    server.add_activity("total", Item(1), Item(2), Item(3))
    async with working(server, activities=[total]):
        completed = (await server.wait_answer()).activity_task_completed
    assert value_of(completed.result) == 6


@pytest.mark.parametrize(
    "how, message",
    [
        ("argument", "fail cannot encode Item at [1]: a dict would arrive as an Item"),
        ("result", "fail cannot encode int at result: found a string"),
    ],
)
def test_workflow_whose_value_would_not_come_back_is_told_where(how: str, message: str) -> None:
    assert Session(Caller, how).step() == [message]


def test_query_whose_answer_would_not_come_back_is_told_where() -> None:
    session = Session(Caller, "argument")
    session.step()
    with pytest.raises(PayloadEncodeError, match=r"at \[0\]"):
        session.machine.query("answer", Payloads())


async def test_client_refuses_arguments_that_would_not_come_back() -> None:
    item: Any = {"price": 1}
    number: Any = 3
    async with Client(Connection("localhost:1")) as client:
        handle = client.get_workflow_handle("w")
        with pytest.raises(PayloadEncodeError, match=r"at \[0\]: a dict would arrive as an Item"):
            await handle.signal(Caller.give, item)
        for notes in ("memo", "search_attributes"):
            options: Any = {notes: {"size": 1 << 80}}
            with pytest.raises(PayloadEncodeError, match=r"(memo|search attribute) 'size': "):
                await client.start_workflow("any", id="w", task_queue="q", **options)
        with pytest.raises(PayloadEncodeError, match=r"at \[0\]: found a number"):
            await client.start_workflow(Caller.run, number, id="w", task_queue="q")
