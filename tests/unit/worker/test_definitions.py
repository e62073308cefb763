import asyncio
import functools
import re
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta

import pytest

from aetheris_client.definition import query_name, signal_name, workflow_name
from aetheris_client.signatures import signature_of
from aetheris_worker import RetryPolicy, Worker, activity, workflow
from aetheris_worker.runtime.definitions import ActivityDefinition, WorkflowDefinition
from aetheris_worker.slots import Slots
from aetheris_worker.workflow_tasks.cache import MachineCache
from tests.unit.worker.driver import Session, machine_of


@workflow.defn(name="the-order")
class Order:
    @workflow.run
    async def run(self, item: str, count: int = 1) -> bool:
        return True

    @workflow.signal
    def approve(self) -> None: ...

    @workflow.signal(name="reject-it")
    async def reject(self, why: str) -> None: ...

    @workflow.query(name="how-far")
    def progress(self) -> int:
        return 1


@activity.defn
def plain(number: int) -> str:
    return str(number)


@activity.defn(name="other")
async def coroutine() -> None: ...


class Toolbox:
    @activity.defn
    async def tool(self, size: int) -> None: ...


@activity.defn(name="called")
class Called:
    async def __call__(self, size: int) -> float:
        return 0.5


def test_definition_of_a_workflow_names_its_parts() -> None:
    definition = WorkflowDefinition.of(Order)
    assert definition.name == workflow_name(Order) == workflow_name(Order.run) == "the-order"
    assert set(definition.signals) == {"approve", "reject-it"}
    assert set(definition.queries) == {"how-far"}
    assert signal_name(Order.reject) == "reject-it"
    assert query_name(Order.progress) == "how-far"


def test_class_without_a_decorator_is_no_workflow() -> None:
    class Bare(Order):
        pass

    with pytest.raises(TypeError, match="expected a class under @workflow"):
        WorkflowDefinition.of(Bare)


def test_workflow_without_a_run_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"found 0 @workflow\.run methods"):
        workflow.defn(type("Empty", (), {}))


def test_workflow_with_two_handlers_of_one_name_is_refused() -> None:
    class Twice(Order):
        @workflow.signal(name="approve")
        def again(self) -> None: ...

    with pytest.raises(ValueError, match="two handlers of 'approve'"):
        workflow.defn(Twice)


def test_plain_run_method_and_async_query_are_refused() -> None:
    with pytest.raises(TypeError, match="expects an async method"):
        workflow.run(plain)
    with pytest.raises(TypeError, match="not async"):
        workflow.query(coroutine)


@pytest.mark.parametrize(
    "function, name, is_async",
    [
        (plain, "plain", False),
        (coroutine, "other", True),
        (Toolbox().tool, "tool", True),
        (Called(), "called", True),
        (activity.defn(name="partial")(functools.partial(coroutine)), "partial", True),
        (activity.defn(name="partial")(functools.partial(plain, 1)), "partial", False),
    ],
)
def test_definition_of_an_activity_tells_name_and_kind(
    function: object, name: str, is_async: bool
) -> None:
    definition = ActivityDefinition.of(function)  # pyright: ignore[reportArgumentType]
    assert (definition.name, definition.is_async) == (name, is_async)


async def several() -> AsyncIterator[int]:
    yield 1


def test_activity_that_yields_is_refused() -> None:
    with pytest.raises(TypeError, match=r"several.*does not yield"):
        activity.defn(several)


def test_activity_without_a_name_of_its_own_is_told_to_have_one() -> None:
    with pytest.raises(TypeError, match=r"write @activity\.defn\(name="):
        activity.defn(functools.partial(plain, 1))


def test_worker_with_an_executor_of_processes_is_refused() -> None:
    with (
        ProcessPoolExecutor(1) as executor,
        pytest.raises(TypeError, match=r"'activity_executor': .* write ThreadPoolExecutor"),
    ):
        Worker("127.0.0.1:1", task_queue="q", activities=[plain], activity_executor=executor)


