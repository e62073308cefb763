"""Holds the projections of a database against its log, once nobody writes it any more."""

import asyncio
from datetime import UTC, datetime

import psycopg

from aetheris_server.config import PostgresSettings
from aetheris_server.history.projections.errors import OutOfStepError
from aetheris_server.history.projections.registry import PROJECTIONS
from aetheris_server.history.rebuild import check
from aetheris_server.storage.database import Database
from tests.support.clock import ManualClock

_HAS_RUNS = "SELECT EXISTS (SELECT FROM log WHERE run_id IS NOT NULL)"

# After whatever a test has made of its clocks: what a host had offered when its time had come.
_END_OF_TIME = datetime(9_000, 1, 1, tzinfo=UTC)


def audit_projections(dsn: str) -> None:
    """Check that the rows of every projection are what the log says.

    A database in which no run has ever begun costs one statement.
    """
    with psycopg.connect(dsn) as connection:
        ((has_runs,),) = connection.execute(_HAS_RUNS).fetchall()
    if has_runs:
        asyncio.run(_audit(dsn))


async def _audit(dsn: str) -> None:
    lines: list[str] = []
    async with Database(PostgresSettings(dsn=dsn)) as db:
        for projection in PROJECTIONS.all:
            try:
                await check(db, projection, ManualClock(_END_OF_TIME), lines.append)
            except OutOfStepError as error:
                raise AssertionError("\n".join([str(error), *lines])) from None
