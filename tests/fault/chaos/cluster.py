"""What faults are done to: stores, two servers, three workers, and the proxies between them."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from aetheris_server.embedded.stores import EmbeddedStores
from aetheris_server.storage.migrate import migrate
from tests.fault.chaos.workflows import EFFECTS_VARIABLE
from tests.support.cutting_proxy import CuttingProxy, grpc_proxy, postgres_proxy
from tests.support.processes import (
    FAST,
    ModuleProcess,
    ServerProcess,
    running,
    start_arguments,
)

# Durability under a crash of the machine is not what is tried here.
_POSTGRES = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that runs.

    Attributes:
        servers: The first reaches Postgres through `postgres_proxy`.
        workers: The first reaches its server through `worker_proxy`.
        effects: The file of what at-most-once activities have done.
    """

    stores: EmbeddedStores
    servers: list[ServerProcess]
    workers: list[ModuleProcess]
    postgres_proxy: CuttingProxy
    worker_proxy: CuttingProxy
    effects: Path

    @property
    def dsn(self) -> str:
        """Postgres, past the proxy."""
        return self.stores.postgres_dsn

    def postgres_processes(self) -> list[psutil.Process]:
        """The first is the parent of the others; none while it is gone."""
        server = self.stores._started.postgres._process
        if server is None or not server.is_running():
            return []
        return [server, *server.children(recursive=True)]

    def redis_processes(self) -> list[psutil.Process]:
        """One, or none while it is gone."""
        server = self.stores._started.redis._process
        return [server] if server is not None and server.is_running() else []

    def mend(self) -> None:
        """End what faults have left of themselves in the proxies."""
        for proxy in (self.postgres_proxy, self.worker_proxy):
            proxy.is_refusing = proxy.is_holding = False
            proxy.holds_replies = proxy.drops_next_reply = False
            proxy.cut()


@asynccontextmanager
async def running_cluster(folder: Path, shard_count: int, cache: int) -> AsyncGenerator[Cluster]:
    """A cluster on stores of its own in a folder, which every account can pass through.

    Args:
        folder: Empty.
        shard_count: Of the cluster.
        cache: The most runs that a server has in memory; 0 for the default.
    """
    settings = {**FAST, "AETHERIS_HISTORY__SHARD_COUNT": str(shard_count)}
    if cache:
        settings["AETHERIS_HISTORY__CACHE_MAX_RUNS"] = str(cache)
    stores = EmbeddedStores(folder / "stores", _POSTGRES)
    await asyncio.to_thread(stores.start)
    try:
        dsn, redis_url = stores.postgres_dsn, stores.redis_url
        await migrate(dsn)
        async with postgres_proxy(dsn) as (proxy, proxy_dsn):
            servers = [
                ServerProcess(folder, start_arguments(each, redis_url), settings)
                for each in (proxy_dsn, dsn)
            ]
            async with (
                running(*servers),
                grpc_proxy(servers[0].address) as (worker_proxy, worker_address),
            ):
                effects = folder / "effects"
                effects.touch()
                addresses = [worker_address, servers[1].address, servers[0].address]
                workers = [_worker(folder, address, effects) for address in addresses]
                cluster = Cluster(stores, servers, workers, proxy, worker_proxy, effects)
                async with _working(workers):
                    yield cluster
    finally:
        await asyncio.to_thread(stores.stop)


def _worker(folder: Path, address: str, effects: Path) -> ModuleProcess:
    log = folder / f"worker-{address.rpartition(':')[2]}.log"
    environment = {EFFECTS_VARIABLE: str(effects)}
    return ModuleProcess(log, environment, "tests.fault.chaos.worker", address)


@asynccontextmanager
async def _working(workers: list[ModuleProcess]) -> AsyncGenerator[None]:
    try:
        for worker in workers:
            worker.launch()
        yield
    except BaseException:
        for worker in workers:
            sys.stderr.write(f"--- output of a worker\n{worker.output}\n")
        raise
    finally:
        for worker in workers:
            await worker.kill()
