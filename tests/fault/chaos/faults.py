"""What is done to a cluster, by name: each fault begins, lasts as the dice say, and ends."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from inspect import iscoroutinefunction
from random import Random
from typing import Any, Final, LiteralString, cast

import psutil
import psycopg
import redis
from psycopg import sql

from tests.fault.chaos.cluster import Cluster
from tests.support.processes import ServerProcess, Stopwatch

_TABLES: Final = ("log", "hosts", "executions", "shards", "snapshots", "namespaces")
# What a server that is told to end may take: its drain, and a store that does not answer.
_TERM_SECONDS: Final = 27.0
_RESTART_PAUSE: Final = 1.0


class FaultFoundError(Exception):
    """A part did not bear a fault: the text says what it did."""


class Faults:
    """The faults, as methods.

    Attributes:
        longest: Seconds that a fault lasts at most.
    """

    def __init__(self, cluster: Cluster, dice: Random, longest: float) -> None:
        self.cluster = cluster
        self.longest = longest
        self._dice = dice

    @classmethod
    def names(cls) -> list[str]:
        """All of them, in the order in which they are written."""
        methods = [name for name, value in vars(cls).items() if iscoroutinefunction(value)]
        return [name for name in methods if not name.startswith("_") and name != "do"]

    @staticmethod
    def are_compatible(first: str, second: str) -> bool:
        """Whether a second fault may come beside a first: only one of them may start a server."""
        starts_server = second.startswith(("server_", "postgres_server_"))
        return not starts_server and first.partition("_")[0] != second.partition("_")[0]

    async def do(self, name: str) -> None:
        """Raises:
        FaultFoundError: Something ended as it must not.
        """
        fault: Callable[[], Awaitable[None]] = getattr(self, name)
        await fault()

    async def _last(self) -> None:
        # A third of them are over before anything can time out.
        share = self._dice.choice((0.05, 0.3, 1.0))
        await asyncio.sleep(self.longest * share)

    # Servers.

    async def server_is_killed(self) -> None:
        server = self._server()
        await server.kill()
        await self._last()
        await self._bring_up(server)

    async def server_is_paused(self) -> None:
        server = self._server()
        server.send(signal.SIGSTOP)
        await self._last()
        server.send(signal.SIGCONT)

    async def server_is_replaced(self) -> None:
        server = self._server()
        await self._terminate(server)
        await self._bring_up(server)

    async def server_and_server_are_killed(self) -> None:
        for server in self.cluster.servers:
            await server.kill()
        for server in self.cluster.servers:
            await self._bring_up(server)

    async def server_is_replaced_without_postgres(self) -> None:
        server = self._server()
        paused = self._pause(self.cluster.postgres_processes())
        ending = asyncio.create_task(self._terminate(server))
        await self._last()
        self._resume(paused)
        await ending
        await self._bring_up(server)

    async def server_is_replaced_without_redis(self) -> None:
        server = self._server()
        paused = self._pause(self.cluster.redis_processes())
        ending = asyncio.create_task(self._terminate(server))
        await self._last()
        self._resume(paused)
        await ending
        await self._bring_up(server)

    # Postgres.

    async def postgres_server_is_killed(self) -> None:
        for process in self.cluster.postgres_processes()[:1]:
            process.kill()
        await self._last()
        await asyncio.to_thread(self.cluster.stores.revive)

    async def postgres_server_is_replaced(self) -> None:
        postgres = self.cluster.stores._started.postgres
        await asyncio.to_thread(postgres.stop)
        await self._last()
        await asyncio.to_thread(postgres.start)

    async def postgres_is_paused(self) -> None:
        paused = self._pause(self.cluster.postgres_processes())
        await self._last()
        self._resume(paused)

    async def postgres_connections_are_ended(self) -> None:
        for _ in range(self._dice.randrange(1, 8)):
            await self._execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
            )
            await asyncio.sleep(self._dice.random() / 2)

    async def postgres_table_is_locked(self) -> None:
        lock = sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(
            sql.Identifier(self._dice.choice(_TABLES))
        )
        async with await psycopg.AsyncConnection.connect(self.cluster.dsn) as connection:
            await connection.execute(lock)
            await self._last()

    async def postgres_connections_are_cut(self) -> None:
        for _ in range(self._dice.randrange(1, 8)):
            self.cluster.postgres_proxy.cut()
            await asyncio.sleep(self._dice.random() / 2)

    async def postgres_network_is_silent(self) -> None:
        self.cluster.postgres_proxy.is_holding = True
        await self._last()
        self.cluster.postgres_proxy.is_holding = False

    async def postgres_answers_are_held(self) -> None:
        self.cluster.postgres_proxy.holds_replies = True
        await self._last()
        self.cluster.postgres_proxy.holds_replies = False
        self.cluster.postgres_proxy.cut()

    async def postgres_answers_are_lost(self) -> None:
        for _ in range(12):
            self.cluster.postgres_proxy.drops_next_reply = True
            await asyncio.sleep(self._dice.random() / 4)
        self.cluster.postgres_proxy.drops_next_reply = False

    async def postgres_refuses(self) -> None:
        self.cluster.postgres_proxy.is_refusing = True
        self.cluster.postgres_proxy.cut()
        await self._last()
        self.cluster.postgres_proxy.is_refusing = False

    # Redis.

    async def redis_is_killed(self) -> None:
        for process in self.cluster.redis_processes():
            process.kill()
        await self._last()
        await asyncio.to_thread(self.cluster.stores.revive)

    async def redis_is_paused(self) -> None:
        paused = self._pause(self.cluster.redis_processes())
        await self._last()
        self._resume(paused)

    async def redis_is_flushed(self) -> None:
        with self._redis() as client:
            await asyncio.to_thread(client.flushall)

    async def redis_loses_keys(self) -> None:
        with self._redis() as client:
            for _ in range(10):
                for key in await self._some_keys(client):
                    await asyncio.to_thread(client.delete, key)
                await asyncio.sleep(0.1)

    async def redis_keys_are_overwritten(self) -> None:
        with self._redis() as client:
            for key in await self._some_keys(client):
                await asyncio.to_thread(client.set, key, self._dice.randbytes(12))

    async def redis_has_no_memory(self) -> None:
        with self._redis() as client:
            policy = self._dice.choice(("noeviction", "allkeys-lru"))
            await asyncio.to_thread(client.config_set, "maxmemory-policy", policy)
            await asyncio.to_thread(client.config_set, "maxmemory", "1mb")
            await self._last()
            await asyncio.to_thread(client.config_set, "maxmemory", 0)

    # Workers.

    async def worker_is_killed(self) -> None:
        worker = self._dice.choice(self.cluster.workers)
        await worker.kill()
        await self._last()
        worker.launch()

    async def worker_is_paused(self) -> None:
        worker = self._dice.choice(self.cluster.workers)
        worker.send(signal.SIGSTOP)
        await self._last()
        worker.send(signal.SIGCONT)

    async def worker_is_replaced(self) -> None:
        worker = self._dice.choice(self.cluster.workers)
        await worker.terminate()
        worker.launch()

    async def worker_connections_are_cut(self) -> None:
        for _ in range(self._dice.randrange(1, 6)):
            self.cluster.worker_proxy.cut()
            await asyncio.sleep(self._dice.random() / 2)

    async def worker_answers_are_lost(self) -> None:
        for _ in range(10):
            self.cluster.worker_proxy.drops_next_reply = True
            await asyncio.sleep(self._dice.random() / 4)
        self.cluster.worker_proxy.drops_next_reply = False

    async def worker_network_is_silent(self) -> None:
        self.cluster.worker_proxy.is_holding = True
        await self._last()
        self.cluster.worker_proxy.is_holding = False

    # What they share.

    def _server(self) -> ServerProcess:
        return self._dice.choice(self.cluster.servers)

    async def _bring_up(self, server: ServerProcess) -> None:
        """Start a server again, as a supervisor would: it may give up while a store is away."""
        try:
            await server.start()
        except AssertionError:
            if server.is_running:
                raise
            await asyncio.sleep(_RESTART_PAUSE)
            await server.start()

    async def _terminate(self, server: ServerProcess) -> None:
        watch = Stopwatch()
        code = await server.terminate()
        # 1 says that something could not be finished: another fault may be about.
        if code not in (0, 1) or watch.seconds > _TERM_SECONDS:
            raise FaultFoundError(f"SIGTERM took {watch.seconds:.1f} s and ended with {code}")

    def _pause(self, processes: list[psutil.Process]) -> list[psutil.Process]:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        return processes

    def _resume(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    async def _execute(self, statement: LiteralString) -> None:
        async with await psycopg.AsyncConnection.connect(self.cluster.dsn) as connection:
            await connection.execute(statement)

    def _redis(self) -> Any:
        return redis.Redis.from_url(self.cluster.stores.redis_url, socket_timeout=30)

    async def _some_keys(self, client: Any) -> list[bytes]:
        keys = cast("list[bytes]", await asyncio.to_thread(client.keys, "*"))
        return [key for key in sorted(keys) if self._dice.random() < 0.5]
