"""Rows that are damaged or locked: the runs that they are of suffer, and no other."""

import asyncio
from typing import Final, LiteralString

import grpc
import psycopg
import pytest

from tests.fault.conftest import NewServer
from tests.support.drive import drive_simple_workflow, persist
from tests.support.log_audit import audit_log
from tests.support.processes import running
from tests.support.raw import COMPLETED, Raw, types
from tests.support.wait import wait_until

_SIGNALS: Final = 5

_DAMAGES: Final[dict[str, LiteralString]] = {
    "altered": "UPDATE log SET record = set_byte(record, 9, get_byte(record, 9) # 1)"
    " WHERE run_id = %(run)s AND run_seq = 4",
    "altered at first": "UPDATE log SET record = set_byte(record, 9, get_byte(record, 9) # 1)"
    " WHERE run_id = %(run)s AND run_seq = 1",
    "cut off": "UPDATE log SET record = substr(record, 1, length(record) - 3)"
    " WHERE run_id = %(run)s AND run_seq = 4",
    "empty": "UPDATE log SET record = '' WHERE run_id = %(run)s AND run_seq = 4",
    "noise": "UPDATE log SET record = uuid_send(gen_random_uuid())"
    " WHERE run_id = %(run)s AND run_seq = 4",
    "swapped": "UPDATE log l SET record = (SELECT record FROM log o"
    " WHERE o.run_id = l.run_id AND o.run_seq = 9 - l.run_seq)"
    " WHERE run_id = %(run)s AND run_seq IN (4, 5)",
    "missing": "DELETE FROM log WHERE run_id = %(run)s AND run_seq = 4",
    "missing at first": "DELETE FROM log WHERE run_id = %(run)s AND run_seq = 1",
    "hash": "UPDATE log SET hash = '\\x00' WHERE run_id = %(run)s AND run_seq = 4",
    "count of events": "UPDATE log SET event_count = 7 WHERE run_id = %(run)s AND run_seq = 4",
    "status": "UPDATE executions SET status = 2, close_time = now() WHERE run_id = %(run)s",
    "length": "UPDATE executions SET history_length = 99 WHERE run_id = %(run)s",
}


@pytest.mark.damage
async def test_damaged_rows_of_any_kind_are_refused_and_harm_no_other_run(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    # One shard, so that all are recovered together.
    process = new_server(AETHERIS_HISTORY__SHARD_COUNT="1")
    async with running(process), Raw(process.address) as server:
        healthy, *doomed = [await server.start_run() for _ in range(1 + len(_DAMAGES))]
        for run in (healthy, *doomed):
            for _ in range(_SIGNALS):
                await server.signal(run)
        await process.kill()
        async with await psycopg.AsyncConnection.connect(migrated_postgres_dsn) as connection:
            for run, damage in zip(doomed, _DAMAGES.values(), strict=True):
                done = await connection.execute(damage, {"run": run.run_id})
                assert done.rowcount in (1, 2), damage
        await process.start()
        for run, kind in zip(doomed, _DAMAGES, strict=True):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await persist(lambda run=run: server.signal(run))
            assert caught.value.code() == grpc.StatusCode.DATA_LOSS, kind
            assert run.run_id in (caught.value.details() or ""), kind
        await server.signal(healthy)
        events = types(await server.history(healthy))
        assert events.count("WORKFLOW_EXECUTION_SIGNALED") == _SIGNALS + 1
        async with Raw(process.address, queue="another") as another:
            assert (await drive_simple_workflow(another)).result.status == COMPLETED
        assert len(await server.list()) == len(doomed) + 2
        assert await process.terminate() == 0, process.output


@pytest.mark.parametrize(
    "tables,sign",
    [
        ("log", "code=UNAVAILABLE method=aetheris.api.v1.WorkflowService/SignalWorkflow"),
        ("executions", "code=UNAVAILABLE method=aetheris.api.v1.WorkflowService/StartWorkflow"),
        ("shards, hosts, snapshots, namespaces", "the lease has run out"),
    ],
    ids=["log", "executions", "others"],
)
async def test_tables_that_are_locked_until_calls_and_leases_fail_lose_nothing(
    new_server: NewServer, migrated_postgres_dsn: str, tables: LiteralString, sign: str
) -> None:
    process = new_server(AETHERIS_POSTGRES__STATEMENT_TIMEOUT="500ms")
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        async with await psycopg.AsyncConnection.connect(migrated_postgres_dsn) as connection:
            await connection.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
            signalling = [
                asyncio.create_task(
                    persist(lambda number=number: server.signal(run, request_id=f"{number}"))
                )
                for number in range(_SIGNALS)
            ]
            starting = asyncio.create_task(persist(lambda: server.start("new", request_id="once")))
            await wait_until(lambda: sign in process.output, 15, sign)
        async with asyncio.timeout(10.0):
            await asyncio.gather(*signalling)
            started = await starting
        assert (await drive_simple_workflow(server)).result.status == COMPLETED
        assert process.is_running
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert types(audited[run.run_id].events).count("WORKFLOW_EXECUTION_SIGNALED") == _SIGNALS
    assert started.run_id in audited
