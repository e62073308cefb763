"""Calls that a type checker passes and refuses: read by test_typed_calls.py, never run.

A line that must be refused ends in `# refused`; any other must pass, with the type it asserts.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict, assert_type

from aetheris_client import Client, WorkflowHandle
from aetheris_worker import activity, workflow
from aetheris_worker.workflow import ActivityHandle

SOON = timedelta(seconds=1)


class Item(TypedDict):
    count: int


@activity.defn
async def quote(count: int, name: str) -> float: ...
@activity.defn
def plain(count: int) -> bytes: ...
@activity.defn
async def nothing() -> None: ...
@activity.defn(name="other")
async def defaults(count: int, name: str = "", *, only: int = 3) -> bool: ...
@activity.defn
async def many(count: int, *names: str) -> int: ...
@activity.defn
async def literals(rates: list[float], item: Item, kind: Literal["a"], more: Any) -> int: ...
@activity.defn
async def five(a: int, b: int, c: int, d: int, e: str) -> list[int]: ...


class Tools:
    @activity.defn
    async def cut(self, size: int, name: str = "") -> str: ...


class Called:
    def __call__(self, size: int) -> int: ...


class Base:
    @workflow.run
    async def run(self, count: int, rates: Sequence[float] = ()) -> str: ...

    @workflow.signal
    def approve(self) -> None: ...

    @workflow.signal(name="reject-it")
    async def reject(self, why: str, item: Item | None = None) -> None: ...

    @workflow.query
    def progress(self, of: str) -> dict[str, int]: ...


@workflow.defn
class Order(Base):
    pass


@workflow.defn
class Bare:
    @workflow.run
    async def run(self) -> None: ...


async def execute_activities(unknown: Callable[..., Awaitable[int]], names: list[str]) -> None:
    execute = workflow.execute_activity
    assert_type(await execute(quote, 12, "x", start_to_close_timeout=SOON), float)
    await execute(quote, 12, 3)  # refused
    await execute(quote, "12", "x")  # refused
    await execute(quote, 12)  # refused
    await execute(quote)  # refused
    await execute(quote, 12, "x", 1)  # refused
    await execute(quote, 12, "x", start_to_close=SOON)  # refused
    await execute(quote, 12, "x", start_to_close_timeout=1)  # refused
    assert_type(await execute(plain, 1), bytes)
    await execute(plain, "1")  # refused
    assert_type(await execute(nothing), None)
    await execute(nothing, 1)  # refused
    assert_type(await execute(defaults, 1), bool)
    assert_type(await execute(defaults, 1, ""), bool)
    await execute(defaults, 1, 2)  # refused
    await execute(defaults)  # refused
    assert_type(await execute(many, 1, *names), int)
    assert_type(await execute(many, 1, "a", "b", "c", "d"), int)
    await execute(many, 1, "a", "b", "c", 4)  # refused
    assert_type(await execute(literals, [1, 2.5], {"count": 1}, "a", [{"b": 1}]), int)
    await execute(literals, [1], {"count": ""}, "a", 1)  # refused
    await execute(literals, [1], {"count": 1}, "b", 1)  # refused
    assert_type(await execute(five, 1, 2, 3, 4, "5"), list[int])
    await execute(five, 1, 2, 3, 4, 5)  # refused
    assert_type(await execute(Tools().cut, 1), str)
    await execute(Tools().cut, "1")  # refused
    assert_type(await execute(Called(), 1), int)
    await execute(Called(), "1")  # refused
    assert_type(await execute(unknown, 1, 2), int)
    assert_type(await execute(quote, args=names), float)
    assert_type(await execute("quote", 1, 2, 3), Any)
    assert_type(await execute("quote", 1, result_type=list[int]), list[int])
    await execute("quote", 1, activity_id=1)  # refused


async def execute_methods() -> None:
    assert_type(await workflow.execute_activity_method(Tools.cut, 1, "x"), str)
    await workflow.execute_activity_method(Tools.cut, "1")  # refused
    assert_type(workflow.start_activity_method(Tools.cut, 1), ActivityHandle[str])
    workflow.start_activity_method(Tools.cut, 1, 2)  # refused


async def start_activities() -> None:
    assert_type(await workflow.start_activity(quote, 12, "x"), float)
    assert_type(workflow.start_activity(plain, 1, at_most_once=True), ActivityHandle[bytes])
    assert_type(await workflow.start_activity("quote", result_type=int), int)
    workflow.start_activity(quote, 12, 2)  # refused
    workflow.start_activity(plain)  # refused


async def start_workflows(client: Client) -> None:
    start, execute = client.start_workflow, client.execute_workflow
    assert_type(await start(Base.run, 1, id="", task_queue=""), WorkflowHandle[str])
    handle = await start(Order.run, 1, [2, 3.5], id="", task_queue="")
    assert_type(await handle.result(), str)
    await start(Order.run, 1, 2.0, id="", task_queue="")  # refused
    await start(Order.run, id="", task_queue="")  # refused
    await start(Order.run, 1, task_queue="")  # refused
    await start(Order.run, 1, id="", task_queue="", run_timeout=5)  # refused
    assert_type(await start(Bare.run, id="", task_queue=""), WorkflowHandle[None])
    await start(Bare.run, 1, id="", task_queue="")  # refused
    assert_type(await start("Order", 1, id="", task_queue=""), WorkflowHandle[Any])
    assert_type(await start("Order", id="", task_queue="", result_type=int), WorkflowHandle[int])
    assert_type(await start(Order, 1, id="", task_queue=""), WorkflowHandle[Any])
    assert_type(await execute(Order.run, 1, id="", task_queue=""), str)
    assert_type(await execute("Order", id="", task_queue="", result_type=int), int)
    await execute(Order.run, "1", id="", task_queue="")  # refused


async def steer(handle: WorkflowHandle[Any]) -> None:
    await handle.signal(Order.approve, request_id="r")
    await handle.signal(Order.approve, 3)  # refused
    await handle.signal(Order.reject, "why", {"count": 1})
    await handle.signal(Order.reject)  # refused
    await handle.signal(Order.reject, "why", {"count": ""})  # refused
    await handle.signal("reject-it", 1, 2, 3)
    assert_type(await handle.query(Order.progress, "x", timeout=SOON), dict[str, int])
    await handle.query(Order.progress, 1)  # refused
    await handle.query(Order.progress)  # refused
    assert_type(await handle.query("progress", 1), Any)
    assert_type(await handle.query("progress", 1, result_type=int), int)
