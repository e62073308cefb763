"""SIGKILL at every point of start → activity → completion: the run always ends, once."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest

from aetheris.api.v1 import command_pb2, common_pb2
from tests.support.databases import create_database, database_name, drop_database
from tests.support.drive import answer, drive_simple_workflow, persist
from tests.support.log_audit import audit_log
from tests.support.processes import FAST, start_arguments
from tests.support.raw import (
    COMPLETED,
    Raw,
    complete_workflow,
    schedule_activity,
    seconds,
    text_of,
    types,
)
from tests.support.runs import application_failure, continue_as_new, fail_workflow
from tests.support.stores import SessionStores
from tests.support.wait import wait_until

_ROOT = Path(__file__).parents[2]

_TIMES = {
    "commit": 4,
    "add_tasks": 3,
    "start_tasks": 3,
    "start_workflow": 1,
    "complete_workflow_task": 2,
    "complete_activity": 1,
    "settle": 1,
}
"""How often each call comes in a run whose tasks are polled."""

_EAGER_TIMES = {
    "commit": 4,
    "add_tasks": 1,
    "start_tasks": 1,
    "complete_workflow_task": 2,
    "complete_activity": 1,
}
"""The same, where the worker's answers bring its next tasks."""

_EVENTS = [
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "ACTIVITY_TASK_SCHEDULED",
    "ACTIVITY_TASK_STARTED",
    "ACTIVITY_TASK_COMPLETED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "WORKFLOW_EXECUTION_COMPLETED",
]


class CrashServer:
    """`tests.support.crash_server`, with its rounds."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, dsn: str, log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        self.dsn = dsn
        self._process = process
        self._log = log
        self._said = b""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    async def begin_round(self, point: str, count: int) -> None:
        """Return when the server of the round before is gone: it must not take what comes."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{point} {count}\n".encode())
        self._process.stdin.flush()
        await wait_until(lambda: self._has_said(b"begun"), 10, "the next round")
        self._said = self._said.partition(b"begun")[2]

    def has_died(self) -> bool:
        """Whether the server of this round has."""
        return self._has_said(b"died")

    def _has_said(self, word: bytes) -> bool:
        assert self._process.stdout is not None
        self._said += self._process.stdout.read() or b""
        return word in self._said


@pytest.fixture(scope="module")
def crash_server(
    stores: SessionStores,
    session_name: str,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[CrashServer]:
    name = database_name(session_name, "kill_matrix")
    dsn = create_database(stores.postgres_dsn, name, migrated_template)
    log = tmp_path_factory.mktemp("matrix") / "server.log"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_server(("127.0.0.1", 0)) as internal_listener,
    ):
        port: int = listener.getsockname()[1]
        internal_port: int = internal_listener.getsockname()[1]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.support.crash_server"),
                *start_arguments(dsn, stores.redis_url),
                *("--port", str(port), "--internal-port", str(internal_port)),
                *("--http-port", "-1"),
            ],
            cwd=_ROOT,
            env={
                **os.environ,
                **FAST,
                "AETHERIS_REDIS__KEY_PREFIX": f"matrix-{secrets.token_hex(4)}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
        )
    with process:
        yield CrashServer(process, port, dsn, log)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
    drop_database(stores.postgres_dsn, name)


def _points(times: dict[str, int]) -> list[tuple[str, int]]:
    return [
        (f"{call}.{moment}", count)
        for call, most in times.items()
        for count in range(1, most + 1)
        for moment in ("before", "after")
    ]


@pytest.mark.parametrize("point,count", _points(_TIMES))
async def test_simple_workflow_with_server_killed_ends_once(
    crash_server: CrashServer, point: str, count: int
) -> None:
    await _play_round(crash_server, point, count, eager=False)


@pytest.mark.parametrize("point,count", _points(_EAGER_TIMES))
async def test_eager_workflow_with_server_killed_ends_once(
    crash_server: CrashServer, point: str, count: int
) -> None:
    await _play_round(crash_server, point, count, eager=True)


async def _play_round(server: CrashServer, point: str, count: int, *, eager: bool) -> None:
    await server.begin_round(point, count)
    try:
        async with Raw(server.address, queue=f"q-{secrets.token_hex(4)}") as connection:
            driven = await drive_simple_workflow(connection, eager=eager, timeout=40)
            await wait_until(server.has_died, 10, f"a server that comes to {point} {count} times")
    except BaseException:
        sys.stderr.write(server.output)
        raise
    assert driven.result.status == COMPLETED
    assert text_of(driven.result.result) == "42"
    run = (await asyncio.to_thread(audit_log, server.dsn))[driven.run.run_id]
    assert types(run.events) == _EVENTS
    assert run.record_count == 4


