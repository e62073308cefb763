"""SIGKILL at every point of an update: it happens once, or is rejected and has never been."""

import asyncio
import secrets
import sys
from collections.abc import Iterable

import pytest

from aetheris.api.v1 import common_pb2, history_pb2, workflow_pb2
from aetheris_server.ids import shard_of
from tests.fault.conftest import NewServer
from tests.fault.test_family_kills import wait_spread
from tests.fault.test_kill_matrix import CrashServer, crash_server
from tests.support.drive import answer, persist
from tests.support.log_audit import AuditedRun, audit_log
from tests.support.processes import running
from tests.support.raw import Raw, application_failure, start_timer, text_of, types
from tests.support.runs import accept_update, complete_update
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

__all__ = ["crash_server"]

_SHARDS = 8
_PATIENCE = 60.0
_COMPLETED = workflow_pb2.UPDATE_STAGE_COMPLETED
_BEGUN = [
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "TIMER_STARTED",
]

_ACCEPTED_POINTS = [
    (f"{call}.{moment}", count)
    for call, counts in (
        ("update_workflow", (1,)),
        ("start_tasks", (2,)),
        ("complete_workflow_task", (2, 3)),
        ("commit", (3, 4)),
    )
    for count in counts
    for moment in ("before", "after")
]
"""Behind the start and the first decision: one commit accepts the update, the next completes it."""

_REJECTED_POINTS = [
    (f"{call}.{moment}", count)
    for call, count in (("update_workflow", 1), ("start_tasks", 2), ("complete_workflow_task", 2))
    for moment in ("before", "after")
]


async def _work(server: Raw, *, rejects: bool) -> None:
    """Judge updates, and complete in the next workflow task those that were accepted."""
    while True:
        for task in await persist(lambda: server.poll_workflows(2.0)):
            open_ids = _open_ids(task.history.events)
            commands = [complete_update(update_id) for update_id in open_ids]
            rejected = [
                {"update_id": update.update_id, "failure": application_failure("not today")}
                for update in task.updates
                if rejects
            ]
            if not rejects:
                commands += [accept_update(update.update_id) for update in task.updates]
            if task.previous_started_event_id == 0:
                commands.append(start_timer("t", 600))
            await answer(
                lambda task=task, commands=commands, rejected=rejected: server.decide(
                    task,
                    *commands,
                    update_rejections=rejected,
                    is_discardable=task.is_speculative and rejects,
                    force_create_new_workflow_task=bool(task.updates) and not rejects,
                )
            )


def _open_ids(events: Iterable[history_pb2.HistoryEvent]) -> list[str]:
    accepted = [
        event.workflow_execution_update_accepted_event_attributes.update_id
        for event in events
        if event.HasField("workflow_execution_update_accepted_event_attributes")
    ]
    completed = {
        event.workflow_execution_update_completed_event_attributes.update_id
        for event in events
        if event.HasField("workflow_execution_update_completed_event_attributes")
    }
    return [update_id for update_id in accepted if update_id not in completed]


async def _update(
    server: Raw, workflow_id: str, *, rejects: bool = False
) -> tuple[common_pb2.WorkflowExecution, history_pb2.UpdateOutcome]:
    """Start a run that waits, and follow an update of it to its outcome."""
    worker = asyncio.create_task(_work(server, rejects=rejects))
    try:
        async with asyncio.timeout(_PATIENCE):
            started = await persist(lambda: server.start(workflow_id, request_id="once"))
            run = common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=started.run_id)
            await wait_until(lambda: _has_begun(server, run), _PATIENCE, "the first decision")
            while True:
                response = await persist(lambda: server.update(run, "u1", wait=5.0))
                if response.stage == _COMPLETED:
                    return run, response.outcome
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


async def _has_begun(server: Raw, run: common_pb2.WorkflowExecution) -> bool:
    return len(await persist(lambda: server.history(run))) >= len(_BEGUN)


def _assert_once(run: AuditedRun, outcome: history_pb2.UpdateOutcome) -> None:
    assert text_of(outcome.success) == "done"
    names = types(run.events)
    assert names[: len(_BEGUN)] == _BEGUN
    assert names.count("WORKFLOW_EXECUTION_UPDATE_ACCEPTED") == 1
    assert names.count("WORKFLOW_EXECUTION_UPDATE_COMPLETED") == 1


@pytest.mark.parametrize("point,count", _ACCEPTED_POINTS)
async def test_update_with_server_killed_happens_once(
    crash_server: CrashServer, point: str, count: int
) -> None:
    await crash_server.begin_round(point, count)
    try:
        async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
            run, outcome = await _update(server, f"w-{secrets.token_hex(8)}")
            await wait_until(crash_server.has_died, 10, f"a server that comes to {point}")
            again = await persist(lambda: server.update(run, "u1"))
            assert again.outcome == outcome
    except BaseException:
        sys.stderr.write(crash_server.output)
        raise
    _assert_once((await asyncio.to_thread(audit_log, crash_server.dsn))[run.run_id], outcome)


@pytest.mark.parametrize("point,count", _REJECTED_POINTS)
async def test_rejected_update_with_server_killed_leaves_nothing(
    crash_server: CrashServer, point: str, count: int
) -> None:
    await crash_server.begin_round(point, count)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        run, outcome = await _update(server, f"w-{secrets.token_hex(8)}", rejects=True)
        await wait_until(crash_server.has_died, 10, f"a server that comes to {point}")
    assert outcome.failure.message == "not today"
    audited = (await asyncio.to_thread(audit_log, crash_server.dsn))[run.run_id]
    assert types(audited.events) == _BEGUN
    assert audited.record_count == 2


@pytest.mark.parametrize("is_accepted", [False, True])
async def test_update_over_two_hosts_of_which_the_owner_is_killed_happens_once(
    new_server: NewServer, migrated_postgres_dsn: str, is_accepted: bool
) -> None:
    dsn = migrated_postgres_dsn
    settings = {"AETHERIS_HISTORY__SHARD_COUNT": f"{_SHARDS}"}
    mortal, lasting = new_server(**settings), new_server(**settings)
    async with running(mortal, lasting):
        owners = await wait_spread(dsn, {mortal.internal_address, lasting.internal_address})
        async with Raw(lasting.address, queue="updates") as server:
            namespace_id = await server.namespace_id()
            workflow_id = next(
                name
                for name in (f"w-{number}" for number in range(1_000))
                if owners[shard_of(namespace_id, name, _SHARDS)] == mortal.internal_address
            )
            started = await persist(lambda: server.start(workflow_id, request_id="once"))
            run = common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=started.run_id)
            await server.decide(await server.poll_workflow(), start_timer("t", 600))
            asking = asyncio.create_task(persist(lambda: server.update(run, "u1", wait=60.0)))
            task = await server.poll_workflow()
            assert [update.update_id for update in task.updates] == ["u1"]
            if is_accepted:
                await server.decide(task, accept_update("u1"))
            await mortal.kill()
            if is_accepted:
                await persist(lambda: server.signal(run, request_id="go-on"))
            else:
                assert await answer(lambda: server.decide(task, accept_update("u1"))) is None
            worker = asyncio.create_task(_work(server, rejects=False))
            try:
                async with asyncio.timeout(_PATIENCE):
                    response = await asking
                assert response.stage == _COMPLETED
            finally:
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)
    _assert_once((await asyncio.to_thread(audit_log, dsn))[run.run_id], response.outcome)
