"""History on a real Postgres, with a matching that only collects: what tests of the shell drive."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aetheris.api.v1 import common_pb2, task_queue_pb2, workflow_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.config import HistorySettings, LimitSettings, PostgresSettings
from aetheris_server.errors import UnavailableError
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.host import HistoryHost
from aetheris_server.history.runs.runs import Runs
from aetheris_server.ids import new_run_id
from aetheris_server.rpc.peers import LocalHistory
from aetheris_server.rpc.table import HISTORY_METHODS, NOTIFY_CANCELLATION, MatchingMethod
from aetheris_server.storage.database import Database, Parameters, Row
from aetheris_server.storage.shards import ensure_cluster
from tests.support.clock import ManualClock
from tests.support.raw import seconds
from tests.support.secrets import TOKENS
from tests.support.wait import wait_until

NAMESPACE_ID = "11111111-1111-4111-8111-111111111111"
SHARD_COUNT = 4


def start_request(
    workflow_id: str, type_: str = "Flow", **fields: Any
) -> workflow_service_pb2.StartWorkflowRequest:
    """A start as the frontend would pass it on."""
    return workflow_service_pb2.StartWorkflowRequest(
        workflow_id=workflow_id,
        workflow_type=common_pb2.WorkflowType(name=type_),
        task_queue=task_queue_pb2.TaskQueue(name="queue"),
        workflow_task_timeout=seconds(10),
        request_id=str(uuid.uuid4()),
        **fields,
    )


def signal_request(
    workflow_id: str, request_id: str = "", **fields: Any
) -> workflow_service_pb2.SignalWorkflowRequest:
    """A signal as the frontend would pass it on."""
    return workflow_service_pb2.SignalWorkflowRequest(
        workflow_execution=common_pb2.WorkflowExecution(workflow_id=workflow_id),
        signal_name="signal",
        request_id=request_id or str(uuid.uuid4()),
        **fields,
    )


class CollectingMatching:
    """Keeps what it is offered until a test takes it."""

    def __init__(self) -> None:
        self.refs: list[matching_service_pb2.TaskRef] = []
        self.notices: list[matching_service_pb2.NotifyCancellationRequest] = []

    async def add_tasks(self, tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
        self.refs += tasks

    async def call(self, method: MatchingMethod[Any, Any], request: Any) -> Any:
        assert method is NOTIFY_CANCELLATION
        self.notices.append(request)
        return method.response()


class LoopedCalls:
    """Aggregates of one host, which call each other there.

    Attributes:
        local: Of the host.
        sent: All calls that were sent.
        gate: Calls wait for it before they get anywhere.
        loses_answers: Calls come to what they come to, and nobody hears of it.
    """

    local: LocalHistory

    def __init__(self) -> None:
        self.sent: list[history_service_pb2.AggregateCall] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.loses_answers = False

    async def call_aggregates(
        self, calls: Sequence[history_service_pb2.AggregateCall]
    ) -> Sequence[history_service_pb2.CallOutcome]:
        self.sent += calls
        await self.gate.wait()
        outcomes = await self.local.call_aggregates(calls)
        if self.loses_answers:
            raise UnavailableError("the answers were lost")
        return outcomes


class CountingDatabase(Database):
    """Counts statements, and the rows that they return."""

    statement_count = 0
    row_count = 0

    async def fetch(self, query: Any, parameters: Parameters = ()) -> list[Row]:
        self.statement_count += 1
        rows = await super().fetch(query, parameters)
        self.row_count += len(rows)
        return rows


class ServedHistory:
    """What a host answers, by the names of the calls and with requests as another host sends them:
    `served.signal_workflow(namespace_id, request)`.
    """

    def __init__(self, local: LocalHistory) -> None:
        self._local = local

    def __getattr__(self, name: str) -> Callable[[str, Any], Coroutine[Any, Any, Any]]:
        method = HISTORY_METHODS[name]

        async def call(namespace_id: str, request: Any) -> Any:
            subject = namespace_id
            if method.takes_token:
                subject = TOKENS.open_task_of(namespace_id, request.task_token)
            return await self._local.handler_of(method)(subject, request)

        return call

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        return await self._local.start_tasks(request)

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        await self._local.release_tasks([TOKENS.open_task(token) for token in task_tokens])


class HistoryBench:
    """A host that has all shards, and what is around it.

    Attributes:
        clock: Stands still; `advance` moves it and meets the deadlines that have come.
    """

    def __init__(
        self,
        host: HistoryHost,
        db: CountingDatabase,
        clock: ManualClock,
        matching: CollectingMatching,
        calls: LoopedCalls,
    ) -> None:
        self.calls = calls
        self.host = host
        self.db = db
        self.clock = clock
        self.matching = matching

    @property
    def service(self) -> "ServedHistory":
        return ServedHistory(self.host.service)

    @property
    def engine(self) -> Engine:
        return self.host._engine

    @property
    def runs(self) -> Runs:
        return self.host._runs

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        while self.engine.wakeups.look_at_due():
            pass

    async def wait_recovered(self) -> None:
        """What the shards owed when they were taken has been offered: further offers are new."""
        await wait_until(
            lambda: all(shard.is_recovered for shard in self.engine.shards.values()),
            what="recovery",
        )

    async def take_ref(
        self, task_queue_type: "task_queue_pb2.TaskQueueType.ValueType"
    ) -> matching_service_pb2.TaskRef:
        """One that was offered, of that type."""
        ref = (await wait_until(lambda: self.refs_of(task_queue_type)))[0]
        self.matching.refs.remove(ref)
        return ref

    def refs_of(
        self, task_queue_type: "task_queue_pb2.TaskQueueType.ValueType"
    ) -> list[matching_service_pb2.TaskRef]:
        """What was offered of that type and not taken."""
        return [ref for ref in self.matching.refs if ref.task_queue_type == task_queue_type]

    async def start_task(
        self, ref: matching_service_pb2.TaskRef, sticky: str = ""
    ) -> history_service_pb2.StartedTask:
        request = history_service_pb2.StartTasksRequest(
            tasks=[ref], identity="bench", worker_instance_id="bench", sticky_task_queue=sticky
        )
        return (await self.service.start_tasks(request)).tasks[0]


@asynccontextmanager
async def history_bench(
    dsn: str, clock: ManualClock | None = None, **settings: Any
) -> AsyncGenerator[HistoryBench]:
    """A host that is ready, until the block is left; `settings` are those of history."""
    clock = clock or ManualClock()
    matching, calls = CollectingMatching(), LoopedCalls()
    # The clock moves by leaps, the renewals come in real time.
    settings = {"lease_timeout": 1e6, "watermark_interval": 0.05, **settings}
    async with CountingDatabase(PostgresSettings(dsn=dsn)) as db:
        await ensure_cluster(db, SHARD_COUNT)
        host = HistoryHost(
            HistorySettings(**settings),
            LimitSettings(),
            SHARD_COUNT,
            new_run_id(),
            db,
            db,
            clock,
            matching,
            calls,
            TOKENS,
            DefaultBuilds(db),
        )
        calls.local = host.service
        async with host:
            await host.join("bench:1")
            await host.membership.wait_ready()
            bench = HistoryBench(host, db, clock, matching, calls)
            await bench.wait_recovered()
            yield bench
