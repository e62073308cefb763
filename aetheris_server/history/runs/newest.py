"""The newest run of each workflow id: what a start must know, and a call that names no run.

Each id is looked up once at a time. Look-ups that come while one is under way go together in the
next statement.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from aetheris_server.errors import AetherisError, RequestError, StorageUnavailableError
from aetheris_server.loops import is_cancelled
from aetheris_server.storage.executions import NewestRun, WorkflowKey
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

_MAX_LOOKUPS = 500

LoadNewest = Callable[[Sequence[WorkflowKey]], Awaitable[dict[WorkflowKey, NewestRun]]]
"""From workflow ids to their newest runs, as far as they have any."""


class NewestRuns:
    """The newest run of each workflow id, kept in memory while it is used.

    Attributes:
        max_entries: More than can be waiting for a commit, so that an id whose run is not on disk
            yet is never looked up there.
    """

    def __init__(self, load: LoadNewest, max_entries: int) -> None:
        self.max_entries = max_entries
        self._load = load
        self._entries: OrderedDict[WorkflowKey, NewestRun | None] = OrderedDict()
        self._by_shard: dict[int, set[WorkflowKey]] = {}
        self._wanted: dict[WorkflowKey, asyncio.Future[None]] = {}
        # The shards forgotten since the look-up under way was sent: its answer may be from before.
        self._forgotten: set[int] = set()
        self._wake = asyncio.Event()

    async def load(self, key: WorkflowKey) -> NewestRun | None:
        """The newest run, open or closed; None if there never was one.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        while key not in self._entries:
            waiter = self._wanted.get(key)
            if waiter is None:
                waiter = asyncio.get_running_loop().create_future()
                self._wanted[key] = waiter
                self._wake.set()
            await asyncio.shield(waiter)
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: WorkflowKey, newest: NewestRun) -> None:
        """Take note of a run that has just been started or closed."""
        self._enter(key, newest)
        self._entries.move_to_end(key)
        self._trim()

    def forget_shard(self, shard_id: int) -> None:
        """Drop what is known of a shard's workflow ids, at the cost of those alone."""
        for key in self._by_shard.pop(shard_id, ()):
            del self._entries[key]
        self._forgotten.add(shard_id)

    def _enter(self, key: WorkflowKey, newest: NewestRun | None) -> None:
        self._entries[key] = newest
        self._by_shard.setdefault(key[0], set()).add(key)

    def _trim(self) -> None:
        while len(self._entries) > self.max_entries:
            key, _ = self._entries.popitem(last=False)
            self._by_shard[key[0]].remove(key)

    async def run(self) -> None:
        """Look up what is wanted until cancelled."""
        while not is_cancelled():
            await self._wake.wait()
            self._wake.clear()
            while self._wanted and not is_cancelled():
                keys = list(self._wanted)[:_MAX_LOOKUPS]
                try:
                    await self._look_up(keys)
                except Exception as error:  # noqa: BLE001 - logged whole
                    _log.exception("workflow ids could not be looked up")
                    self._answer(keys, StorageUnavailableError("postgres", repr(error)), {})

    async def _look_up(self, keys: list[WorkflowKey]) -> None:
        error: AetherisError | None = None
        found: dict[WorkflowKey, NewestRun] = {}
        self._forgotten.clear()
        try:
            found = await self._load(keys)
        except RequestError as raised:
            if len(keys) > 1:
                # One of them is refused; the others are good.
                middle = len(keys) // 2
                await self._look_up(keys[:middle])
                await self._look_up(keys[middle:])
                return
            error = raised
        except AetherisError as raised:
            error = raised
        self._answer(keys, error, found)

    def _answer(
        self,
        keys: list[WorkflowKey],
        error: AetherisError | None,
        found: dict[WorkflowKey, NewestRun],
    ) -> None:
        for key in keys:
            waiter = self._wanted.pop(key, None)
            if waiter is None:
                # Answered before its look-up met a fault half-way.
                continue
            if error is not None:
                waiter.set_exception(error)
                # Every waiter may have been cancelled; the error is then nobody's.
                waiter.exception()
                continue
            # A start may have come in meanwhile, through a look-up before this one.
            if key not in self._entries and key[0] not in self._forgotten:
                self._enter(key, found.get(key))
            waiter.set_result(None)
        self._trim()
