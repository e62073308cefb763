"""SIGKILL at every point of a family's life: a parent starts two children and signals another run,
one child ends, and the parent closes over the other. On one host, and on two, of which either dies.
"""

import asyncio
import secrets
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
import pytest

from aetheris.api.v1 import command_pb2, common_pb2, workflow_pb2
from aetheris_server.history.state.obligations import owes
from aetheris_server.ids import shard_of
from tests.fault.conftest import NewServer
from tests.fault.test_kill_matrix import CrashServer, crash_server
from tests.support.drive import answer, persist
from tests.support.log_audit import AuditedRun, audit_log
from tests.support.processes import ServerProcess, running
from tests.support.raw import (
    COMPLETED,
    Raw,
    complete_workflow,
    signal_run,
    start_child,
    types,
)
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

__all__ = ["crash_server"]

_TERMINATED = workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED
_SHARDS = 8
_PROGRAM = ("-m", "tests.support.counter_server")
_PATIENCE = 60.0

_TIMES = {"commit": 8, "answer_calls": 3, "record_outcome": 5}
"""How often each call comes at least in the life of a family that has one host."""


@dataclass(frozen=True, slots=True)
class _Family:
    """The workflow ids."""

    parent: str
    child: str
    orphan: str
    other: str

    def decide(self, workflow_id: str, names: Sequence[str]) -> list[command_pb2.Command]:
        """What the code of each does, given the types of its events."""
        if workflow_id == self.parent:
            if "START_CHILD_WORKFLOW_EXECUTION_INITIATED" not in names:
                return [start_child(self.child), start_child(self.orphan), signal_run(self.other)]
            has_all = (
                "CHILD_WORKFLOW_EXECUTION_COMPLETED" in names
                and "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED" in names
                and names.count("CHILD_WORKFLOW_EXECUTION_STARTED") == 2
            )
            return [complete_workflow()] if has_all else []
        if workflow_id == self.child or "WORKFLOW_EXECUTION_SIGNALED" in names:
            return [complete_workflow()]
        return []


async def _work(server: Raw, family: _Family) -> None:
    """Decide for the family until cancelled."""
    while True:
        for task in await persist(lambda: server.poll_workflows(3.0)):
            workflow_id = task.workflow_execution.workflow_id
            commands = family.decide(workflow_id, types(task.history.events))
            await answer(lambda task=task, commands=commands: server.decide(task, *commands))


async def _live(server: Raw, family: _Family) -> common_pb2.WorkflowExecution:
    """Have the family live, until all of it is over; the parent."""
    work = asyncio.create_task(_work(server, family))
    try:
        async with asyncio.timeout(_PATIENCE):
            await persist(lambda: server.start(family.other, request_id="other"))
            started = await persist(lambda: server.start(family.parent, request_id="parent"))
            parent = common_pb2.WorkflowExecution(workflow_id=family.parent, run_id=started.run_id)
            await _wait_closed(server, parent, COMPLETED)
            await _wait_closed(server, _newest(family.other), COMPLETED)
            await _wait_closed(server, _newest(family.orphan), _TERMINATED)
            return parent
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def _newest(workflow_id: str) -> common_pb2.WorkflowExecution:
    return common_pb2.WorkflowExecution(workflow_id=workflow_id)


async def _wait_closed(
    server: Raw,
    run: common_pb2.WorkflowExecution,
    status: workflow_pb2.WorkflowExecutionStatus.ValueType,
) -> None:
    while (result := await persist(lambda: server.result(run, wait=5.0))) is None:
        pass
    assert result.status == status


async def _audit(dsn: str, family: _Family) -> None:
    """All that was owed was done, once; nothing is owed any more."""

    async def is_settled() -> bool:
        runs = _runs_of(await asyncio.to_thread(audit_log, dsn), family)
        return not any(owes(run.state) for run in runs.values())

    await wait_until(is_settled, 30, "the family to owe nothing")
    found = await asyncio.to_thread(audit_log, dsn)
    runs = _runs_of(found, family)
    counts = Counter(types(runs[family.parent].events))
    assert counts["START_CHILD_WORKFLOW_EXECUTION_INITIATED"] == 2
    assert counts["CHILD_WORKFLOW_EXECUTION_STARTED"] == 2
    assert counts["CHILD_WORKFLOW_EXECUTION_COMPLETED"] == 1
    assert counts["EXTERNAL_WORKFLOW_EXECUTION_SIGNALED"] == 1
    assert types(runs[family.parent].events)[-1] == "WORKFLOW_EXECUTION_COMPLETED"
    assert Counter(types(runs[family.other].events))["WORKFLOW_EXECUTION_SIGNALED"] == 1
    started = [
        event.child_workflow_execution_started_event_attributes.workflow_execution
        for event in runs[family.parent].events
        if event.HasField("child_workflow_execution_started_event_attributes")
    ]
    assert {each.run_id for each in started} == {
        runs[family.child].run_id,
        runs[family.orphan].run_id,
    }


