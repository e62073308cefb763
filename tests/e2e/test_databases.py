"""Databases that are not as ours would be."""

import asyncio
import secrets
from pathlib import Path

from aetheris.api.v1 import common_pb2
from aetheris_server.storage.migrate import migrate
from tests.support.databases import MakeDatabase
from tests.support.processes import FAST, ServerProcess, running, start_arguments
from tests.support.raw import COMPLETED, Raw, complete_workflow
from tests.support.transaction_pooler import postgres_pooler


async def test_run_on_a_database_without_an_encoding_keeps_every_text(
    make_database: MakeDatabase, redis_url: str, redis_key_prefix: str, tmp_path: Path
) -> None:
    dsn = make_database("SQL_ASCII")
    await migrate(dsn)
    environment = {**FAST, "AETHERIS_REDIS__KEY_PREFIX": redis_key_prefix}
    process = ServerProcess(tmp_path, start_arguments(dsn, redis_url), environment)
    workflow_id = f"Größe-東京-🚀-{secrets.token_hex(4)}"
    async with running(process), Raw(process.address) as server:
        await server.start(workflow_id)
        await process.restart()
        await server.decide(await server.poll_workflow(), complete_workflow())
        result = await server.result(common_pb2.WorkflowExecution(workflow_id=workflow_id))
        assert result is not None
        assert result.status == COMPLETED
        listed = await server.list()
        assert [info.execution.workflow_id for info in listed] == [workflow_id]


async def test_server_behind_a_pooler_that_shares_connections_says_so_and_ends(
    migrated_postgres_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    async with postgres_pooler(migrated_postgres_dsn, is_transaction_mode=True) as dsn:
        process = ServerProcess(tmp_path, start_arguments(dsn, redis_url), FAST)
        await asyncio.to_thread(process.launch)
        assert await process.wait_exit() == 2
        assert "pool_mode = session" in process.output
