"""Both stores of one data folder, under one owner."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from aetheris_server.embedded.data_dir import DataDirLock, socket_dir
from aetheris_server.embedded.postgres import EmbeddedPostgres
from aetheris_server.embedded.redis import EmbeddedRedis


class EmbeddedStores:
    """Postgres and Redis in a data folder. A context manager: started on entry, stopped on exit."""

    def __init__(self, data_dir: Path, postgres_options: Mapping[str, str] | None = None) -> None:
        """Args:
        data_dir: Made if it does not exist.
        postgres_options: Server settings added to ours, e.g. `{"fsync": "off"}` for tests that do
            not test durability.

        Raises:
            EmbeddedMissingError: The `embedded` extra is not installed.
        """
        self._data_dir = data_dir.resolve()
        sockets = socket_dir(self._data_dir)
        self._postgres = EmbeddedPostgres(
            self._data_dir / "postgres", sockets, postgres_options or {}
        )
        self._redis = EmbeddedRedis(self._data_dir / "redis", sockets)
        self._lock: DataDirLock | None = None

    @property
    def postgres_dsn(self) -> str:
        """Where Postgres is, once started."""
        return self._postgres.dsn

    @property
    def redis_url(self) -> str:
        """Where Redis is."""
        return self._redis.url

    def start(self) -> None:
        """Take the data folder and start both servers, or take over the ones that run in it.

        Raises:
            DataDirInUseError: Another process owns the folder.
            EmbeddedStartError: A server did not start. Nothing is left running.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = DataDirLock(self._data_dir)
        try:
            self._postgres.start()
            self._redis.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both servers and give the data folder up. Again is harmless."""
        if self._lock is None:
            return
        try:
            self._redis.stop()
            self._postgres.stop()
        finally:
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
        await _run_to_its_end(stores.start)
        yield stores
    finally:
        await _run_to_its_end(stores.stop)


async def _run_to_its_end(work: Callable[[], None]) -> None:
    """Run blocking work in a thread; a cancellation takes effect after it."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
