"""Both stores of one data folder, under one owner."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aetheris_server.embedded.account import Account
from aetheris_server.embedded.data_dir import DataDirLock, socket_dir
from aetheris_server.embedded.errors import DataDirError, DataDirGoneError, EmbeddedStartError
from aetheris_server.embedded.places import place_data
from aetheris_server.embedded.postgres import EmbeddedPostgres, ignore_libpq_environment
from aetheris_server.embedded.redis import EmbeddedRedis
from aetheris_server.loops import is_cancelled, pause, run_to_end
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

_LOOK_INTERVAL = 0.5
# A server that ends so soon after its start has a reason that a start does not mend.
_QUICK = 30.0
_MAX_QUICK_ENDS = 4
_REVIVE_INTERVAL = 0.5


@dataclass(frozen=True, slots=True)
class _Servers:
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis


class EmbeddedStores:
    """Postgres and Redis in a data folder. A context manager: started on entry, stopped on exit."""

    def __init__(self, data_dir: Path, postgres_options: Mapping[str, str] | None = None) -> None:
        """Args:
        data_dir: Made if it does not exist.
        postgres_options: Server settings added to ours, e.g. `{"fsync": "off"}` for tests that do
            not test durability.
        """
        self._data_dir = data_dir.resolve()
        self._options = postgres_options or {}
        self._lock: DataDirLock | None = None
        self._servers: _Servers | None = None

    @property
    def postgres_dsn(self) -> str:
        """Where Postgres is; only while it is started."""
        return self._started.postgres.dsn

    @property
    def redis_url(self) -> str:
        """Where Redis is; only while it is started."""
        return self._started.redis.url

    @property
    def postgres_folder(self) -> Path:
        """Where Postgres keeps its data: in the data folder, or behind a link in it."""
        return (self._data_dir / "postgres").resolve()

    def start(self) -> None:
        """Take the data folder and start both servers, or take over the ones that run in it.

        The PG* variables of this process's environment are dropped: they name another server.

        Raises:
            EmbeddedMissingError: The `embedded` extra is not installed.
            DataDirInUseError: Another process owns the folder.
            DataDirError: The folder cannot be made or written.
            EmbeddedStartError: A server did not start. Nothing is left running.
        """
        ignore_libpq_environment()
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            self._lock = DataDirLock(self._data_dir)
            self._servers = self._place()
            self._servers.postgres.start()
            self._servers.redis.start()
        except OSError as error:
            self.stop()
            raise DataDirError(self._data_dir, error) from error
        except BaseException:
            self.stop()
            raise

    def revive(self) -> list[str]:
        """Start again whichever server has ended by itself, and name it.

        Raises:
            DataDirGoneError: The data folder was deleted.
            DataDirError: The data folder cannot be used any more.
            EmbeddedStartError: It does not start.
        """
        servers = self._started
        if not self.postgres_folder.is_dir():
            raise DataDirGoneError(self._data_dir)
        revived: list[str] = []
        for name, server in (("PostgreSQL", servers.postgres), ("Redis", servers.redis)):
            if not server.is_alive:
                try:
                    server.stop()
                    server.start()
                except OSError as error:
                    raise DataDirError(self._data_dir, error) from error
                revived.append(name)
        return revived

    @property
    def has_ended_server(self) -> bool:
        """Whether a server has ended by itself."""
        return not (self._started.postgres.is_alive and self._started.redis.is_alive)

    @property
    def _started(self) -> "_Servers":
        assert self._servers is not None
        return self._servers

    def _place(self) -> "_Servers":
        account = Account.for_postgres()
        folder = place_data(self._data_dir / "postgres", account)
        is_inside = folder.parent == self._data_dir
        sockets = socket_dir(self._data_dir if is_inside else folder)
        return _Servers(
            EmbeddedPostgres(folder, sockets, self._options, account),
            EmbeddedRedis(self._data_dir / "redis", sockets),
        )

    def stop(self) -> None:
        """Stop both servers and give the data folder up. Again is harmless."""
        if self._lock is None:
            return
        try:
            if self._servers is not None:
                self._servers.redis.stop()
                self._servers.postgres.stop()
        finally:
            self._servers = None
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


@asynccontextmanager
async def embedded_stores(
    data_dir: Path, postgres_options: Mapping[str, str] | None = None
) -> AsyncGenerator[EmbeddedStores]:
    """`EmbeddedStores` for asyncio: the loop goes on while servers start and stop.

    Cancelling it leaves nothing running: a start under way is waited for and undone.
    """
    stores = EmbeddedStores(data_dir, postgres_options)
    try:
        await run_to_end(asyncio.to_thread(stores.start))
        yield stores
    finally:
        await run_to_end(asyncio.to_thread(stores.stop))


async def keep_alive(stores: EmbeddedStores) -> None:
    """Start a server that has ended by itself again, until cancelled.

    Raises:
        EmbeddedError: A server ended again and again or does not start, or the data is gone.
    """
    quick_ends, started_at = 0, time.monotonic()
    problem = EmbeddedStartError("the embedded servers", "one ends again and again")
    while not is_cancelled():
        await pause(_LOOK_INTERVAL)
        if not stores.has_ended_server:
            continue
        quick_ends = quick_ends + 1 if time.monotonic() - started_at < _QUICK else 1
        if quick_ends > _MAX_QUICK_ENDS:
            raise problem
        await pause(_REVIVE_INTERVAL * (2 ** (quick_ends - 1) - 1))
        try:
            revived = await run_to_end(asyncio.to_thread(stores.revive))
            _log.error("an embedded server ended by itself and was started again", servers=revived)
        except EmbeddedStartError as error:
            # It may have been killed while it started.
            _log.error("an embedded server that ended does not start; trying again")
            problem = error
        started_at = time.monotonic()