def _runs_of(found: dict[str, AuditedRun], family: _Family) -> dict[str, AuditedRun]:
    """The family's, by workflow id: each has one run."""
    wanted = {family.parent, family.child, family.orphan, family.other}
    runs = [run for run in found.values() if run.state.key.workflow_id in wanted]
    assert len(runs) == len(wanted)
    return {run.state.key.workflow_id: run for run in runs}


@pytest.mark.parametrize(
    "point,count",
    [
        (f"{call}.{moment}", count)
        for call, most in _TIMES.items()
        for count in range(1, most + 1)
        for moment in ("before", "after")
    ],
)
async def test_family_with_its_server_killed_loses_and_repeats_nothing(
    crash_server: CrashServer,
    point: str,
    count: int,
) -> None:
    tag = secrets.token_hex(4)
    family = _Family(*(f"{role}-{tag}" for role in ("parent", "child", "orphan", "other")))
    await crash_server.begin_round(point, count)
    try:
        async with Raw(crash_server.address, queue=f"q-{tag}") as server:
            await _live(server, family)
        await wait_until(crash_server.has_died, 10, f"a server that comes to {point} {count} times")
        await _audit(crash_server.dsn, family)
    except BaseException:
        sys.stderr.write(crash_server.output)
        raise


# Two hosts: the parent's, and that of all that it calls.


def _named(role: str, namespace_id: str, is_wanted: Callable[[int], bool]) -> str:
    number = 0
    while not is_wanted(shard_of(namespace_id, f"{role}-{number}", _SHARDS)):
        number += 1
    return f"{role}-{number}"


def _owners(dsn: str) -> dict[int, str]:
    """The address of the host of each shard that has a live one."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT s.shard_id, h.address FROM shards s JOIN hosts h USING (host_id)"
            " WHERE h.expire_time > now()"
        ).fetchall()
    return {row[0]: row[1] for row in rows}


async def wait_spread(dsn: str, addresses: set[str]) -> dict[int, str]:
    """Until each of the hosts has shards, and nobody else; who has which."""

    async def spread() -> dict[int, str] | None:
        owners = await asyncio.to_thread(_owners, dsn)
        is_spread = len(owners) == _SHARDS and set(owners.values()) == addresses
        return owners if is_spread else None

    found = await wait_until(spread, 30, "the shards to be spread")
    assert found is not None
    return found


_CALLER_POINTS = [
    *(f"commit.{moment} {count}" for count in (2, 3, 4) for moment in ("before", "after")),
    *(f"answer_calls.{moment} 1" for moment in ("before", "after")),
    *(f"record_outcome.{moment} {count}" for count in (1, 4) for moment in ("before", "after")),
]
_CALLED_POINTS = [
    *(f"commit.{moment} {count}" for count in (1, 2, 3) for moment in ("before", "after")),
    *(f"answer_calls.{moment} {count}" for count in (1, 2) for moment in ("before", "after")),
    *(f"record_outcome.{moment} 1" for moment in ("before", "after")),
]


@pytest.mark.parametrize(
    "is_caller,point",
    [*((True, point) for point in _CALLER_POINTS), *((False, point) for point in _CALLED_POINTS)],
)
async def test_family_over_two_hosts_of_which_one_is_killed_loses_and_repeats_nothing(
    new_server: NewServer, migrated_postgres_dsn: str, is_caller: bool, point: str
) -> None:
    dsn = migrated_postgres_dsn
    settings = {"AETHERIS_HISTORY__SHARD_COUNT": f"{_SHARDS}"}
    mortal, lasting = new_server(**settings, COUNTER_SERVER_DIES=point), new_server(**settings)
    for server in (mortal, lasting):
        server.program = _PROGRAM
    async with running(mortal, lasting):
        del mortal.environment["COUNTER_SERVER_DIES"]
        addresses = {mortal.internal_address, lasting.internal_address}
        owners = await wait_spread(dsn, addresses)
        caller, called = (mortal, lasting) if is_caller else (lasting, mortal)
        async with Raw(lasting.address) as server:
            namespace_id = await server.namespace_id()
        family = _Family(
            _named("parent", namespace_id, _of(owners, caller)),
            *(
                _named(role, namespace_id, _of(owners, called))
                for role in ("child", "orphan", "other")
            ),
        )
        async with Raw(lasting.address, queue="family") as server:
            living = asyncio.create_task(_live(server, family))
            assert await mortal.wait_exit(_PATIENCE) == -signal.SIGKILL
            await mortal.start()
            await living
        await _audit(dsn, family)


def _of(owners: dict[int, str], server: ServerProcess) -> Callable[[int], bool]:
    return lambda shard_id: owners[shard_id] == server.internal_address
