"""What a call goes through on its way to its run: a hop only where there is a concern."""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import pytest

import aetheris_server
from aetheris.api.v1 import worker_service_pb2, workflow_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.clock import SystemClock
from aetheris_server.config import Settings
from aetheris_server.errors import TaskNotFoundError
from aetheris_server.frontend.services import build_frontend
from aetheris_server.history.engine.committer import Commit
from aetheris_server.history.service import serve_history
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import Handler
from aetheris_server.rpc.routing import RoutedHistory
from aetheris_server.rpc.tokens import Tokens
from tests.support.clock import ManualClock
from tests.support.memory_engine import MemoryEngine
from tests.support.messages import RUN_ID
from tests.support.peers import FakeCatalog, FakeMatching
from tests.support.secrets import SECRETS, TOKENS

_OURS = str(Path(aetheris_server.__file__).parent)


def _callers() -> list[str]:
    """The functions of the server that are under way here, innermost first."""
    names: list[str] = []
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OURS):
            names.append(frame.f_code.co_qualname)
        frame = frame.f_back
    return names


class _CountingTokens(Tokens):
    opened = 0

    def open_task(self, data: bytes, field: str = "task_token") -> TaskToken:
        self.opened += 1
        return super().open_task(data, field)


def _handlers(bench: MemoryEngine, namespace_id: str, tokens: Tokens) -> dict[str, Handler]:
    """The methods of the public API over an engine; the namespace is called `test`."""
    catalog = FakeCatalog()
    catalog._make(namespace_id, "test", "", 3600, "other")
    nothing = cast("Any", None)
    history = RoutedHistory(lambda _: None, serve_history(bench.runs), nothing, 1, tokens)
    services = build_frontend(
        *(Settings(), history, FakeMatching(), catalog, {}, DrainGate(), SystemClock(), 1, tokens)
    )
    return {name: each for service in services for name, each in service.handlers.items()}


async def test_token_of_an_answer_is_opened_once() -> None:
    bench = MemoryEngine(ManualClock())
    key = bench.start(RUN_ID)
    tokens = _CountingTokens(SECRETS)
    token = TaskToken(
        namespace_id=key.namespace_id, workflow_id=key.workflow_id, run_id=key.run_id, attempt=1
    )
    heartbeat = _handlers(bench, key.namespace_id, tokens)["RecordActivityTaskHeartbeat"]
    request = worker_service_pb2.RecordActivityTaskHeartbeatRequest(
        namespace="test", task_token=TOKENS.seal_task(token)
    )
    with pytest.raises(TaskNotFoundError):
        await heartbeat(request, cast("Any", None))
    assert tokens.opened == 1


async def test_local_signal_is_few_functions_from_servicer_to_commit_queue() -> None:
    bench = MemoryEngine(ManualClock())
    key = bench.start(RUN_ID)
    signal = _handlers(bench, key.namespace_id, TOKENS)["SignalWorkflow"]
    request = workflow_service_pb2.SignalWorkflowRequest(namespace="test", signal_name="go")
    request.workflow_execution.workflow_id = key.workflow_id
    request.workflow_execution.run_id = key.run_id
    queued: list[list[str]] = []
    enqueue = bench.engine.committer.enqueue

    def note(commit: Commit) -> None:
        queued.append([*_callers()[::-1], "Committer.enqueue"])
        enqueue(commit)
        asyncio.get_running_loop().call_soon(bench.settle)

    bench.engine.committer.enqueue = note
    await signal(request, cast("Any", None))
    assert queued == [
        [
            "passed_on.<locals>.pass_on",
            "RoutedHistory.call",
            "signal_workflow",
            "Changes.commit",
            "Changes._commit",
            "Committer.enqueue",
        ]
    ]
