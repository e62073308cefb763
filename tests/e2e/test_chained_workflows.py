"""Workflow code that goes on as new, is tried again, and changes its notes, on a real worker."""

import secrets
from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from aetheris.api.v1.history_pb2 import History
from aetheris_client import Client, RetryPolicy, WorkflowStatus
from aetheris_client.errors import (
    ApplicationError,
    WorkflowContinuedAsNewError,
    WorkflowFailedError,
    WorkflowNotFoundError,
)
from aetheris_worker import Worker, workflow
from aetheris_worker.testing import Replayer
from tests.support.processes import ServerProcess

_AT_ONCE = RetryPolicy(initial_interval=timedelta(milliseconds=20), maximum_attempts=3)


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as connected:
        yield connected


@pytest.fixture
def queue() -> str:
    return f"queue-{secrets.token_hex(4)}"


@pytest.fixture
def workflow_id() -> str:
    return f"w-{secrets.token_hex(6)}"


@workflow.defn
class Conversation:
    def __init__(self) -> None:
        self.said: list[str] = []

    @workflow.run
    async def run(self, turns: list[str], wanted: int) -> list[str]:
        while len(turns) < wanted:
            await workflow.wait_condition(lambda: bool(self.said))
            turns += self.said
            self.said = []
            workflow.upsert_memo({"turns": len(turns)})
            workflow.upsert_search_attributes({"last": turns[-1]})
            workflow.continue_as_new(turns, wanted)
        return turns

    @workflow.signal
    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("cached", [1000, 0])
async def test_signals_to_runs_that_go_on_as_new_all_arrive_once_and_in_order(
    client: Client, queue: str, workflow_id: str, cached: int
) -> None:
    async with Worker(
        client, task_queue=queue, workflows=[Conversation], max_cached_workflows=cached
    ):
        handle = await client.start_workflow(
            Conversation.run, [], 60, id=workflow_id, task_queue=queue
        )
        for number in range(60):
            await handle.signal(Conversation.say, str(number))
        assert await handle.result() == [str(number) for number in range(60)]
        with pytest.raises(WorkflowContinuedAsNewError) as caught:
            await handle.result(follow_runs=False)
        described = await handle.describe()
        assert described.info.status is WorkflowStatus.CONTINUED_AS_NEW
        assert described.info.new_run_id == caught.value.new_run_id
        last = await client.get_workflow_handle(workflow_id).describe()
        assert last.info.memo == {"turns": 60}
        assert last.info.search_attributes == {"last": "59"}
        assert last.info.first_execution_run_id == handle.run_id
    replayer = Replayer(workflows=[Conversation])
    for run in (handle, client.get_workflow_handle(workflow_id)):
        replayer.replay(History(events=[event async for event in run.history()]))


@workflow.defn
class Flaky:
    @workflow.run
    async def run(self, successes_from: int) -> tuple[int, str | None]:
        failure = workflow.last_failure()
        attempt = workflow.info().attempt
        if attempt < successes_from:
            raise ApplicationError(f"attempt {attempt}", type="Flaky")
        return attempt, str(failure) if failure is not None else None


async def test_run_is_tried_again_until_it_completes(
    client: Client, queue: str, workflow_id: str
) -> None:
    async with Worker(client, task_queue=queue, workflows=[Flaky]):
        handle = await client.start_workflow(
            Flaky.run, 3, id=workflow_id, task_queue=queue, retry_policy=_AT_ONCE
        )
        attempt, failure = await handle.result()
        assert attempt == 3
        assert failure is not None
        assert "attempt 2" in failure


async def test_run_that_fails_in_all_attempts_fails_with_the_last(
    client: Client, queue: str, workflow_id: str
) -> None:
    async with Worker(client, task_queue=queue, workflows=[Flaky]):
        with pytest.raises(WorkflowFailedError) as caught:
            await client.execute_workflow(
                Flaky.run, 9, id=workflow_id, task_queue=queue, retry_policy=_AT_ONCE
            )
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.message == "attempt 3"


async def test_handle_of_a_chain_that_is_over_touches_no_other(
    client: Client, queue: str, workflow_id: str
) -> None:
    first = await client.start_workflow("Any", id=workflow_id, task_queue=queue)
    await first.terminate()
    second = await client.start_workflow("Any", id=workflow_id, task_queue=queue)
    for call in (first.signal("s"), first.cancel(), first.terminate(), first.query("q")):
        with pytest.raises(WorkflowNotFoundError):
            await call
    with pytest.raises(WorkflowFailedError) as caught:
        await first.result()
    assert caught.value.run_id == first.run_id
    # Handles of the id alone go to whatever has it.
    await client.get_workflow_handle(workflow_id).terminate()
    assert (await second.describe()).info.status is WorkflowStatus.TERMINATED
