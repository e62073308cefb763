"""The worker SDK against a real server."""

import asyncio
import random
import secrets
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aetheris.api.v1.common_pb2 import Payload
from aetheris.api.v1.history_pb2 import EventType, HistoryEvent
from aetheris_client import Client, DataConverter, WorkflowHandle, WorkflowStatus
from aetheris_client.errors import (
    ActivityError,
    ApplicationError,
    CancelledError,
    QueryFailedError,
    WorkflowFailedError,
)
from aetheris_worker import RetryPolicy, Worker, activity, workflow
from tests.support.processes import FAST, ServerProcess, start_arguments
from tests.support.stores import SessionStores
from tests.support.wait import wait_until

LONG = timedelta(seconds=30)


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as connected:
        yield connected


@pytest.fixture
def queue() -> str:
    return f"queue-{secrets.token_hex(4)}"


def new_id() -> str:
    return f"w-{secrets.token_hex(6)}"


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@activity.defn
def thread_name(number: int) -> str:
    return threading.current_thread().name


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, count: int) -> int:
        results = await asyncio.gather(
            *(
                workflow.execute_activity(double, number, start_to_close_timeout=LONG)
                for number in range(count)
            )
        )
        name = await workflow.execute_activity(thread_name, 0, start_to_close_timeout=LONG)
        assert name.startswith("aetheris-activity")
        return sum(results)


@pytest.mark.parametrize("cached", [1_000, 0])
async def test_fan_out_is_recorded_and_replays_whether_cached_or_not(
    client: Client, queue: str, cached: int
) -> None:
    async with Worker(
        client,
        task_queue=queue,
        workflows=[FanOut],
        activities=[double, thread_name],
        max_cached_workflows=cached,
    ):
        runs = [
            client.execute_workflow(FanOut.run, count, id=new_id(), task_queue=queue)
            for count in range(0, 400, 80)
        ]
        assert await asyncio.gather(*runs) == [
            sum(2 * number for number in range(count)) for count in range(0, 400, 80)
        ]


@workflow.defn
class Approval:
    def __init__(self) -> None:
        self.by: list[str] = []

    @workflow.signal
    def approve(self, who: str) -> None:
        self.by.append(who)

    @workflow.query
    def approvers(self) -> list[str]:
        return self.by

    @workflow.run
    async def run(self, wanted: int) -> list[str]:
        await workflow.wait_condition(lambda: len(self.by) >= wanted)
        await workflow.sleep(0.01)
        return self.by


async def test_signals_come_in_order_even_before_the_worker(client: Client, queue: str) -> None:
    handle = await client.start_workflow(Approval.run, 3, id=new_id(), task_queue=queue)
    await handle.signal(Approval.approve, "a")
    await handle.signal(Approval.approve, "b")
    async with Worker(client, task_queue=queue, workflows=[Approval]):
        assert await handle.query(Approval.approvers) == ["a", "b"]
        await handle.signal(Approval.approve, "c")
        assert await handle.result() == ["a", "b", "c"]


async def test_query_is_answered_by_a_worker_that_never_saw_the_run(
    client: Client, queue: str
) -> None:
    handle = await client.start_workflow(Approval.run, 2, id=new_id(), task_queue=queue)
    async with Worker(client, task_queue=queue, workflows=[Approval]):
        await handle.signal(Approval.approve, "a")
        assert await handle.query(Approval.approvers) == ["a"]
    async with Worker(client, task_queue=queue, workflows=[Approval]):
        assert await handle.query(Approval.approvers) == ["a"]
        await handle.signal(Approval.approve, "b")
        await handle.result()
        assert await handle.query(Approval.approvers) == ["a", "b"]
        with pytest.raises(QueryFailedError, match="query 'unheard' not found"):
            await handle.query("unheard")


attempts: list[tuple[int, tuple[object, ...]]] = []


@activity.defn
async def flaky(fails: int) -> int:
    info = activity.info()
    attempts.append((info.attempt, info.heartbeat_details))
    activity.heartbeat(f"attempt {info.attempt}")
    if info.attempt <= fails:
        raise ApplicationError("not yet", type="Flaky")
    return info.attempt


@workflow.defn
class Retries:
    @workflow.run
    async def run(self, fails: int, at_most_once: bool) -> int:
        return await workflow.execute_activity(
            flaky,
            fails,
            start_to_close_timeout=LONG,
            heartbeat_timeout=LONG,
            at_most_once=at_most_once,
            retry_policy=None
            if at_most_once
            else RetryPolicy(initial_interval=timedelta(milliseconds=10)),
        )


async def test_failed_attempts_are_tried_again_with_the_last_heartbeat(
    client: Client, queue: str
) -> None:
    attempts.clear()
    async with Worker(client, task_queue=queue, workflows=[Retries], activities=[flaky]):
        result = await client.execute_workflow(Retries.run, 2, False, id=new_id(), task_queue=queue)
    assert result == 3
    assert attempts == [(1, ()), (2, ("attempt 1",)), (3, ("attempt 2",))]


