"""A time that a token says gets into state only where it can have been."""

from datetime import UTC, datetime, timedelta

import pytest

from aetheris.api.v1 import task_queue_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.times import from_timestamp
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench
from tests.support.raw import payloads, schedule_activity, seconds
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

QUEUE = task_queue_pb2.TaskQueue(name="queue")
YEARS = pytest.mark.parametrize("year", [1970, 2020, 2200, 9999])


async def with_activity(bench: HistoryBench) -> TaskToken:
    """A run with an activity that nobody has, and a token of its attempt without a time."""
    start = workflow_service_pb2.StartWorkflowRequest(
        workflow_id="w", task_queue=QUEUE, request_id="r", workflow_task_timeout=seconds(10)
    )
    start.workflow_type.name = "Flow"
    started = await bench.service.start_workflow(NAMESPACE_ID, start)
    await wait_until(lambda: bench.matching.refs, 10, "a workflow task")
    task = (await bench.start_task(bench.matching.refs.pop())).workflow_task
    decision = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
        task_token=task.task_token,
        commands=[
            schedule_activity(
                task_queue=QUEUE, start_to_close_timeout=seconds(60), heartbeat_timeout=seconds(5)
            )
        ],
    )
    await bench.service.respond_workflow_task_completed(NAMESPACE_ID, decision)
    await wait_until(lambda: bench.matching.refs, 10, "an activity task")
    ref = bench.matching.refs.pop()
    return TaskToken(
        namespace_id=NAMESPACE_ID,
        workflow_id="w",
        run_id=started.run_id,
        scheduled_event_id=ref.scheduled_event_id,
        attempt=1,
    )


def sealed(bench: HistoryBench, token: TaskToken, year: int) -> bytes:
    token.started_time.FromDatetime(datetime(year, 1, 1, tzinfo=UTC))
    return bench.runs.tokens.seal_task(token)


@YEARS
async def test_heartbeat_with_any_time_leaves_the_timers_right(
    migrated_postgres_dsn: str, year: int
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        token = await with_activity(bench)
        await bench.service.record_activity_task_heartbeat(
            NAMESPACE_ID,
            worker_service_pb2.RecordActivityTaskHeartbeatRequest(
                task_token=sealed(bench, token, year)
            ),
        )
        run = bench.engine.cache.find(token.run_id)
        assert isinstance(run, LoadedRun)
        [started] = run.inflight.activities.values()
        assert started.started_time == bench.clock.now()
        bench.advance(4.9)
        assert run.inflight.activities
        bench.advance(0.2)
        assert not run.inflight.activities
        await run.wait_committed()
        bench.advance(1.0)
        await wait_until(lambda: bench.matching.refs, 10, "the next attempt")
        assert bench.matching.refs[0].attempt == 2


@YEARS
async def test_result_with_any_time_is_recorded_as_started_when_it_can_have_been(
    migrated_postgres_dsn: str, year: int
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        token = await with_activity(bench)
        scheduled_time = bench.clock.now()
        bench.advance(2.0)
        await bench.service.respond_activity_task_completed(
            NAMESPACE_ID,
            worker_service_pb2.RespondActivityTaskCompletedRequest(
                task_token=sealed(bench, token, year), result=payloads("42")
            ),
        )
        request = workflow_service_pb2.GetWorkflowHistoryRequest()
        request.workflow_execution.workflow_id = "w"
        history = await bench.service.get_workflow_history(NAMESPACE_ID, request)
        [started] = [
            event.activity_task_started_event_attributes
            for event in history.history.events
            if event.HasField("activity_task_started_event_attributes")
        ]
        latest = scheduled_time + timedelta(seconds=2)
        assert scheduled_time <= from_timestamp(started.started_time) <= latest


async def test_token_of_a_workflow_task_answers_no_activity(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        token = await with_activity(bench)
        token.start_id = "start"
        request = worker_service_pb2.RespondActivityTaskCompletedRequest(
            task_token=sealed(bench, token, 2020)
        )
        with pytest.raises(InvalidArgumentError, match=r"^task_token: .* workflow task"):
            await bench.service.respond_activity_task_completed(NAMESPACE_ID, request)
