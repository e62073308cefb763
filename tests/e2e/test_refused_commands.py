"""Commands that the server does not take: the worker says which line of the code gave them."""

import inspect
import logging
import secrets
from datetime import timedelta

import pytest

from aetheris.api.v1 import history_pb2
from aetheris_client import Client
from aetheris_worker import Worker, workflow
from tests.support.processes import ServerProcess
from tests.support.wait import wait_until


@workflow.defn
class Twins:
    @workflow.run
    async def run(self) -> None:
        timer = workflow.sleep(60)
        for _ in range(2):
            workflow.start_activity("pay", activity_id="1", start_to_close_timeout=timedelta(1))
        await timer


async def test_command_that_is_refused_is_told_with_its_field_and_line(
    shared_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    queue = f"queue-{secrets.token_hex(4)}"
    lines, first = inspect.getsourcelines(Twins)
    line = first + next(i for i, text in enumerate(lines) if "start_activity" in text)
    async with (
        await Client.connect(shared_server.address) as client,
        Worker(client, task_queue=queue, workflows=[Twins]),
    ):
        run = await client.start_workflow(Twins.run, id=queue, task_queue=queue)
        with caplog.at_level(logging.WARNING, logger="aetheris.worker"):
            await wait_until(lambda: "was not taken" in caplog.text, 20, "the refusal")
        said = "commands[1].activity_id: is '1', expected one that no open activity has"
        assert said in caplog.text
        assert f"(commanded at {__file__}:{line} in run)" in caplog.text
        [failed] = [
            event.workflow_task_failed_event_attributes
            async for event in run.history()
            if event.HasField("workflow_task_failed_event_attributes")
        ]
        await run.terminate()
    cause = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_SCHEDULE_ACTIVITY_DUPLICATE_ID
    assert failed.cause == cause
    assert failed.failure.message == said.replace(": ", " ", 1)
