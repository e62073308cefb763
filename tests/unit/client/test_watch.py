"""Waiting for results, where something else than the wait takes too long."""

from typing import Any

import pytest

from aetheris_client.converter import DataConverter
from aetheris_client.rpc_outbound import ClientConfig
from aetheris_client.watch import RunWatcher


class TimingOutConnection:
    """Its calls take too long by a clock of their own."""

    class workflow_service:  # noqa: N801 - an attribute of connections
        PollWorkflowResult = None

    async def call(self, *_: object) -> object:
        raise TimeoutError("a clock of its own")


async def test_wait_without_timeout_passes_on_the_timeout_of_another() -> None:
    connection: Any = TimingOutConnection()
    watcher = RunWatcher(connection, ClientConfig("default", "me", DataConverter.default()))
    with pytest.raises(TimeoutError, match="a clock of its own"):
        await watcher.wait_result("w", "r")