@pytest.mark.parametrize("point", ["signal_with_start", "commit"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_signal_with_start_with_server_killed_starts_and_signals_once(
    crash_server: CrashServer, point: str, moment: str
) -> None:
    await crash_server.begin_round(f"{point}.{moment}", 1)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        workflow_id = f"w-{secrets.token_hex(8)}"
        answer = await persist(lambda: server.signal_with_start(workflow_id, request_id="once"))
        await wait_until(crash_server.has_died, 10, "the server to die")
        assert answer.started
        again = await persist(lambda: server.signal_with_start(workflow_id, request_id="once"))
        assert again == answer
        task = await persist(server.poll_workflow)
        await persist(lambda: server.decide(task, complete_workflow()))
    run = (await asyncio.to_thread(audit_log, crash_server.dsn))[answer.run_id]
    assert types(run.events)[:3] == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    assert run.record_count == 2


@pytest.mark.long
@pytest.mark.parametrize("point", ["reset_workflow", "commit"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_reset_with_server_killed_closes_and_begins_once(
    crash_server: CrashServer, point: str, moment: str
) -> None:
    await crash_server.begin_round("commit.before", 10_000)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        base = await persist(server.start_run)
        task = await persist(server.poll_workflow)
        await server.decide(task, schedule_activity())
        await server.signal(base)
        await crash_server.begin_round(f"{point}.{moment}", 1)
        new = await persist(lambda: server.reset(base, request_id="once"))
        await wait_until(crash_server.has_died, 10, "the server to die")
        assert await persist(lambda: server.reset(base, request_id="once")) == new
        task = await persist(server.poll_workflow)
        assert task.workflow_execution == new
        await persist(lambda: server.decide(task, complete_workflow()))
        runs = await server.list(workflow_id=base.workflow_id)
        assert [run.execution.run_id for run in runs] == [new.run_id, base.run_id]
    audited = await asyncio.to_thread(audit_log, crash_server.dsn)
    assert types(audited[base.run_id].events)[-1] == "WORKFLOW_EXECUTION_TERMINATED"
    assert types(audited[new.run_id].events) == [
        *_EVENTS[:3],
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    assert (audited[base.run_id].record_count, audited[new.run_id].record_count) == (4, 3)


@pytest.mark.long
@pytest.mark.parametrize("point", ["fork_workflow", "commit"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_fork_with_server_killed_begins_once(
    crash_server: CrashServer, point: str, moment: str
) -> None:
    await crash_server.begin_round("commit.before", 10_000)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        base = await persist(server.start_run)
        task = await persist(server.poll_workflow)
        await server.decide(task, schedule_activity())
        await crash_server.begin_round(f"{point}.{moment}", 1)
        workflow_id = f"f-{secrets.token_hex(8)}"
        fork = await persist(lambda: server.fork(base, workflow_id, request_id="once"))
        await wait_until(crash_server.has_died, 10, "the server to die")
        assert await persist(lambda: server.fork(base, workflow_id, request_id="once")) == fork
        task = await persist(server.poll_workflow)
        assert task.workflow_execution == fork
        await persist(lambda: server.decide(task, complete_workflow()))
        assert len(await server.list(workflow_id=workflow_id)) == 1
    audited = await asyncio.to_thread(audit_log, crash_server.dsn)
    assert audited[base.run_id].state.is_open
    assert (audited[base.run_id].record_count, audited[fork.run_id].record_count) == (2, 3)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2])
async def test_signals_that_wait_for_a_decision_survive_a_kill_once_and_in_order(
    crash_server: CrashServer, number: int, moment: str
) -> None:
    # The first commit of the round starts the run; then comes one for each signal.
    await crash_server.begin_round(f"commit.{moment}", 1 + number)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        started = await persist(
            lambda: server.start(f"w-{secrets.token_hex(8)}", request_id=secrets.token_hex(4))
        )
        lost = await persist(server.poll_workflow)
        run = lost.workflow_execution
        assert run.run_id == started.run_id
        for name in ("one", "two"):
            await persist(partial(server.signal, run, name, request_id=f"{name}-{run.run_id}"))
        await wait_until(crash_server.has_died, 10, "the server to die")
        task = await persist(server.poll_workflow)
        names = [
            event.workflow_execution_signaled_event_attributes.signal_name
            for event in task.history.events
            if event.HasField("workflow_execution_signaled_event_attributes")
        ]
        assert names == ["one", "two"]
        await persist(lambda: server.decide(task, complete_workflow()))
    await asyncio.to_thread(audit_log, crash_server.dsn)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_task_with_server_killed_on_its_way_to_the_backlog_is_not_lost(
    crash_server: CrashServer, moment: str
) -> None:
    await crash_server.begin_round(f"push.{moment}", 1)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        workflow_id = f"w-{secrets.token_hex(8)}"
        started = await persist(lambda: server.start(workflow_id, request_id="once"))
        await wait_until(crash_server.has_died, 10, "the server to die")
        task = await persist(server.poll_workflow)
        assert task.workflow_execution.run_id == started.run_id
        await persist(lambda: server.decide(task, complete_workflow()))
        assert await persist(lambda: server.result(task.workflow_execution)) is not None
    run = (await asyncio.to_thread(audit_log, crash_server.dsn))[started.run_id]
    assert run.record_count == 2


_GOING_ON: dict[str, tuple[command_pb2.Command, str]] = {
    "continue": (continue_as_new(), "WORKFLOW_EXECUTION_CONTINUED_AS_NEW"),
    "retry": (fail_workflow(application_failure()), "WORKFLOW_EXECUTION_FAILED"),
}
"""How a run closes that another one continues, and the event by which."""


@pytest.mark.long
@pytest.mark.parametrize("how", _GOING_ON)
@pytest.mark.parametrize(
    "point,count",
    [(f"commit.{moment}", count) for count in (2, 3) for moment in ("before", "after")]
    + [(f"complete_workflow_task.{moment}", 1) for moment in ("before", "after")],
)
async def test_run_that_goes_on_with_server_killed_goes_on_once(
    crash_server: CrashServer, how: str, point: str, count: int
) -> None:
    closing, close_event = _GOING_ON[how]
    await crash_server.begin_round(point, count)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        workflow_id = f"w-{secrets.token_hex(8)}"
        policy = common_pb2.RetryPolicy(initial_interval=seconds(0.05))
        started = await persist(
            lambda: server.start(workflow_id, request_id="once", retry_policy=policy)
        )
        first = common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=started.run_id)
        async with asyncio.timeout(40):
            closed = None
            while closed is None:
                for task in await persist(lambda: server.poll_workflows(1.0)):
                    is_first = task.workflow_execution == first
                    command = closing if is_first else complete_workflow()
                    await answer(lambda task=task, command=command: server.decide(task, command))
                newest = common_pb2.WorkflowExecution(workflow_id=workflow_id)
                result = await persist(lambda newest=newest: server.result(newest, wait=0.05))
                closed = result if result is not None and not result.new_execution_run_id else None
        await wait_until(crash_server.has_died, 10, f"a server that comes to {point} {count} times")
    assert closed.status == COMPLETED
    runs = await asyncio.to_thread(audit_log, crash_server.dsn)
    events = {
        run_id: types(run.events)
        for run_id, run in runs.items()
        if run.events[0].workflow_execution_started_event_attributes.workflow_id == workflow_id
    }
    assert len(events) == 2
    assert events[started.run_id][-1] == close_event
    (other,) = (names for run_id, names in events.items() if run_id != started.run_id)
    assert other == [*_EVENTS[:4], "WORKFLOW_EXECUTION_COMPLETED"]


_PAUSE_TIMES = {"commit": 4, "pause_workflow": 1, "unpause_workflow": 1}
"""Start, pause, unpause, completion: how often each call comes."""


@pytest.mark.long
@pytest.mark.parametrize("point,count", _points(_PAUSE_TIMES))
async def test_pause_and_its_end_with_server_killed_are_recorded_once_each(
    crash_server: CrashServer, point: str, count: int
) -> None:
    await crash_server.begin_round(point, count)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        workflow_id = f"w-{secrets.token_hex(8)}"
        started = await persist(lambda: server.start(workflow_id, request_id="once"))
        run = common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=started.run_id)
        await persist(lambda: server.pause(run, request_id="pause"))
        assert not await persist(lambda: server.poll_workflows(0.5))
        await persist(lambda: server.unpause(run, request_id="unpause"))
        while await persist(lambda: server.result(run, wait=0.1)) is None:
            for task in await persist(lambda: server.poll_workflows(3.0)):
                await answer(lambda task=task: server.decide(task, complete_workflow()))
        await wait_until(crash_server.has_died, 10, f"a server that comes to {point} {count} times")
    audited = (await asyncio.to_thread(audit_log, crash_server.dsn))[started.run_id]
    assert types(audited.events) == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_PAUSED",
        "WORKFLOW_EXECUTION_UNPAUSED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
    assert audited.record_count == 4


@pytest.mark.long
@pytest.mark.parametrize(
    "point,count",
    [(f"commit.{moment}", count) for count in (3, 4) for moment in ("before", "after")]
    + [
        (f"{verb}_activity.{moment}", 1)
        for verb in ("pause", "unpause")
        for moment in ("before", "after")
    ],
)
async def test_pause_of_an_activity_with_server_killed_is_recorded_once_and_so_is_its_end(
    crash_server: CrashServer, point: str, count: int
) -> None:
    await crash_server.begin_round(point, count)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        workflow_id = f"w-{secrets.token_hex(8)}"
        started = await persist(lambda: server.start(workflow_id, request_id="once"))
        run = common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=started.run_id)
        task = await persist(server.poll_workflow)
        await server.decide(task, schedule_activity("a", start_to_close_timeout=seconds(600)))
        for verb in ("PauseActivity", "UnpauseActivity"):
            await persist(lambda verb=verb: server.change_activity(verb, run, request_id=verb))
        while not (await persist(lambda: server.describe(run))).pending_workflow_task.attempt:
            for activity in (await persist(lambda: server.poll_activities(3.0))).tasks:
                await answer(lambda activity=activity: server.complete_activity(activity))
        await wait_until(crash_server.has_died, 10, f"a server that comes to {point} {count} times")
    audited = (await asyncio.to_thread(audit_log, crash_server.dsn))[started.run_id]
    assert types(audited.events)[5:] == [
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    assert audited.record_count == 5
