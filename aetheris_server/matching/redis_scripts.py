"""The connection to Redis: runs the scripts in lua/, under deadlines, as pipelines.

Every failure of Redis leaves as StorageUnavailableError. With each call the epoch of the store is
read along, so that a loss of Redis' contents is noticed by whoever touches it first.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha1
from importlib.resources import files
from typing import Any, TypeVar, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from aetheris_server.config import ConfigError, RedisSettings
from aetheris_server.errors import StorageUnavailableError

T = TypeVar("T")

CALL_TIMEOUT = 2.0
_MAX_CONNECTIONS = 32
# Part of every key. Keys of another layout are not read; the epoch tells that they are missing.
_LAYOUT = 2


class Script(Enum):
    """A script, by the name of its file."""

    PUSH = "push"
    POP = "pop"
    END_LEASES = "end_leases"
    INSPECT = "inspect"
    DESCRIBE = "describe"


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One run of a script on one queue.

    Attributes:
        base: The name that all keys of the queue begin with; it holds their hash tag.
        arguments: As the head of the script says.
    """

    script: Script
    base: str
    arguments: Sequence[str | bytes | int | float]


class Scripts:
    """Runs scripts, and owns the calls under way. One for a process; to be closed.

    Attributes:
        key_prefix: What the names of all keys begin with.
    """

    def __init__(self, settings: RedisSettings) -> None:
        """Args:
            settings: Where Redis is.

        Raises:
            ConfigError: The URL cannot be parsed.
        """
        self._redis = Redis(connection_pool=_new_pool(settings.url))
        self.key_prefix = f"{settings.key_prefix}:{_LAYOUT}"
        self._epoch_key = f"{self.key_prefix}:epoch"
        self._is_closed = False
        self._calls: set[asyncio.Task[Any]] = set()
        self._sources = {script: _source(script) for script in Script}
        # Names a script to Redis; guards nothing.
        self._digests = {
            script: sha1(source, usedforsecurity=False).hexdigest()
            for script, source in self._sources.items()
        }

    async def close(self) -> None:
        """Wait for the calls under way, and close the connections. Later calls fail."""
        self._is_closed = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=CALL_TIMEOUT)
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def run(self, calls: Sequence[ScriptCall]) -> tuple[list[Any], bytes | None]:
        """Run scripts in one round trip; their answers, in order, and the epoch.

        Not atomic as a whole. All scripts may be repeated: one that Redis does not know yet is
        loaded and run again.

        Raises:
            StorageUnavailableError: Some may have run.
        """
        return await self._call(self._run(calls))

    async def mark_epoch(self, new_epoch: str) -> tuple[bytes, str]:
        """Set the epoch if there is none; the epoch that holds, and the server's own run id.

        Raises:
            StorageUnavailableError: Redis does not answer.
        """
        return await self._call(self._mark_epoch(new_epoch))

    async def replace_epoch(self, new_epoch: str) -> None:
        """Set the epoch.

        Raises:
            StorageUnavailableError: Redis does not answer.
        """
        await self._call(cast(Any, self._redis).set(self._epoch_key, new_epoch))

    async def load_eviction(self) -> str | None:
        """The policy by which Redis would remove keys of ours when its memory is full; empty if it
        never does, None if Redis does not tell.

        Raises:
            StorageUnavailableError: Redis does not answer.
        """
        return await self._call(self._load_eviction())

    async def _call(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call, not for long. A cancelled caller does not cancel it: on Python 3.11 the
        client may swallow a cancellation that comes while it sends.
        """
        if self._is_closed:
            call.close()
            raise StorageUnavailableError("redis", "this server is shutting down")
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait([task], timeout=CALL_TIMEOUT)
        if not done:
            task.cancel()
            raise StorageUnavailableError("redis", f"no answer within {CALL_TIMEOUT} s")
        try:
            return task.result()
        except (RedisError, OSError) as error:
            raise StorageUnavailableError("redis", str(error) or repr(error)) from error

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            # Seen, even if the caller has gone: asyncio complains of errors that nobody looks at.
            task.exception()

    async def _run(self, calls: Sequence[ScriptCall]) -> tuple[list[Any], bytes | None]:
        *answers, epoch = await self._execute(calls)
        unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            for source in self._sources.values():
                await cast(Any, self._redis.script_load(source.decode()))
            *again, epoch = await self._execute([calls[i] for i in unknown])
            for i, answer in zip(unknown, again, strict=True):
                answers[i] = answer
        for answer in (*answers, epoch):
            if isinstance(answer, Exception):
                raise answer
        return answers, epoch

    async def _mark_epoch(self, new_epoch: str) -> tuple[bytes, str]:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(self._epoch_key, new_epoch, nx=True)
        pipeline.get(self._epoch_key)
        cast(Any, pipeline).info("server")
        _, epoch, info = cast(Any, await pipeline.execute())
        return epoch, str(info.get("run_id", ""))

    async def _load_eviction(self) -> str | None:
        try:
            memory = await cast(Any, self._redis).info("memory")
        except ResponseError:
            return None
        if "maxmemory" not in memory or "maxmemory_policy" not in memory:
            return None
        policy = str(memory["maxmemory_policy"])
        # Our keys never expire, so the other policies do not touch them.
        return policy if memory["maxmemory"] and policy.startswith("allkeys") else ""

    async def _execute(self, calls: Sequence[ScriptCall]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            cast(Any, pipeline).evalsha(self._digests[call.script], 1, call.base, *call.arguments)
        pipeline.get(self._epoch_key)
        return await pipeline.execute(raise_on_error=False)


def _new_pool(url: str) -> BlockingConnectionPool:
    try:
        pool = cast(Any, BlockingConnectionPool).from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=CALL_TIMEOUT,
            socket_timeout=CALL_TIMEOUT,
            socket_connect_timeout=CALL_TIMEOUT,
        )
        # Connects to nothing; but here what the URL's query asks for is looked at.
        pool.make_connection()
    except (ValueError, TypeError):
        # Its message may quote the URL, and so a part of a password.
        raise ConfigError(
            "redis.url",
            "expected a Redis URL such as redis://user:password@host:6379/0, what is special in"
            " URLs percent-encoded",
        ) from None
    return pool


def _source(script: Script) -> bytes:
    folder = files("aetheris_server.matching") / "lua"
    parts = (folder / "common.lua", folder / f"{script.value}.lua")
    return b"\n".join(part.read_bytes() for part in parts)