async def test_at_most_once_activity_that_fails_has_no_second_attempt(
    client: Client, queue: str
) -> None:
    attempts.clear()
    async with Worker(client, task_queue=queue, workflows=[Retries], activities=[flaky]):
        with pytest.raises(WorkflowFailedError) as caught:
            await client.execute_workflow(Retries.run, 1, True, id=new_id(), task_queue=queue)
    assert isinstance(caught.value.cause, ActivityError)
    assert isinstance(caught.value.cause.cause, ApplicationError)
    assert attempts == [(1, ())]


events: list[str] = []


@activity.defn
async def endless() -> None:
    events.append("started")
    try:
        await asyncio.sleep(60)
    finally:
        events.append("stopped")


@activity.defn
async def clean_up() -> None:
    events.append("cleaned")


@workflow.defn
class Cancellable:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.execute_activity(
                endless,
                start_to_close_timeout=LONG,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        finally:
            await workflow.execute_activity(clean_up, start_to_close_timeout=LONG)


async def test_cancelled_run_stops_its_activity_at_once_and_cleans_up(
    client: Client, queue: str
) -> None:
    events.clear()
    async with Worker(
        client, task_queue=queue, workflows=[Cancellable], activities=[endless, clean_up]
    ):
        handle = await client.start_workflow(Cancellable.run, id=new_id(), task_queue=queue)
        await wait_until(lambda: events == ["started"])
        await handle.cancel()
        # The activity never sends a heartbeat: the word comes with a poll.
        with pytest.raises(WorkflowFailedError) as caught:
            await asyncio.wait_for(handle.result(), 10)
    assert isinstance(caught.value.cause, CancelledError)
    assert events == ["started", "stopped", "cleaned"]


@workflow.defn(name="Chance")
class GuessesTwice:
    @workflow.run
    async def run(self) -> list[float]:
        first = random.random()
        await workflow.sleep(0.1)
        return [first, random.random()]


@workflow.defn(name="Chance")
class GuessesAgainTheSame:
    @workflow.run
    async def run(self) -> list[float]:
        first = workflow.random().random()
        await workflow.sleep(0.1)
        return [first, workflow.random().random()]


async def test_run_whose_code_takes_chances_waits_for_mended_code(
    client: Client, queue: str
) -> None:
    handle = await client.start_workflow(GuessesTwice.run, id=new_id(), task_queue=queue)
    async with Worker(client, task_queue=queue, workflows=[GuessesTwice]):

        async def has_failed() -> bool:
            task = (await handle.describe()).pending_workflow_task
            return task is not None and "use workflow.random()" in str(task.last_failure)

        await wait_until(has_failed, what="a failed workflow task")
    assert (await handle.describe()).status is WorkflowStatus.RUNNING
    async with Worker(client, task_queue=queue, workflows=[GuessesAgainTheSame]):
        result = await asyncio.wait_for(handle.result(), 20)
    again = workflow_random(handle.run_id or "")
    assert result == [again.random(), again.random()]


def workflow_random(run_id: str) -> random.Random:
    """What the run's own source gives, whichever worker asks."""
    return random.Random(run_id)


@workflow.defn
class NeedsCapability:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            "where", result_type=str, start_to_close_timeout=LONG, capabilities=["gpu"]
        )


def where_of(name: str) -> Callable[[], Awaitable[str]]:
    @activity.defn(name="where")
    async def where() -> str:
        return name

    return where


async def test_activity_that_needs_a_capability_goes_to_the_worker_that_has_it(
    client: Client, queue: str
) -> None:
    plain = Worker(
        client, task_queue=queue, workflows=[NeedsCapability], activities=[where_of("plain")]
    )
    capable = Worker(
        client, task_queue=queue, activities=[where_of("capable")], capabilities=["gpu", "llm"]
    )
    async with plain, capable:
        results = await asyncio.gather(
            *(
                client.execute_workflow(NeedsCapability.run, id=new_id(), task_queue=queue)
                for _ in range(10)
            )
        )
    assert results == ["capable"] * 10


@workflow.defn(name="Changing")
class Before:
    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(0.01)
        await workflow.wait_condition(lambda: False)


@workflow.defn(name="Changing")
class After:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("other", start_to_close_timeout=LONG)