def test_function_without_a_decorator_is_no_activity() -> None:
    with pytest.raises(TypeError, match="expected a function under @activity"):
        ActivityDefinition.of(print)


def test_signature_leaves_self_out_and_counts_what_is_required() -> None:
    signature = signature_of(Order.run)
    assert signature.argument_types == (str, int)
    assert signature.result_type is bool
    assert [signature.accepts(count) for count in range(4)] == [False, True, True, False]
    assert signature_of(Toolbox().tool).argument_types == (int,)
    assert signature_of(Called()).argument_types == (int,)
    assert signature_of(Called()).result_type is float


def test_worker_without_work_or_with_names_used_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one workflow or activity"):
        Worker("localhost:1", task_queue="queue")
    with pytest.raises(ValueError, match="two workflows have the name 'the-order'"):
        Worker("localhost:1", task_queue="queue", workflows=[Order, Order])
    with pytest.raises(ValueError, match="two activities have the name 'plain'"):
        Worker("localhost:1", task_queue="queue", activities=[plain, plain])


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"initial_interval": timedelta(0)}, "initial_interval"),
        ({"backoff_coefficient": 0.5}, "backoff_coefficient"),
        ({"maximum_interval": timedelta(milliseconds=1)}, "maximum_interval"),
        ({"maximum_attempts": -1}, "maximum_attempts"),
    ],
)
def test_retry_policy_out_of_range_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**fields)  # pyright: ignore[reportArgumentType]


def test_retry_policy_becomes_what_the_server_wants() -> None:
    policy = RetryPolicy(
        maximum_interval=timedelta(minutes=1),
        maximum_attempts=3,
        non_retryable_error_types=["Broken"],
    ).to_proto()
    assert policy.initial_interval.ToTimedelta() == timedelta(seconds=1)
    assert policy.maximum_interval.ToTimedelta() == timedelta(minutes=1)
    assert (policy.maximum_attempts, policy.backoff_coefficient) == (3, 2.0)
    assert policy.non_retryable_error_types == ["Broken"]


async def test_slots_wake_one_waiter_for_each_place() -> None:
    slots = Slots(2)
    assert slots.take_nowait(5) == 2
    waiting = [asyncio.create_task(slots.wait_free()) for _ in range(2)]
    await asyncio.sleep(0)
    slots.take_one_more()
    slots.give_back()
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    slots.give_back()
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False]
    slots.give_back()
    await asyncio.gather(*waiting)


def test_cache_gives_up_the_run_used_longest_ago() -> None:
    cache = MachineCache(2)
    machines = {name: machine_of(Order) for name in "abc"}
    cache.put("a", machines["a"])
    cache.put("b", machines["b"])
    assert cache.find("a") is machines["a"]
    assert cache.put("c", machines["c"]) == [("b", machines["b"])]
    assert cache.find("b") is None
    assert cache.clear() == [("a", machines["a"]), ("c", machines["c"])]
    assert len(cache) == 0


def test_cache_forgets_only_the_machine_that_is_meant() -> None:
    cache = MachineCache(2)
    old, new = machine_of(Order), machine_of(Order)
    assert cache.put("a", old) == []
    assert cache.put("a", new) == [("a", old)]
    cache.forget("a", old)
    assert cache.find("a") is new


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"start_to_close": timedelta(1)},
            r"activity: there is no option 'start_to_close': did you mean 'start_to_close_timeout'",
        ),
        ({"args": [2]}, r"arguments: expected only one of \*arguments and args"),
    ],
)
def test_activity_call_with_wrong_options_is_refused(
    options: dict[str, object], message: str
) -> None:
    @workflow.defn(failure_exception_types=[TypeError])
    class Wrong:
        @workflow.run
        async def run(self) -> None:
            await workflow.execute_activity("plain", 1, **options)  # pyright: ignore[reportCallIssue, reportArgumentType]

    [summary] = Session(Wrong).step()
    assert re.match(f"fail {message}", summary)