async def test_code_that_changed_fails_the_task_and_the_old_code_still_goes_on(
    client: Client, queue: str
) -> None:
    handle = await client.start_workflow("Changing", id=new_id(), task_queue=queue)

    async with Worker(client, task_queue=queue, workflows=[Before]):
        await wait_until(lambda: find_event(handle, EventType.EVENT_TYPE_TIMER_FIRED))
    async with Worker(client, task_queue=queue, workflows=[After]):
        await handle.signal("wake")
        failed = await wait_until(
            lambda: find_event(handle, EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
        )
        assert failed is not None
        message = failed.workflow_task_failed_event_attributes.failure.message
        assert "history has the start of timer '1'" in message
        assert "the code scheduled activity '1' of type 'other'" in message
    await handle.terminate("enough")


async def find_event(handle: WorkflowHandle[Any], kind: int) -> HistoryEvent | None:
    """The run's first event of that type; None if there is none."""
    async for event in handle.history():
        if event.event_type == kind:
            return event
    return None


async def test_shutdown_hands_in_what_is_running(client: Client, queue: str) -> None:
    started, finish = asyncio.Event(), asyncio.Event()

    @activity.defn(name="double")
    async def held(number: int) -> int:
        started.set()
        await finish.wait()
        return 2 * number

    @workflow.defn
    class OneActivity:
        @workflow.run
        async def run(self) -> int:
            return await workflow.execute_activity(held, 4, start_to_close_timeout=LONG)

    first = Worker(client, task_queue=queue, workflows=[OneActivity], activities=[held])
    running = asyncio.create_task(first.run())
    handle = await client.start_workflow(OneActivity.run, id=new_id(), task_queue=queue)
    await started.wait()
    stopping = asyncio.create_task(first.shutdown())
    await asyncio.sleep(0)
    finish.set()
    await asyncio.wait_for(stopping, 10)
    await running
    async with Worker(client, task_queue=queue, workflows=[OneActivity]):
        assert await asyncio.wait_for(handle.result(), 20) == 8


async def test_worker_for_an_unknown_namespace_says_so(
    shared_server: ServerProcess, queue: str
) -> None:
    worker = Worker(
        shared_server.address, task_queue=queue, workflows=[Approval], namespace="nowhere"
    )
    with pytest.raises(Exception, match="namespace 'nowhere' not found"):
        await asyncio.wait_for(worker.run(), 20)


async def test_worker_outlives_its_server(
    stores: SessionStores, migrated_postgres_dsn: str, tmp_path: Path, queue: str
) -> None:
    prefix = {"AETHERIS_REDIS__KEY_PREFIX": f"e2e-{secrets.token_hex(4)}"}
    server = ServerProcess(
        tmp_path, start_arguments(migrated_postgres_dsn, stores.redis_url), {**FAST, **prefix}
    )
    await server.start()
    started, finish = asyncio.Event(), asyncio.Event()

    @activity.defn(name="held")
    async def held() -> str:
        started.set()
        await finish.wait()
        return "kept"

    @workflow.defn
    class Survivor:
        @workflow.run
        async def run(self) -> str:
            result = await workflow.execute_activity(held, start_to_close_timeout=LONG)
            await workflow.sleep(0.01)
            return result

    async with (
        await Client.connect(server.address) as client,
        Worker(client, task_queue=queue, workflows=[Survivor], activities=[held]),
    ):
        handle = await client.start_workflow(Survivor.run, id=new_id(), task_queue=queue)
        await started.wait()
        await server.kill()
        # The answer waits in the worker until there is a server again.
        finish.set()
        await server.start()
        assert await asyncio.wait_for(handle.result(), 30) == "kept"
    assert await server.terminate() == 0


class Secret:
    """A codec that hides everything behind a simple cipher."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(
                metadata={"encoding": b"binary/secret"},
                data=flip(payload.SerializeToString()),
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload.FromString(flip(payload.data))
            if payload.metadata["encoding"] == b"binary/secret"
            else payload
            for payload in payloads
        ]


def flip(data: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in data)


@workflow.defn
class Secretive(Approval):
    @workflow.run
    async def run(self, wanted: int) -> list[str]:
        await workflow.wait_condition(lambda: len(self.by) >= wanted)
        length = await workflow.execute_activity(double, 21, start_to_close_timeout=LONG)
        return [*self.by, str(length)]


@pytest.mark.parametrize("cached", [1_000, 0])
async def test_codec_hides_every_payload_from_the_server(
    shared_server: ServerProcess, queue: str, cached: int
) -> None:
    converter = DataConverter(codec=Secret())
    async with (
        await Client.connect(shared_server.address, data_converter=converter) as client,
        Worker(
            client,
            task_queue=queue,
            workflows=[Secretive],
            activities=[double],
            max_cached_workflows=cached,
        ),
    ):
        handle = await client.start_workflow(Secretive.run, 1, id=new_id(), task_queue=queue)
        assert await handle.query(Secretive.approvers) == []
        await handle.signal(Secretive.approve, "somebody")
        assert await handle.result() == ["somebody", "42"]
    async with await Client.connect(shared_server.address) as plain:
        seen = [event async for event in plain.get_workflow_handle(handle.id).history()]
    assert b"somebody" not in b"".join(event.SerializeToString() for event in seen)
