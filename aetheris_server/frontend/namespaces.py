"""From a namespace's name to its id and its limits, remembered for a short time.

A namespace never changes its id; its limits count once they are read anew, 10 s later at most. That
a name is unknown is never remembered: it may be made the next moment.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakValueDictionary

from aetheris_server.clock import Clock
from aetheris_server.config import LimitSettings, limits_of_namespace
from aetheris_server.errors import NamespaceNotFoundError
from aetheris_server.frontend.catalog import Catalog
from aetheris_server.frontend.checks.fields import check_namespace_name

__all__ = ["NamespaceDirectory"]

Q = TypeVar("Q")

_TTL = 10.0
_MAX_NAMES = 10_000


class NamespaceDirectory:
    """The namespaces by name."""

    def __init__(self, catalog: Catalog, clock: Clock, limits: LimitSettings) -> None:
        self._catalog = catalog
        self._clock = clock
        self._limits = limits
        # By age: the oldest entry is the first.
        self._ids: OrderedDict[str, tuple[str, float]] = OrderedDict()
        # Of those among them that have limits of their own.
        self._own_limits: dict[str, LimitSettings] = {}
        # One load at a time for each name, however many calls wait for it.
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def admit(
        self, name: str, request: Q, check: Callable[[Q, LimitSettings], object]
    ) -> str:
        """Check a request by the server's limits, and by its namespace's where that has its own;
        returns the namespace's id.

        Raises:
            InvalidArgumentError: Names the field that is at fault.
            NamespaceNotFoundError: There is none of this name.
            StorageUnavailableError: The store does not answer.
        """
        check(request, self._limits)
        namespace_id = await self.id_of(name)
        own = self._own_limits.get(name)
        if own is not None:
            check(request, own)
        return namespace_id

    def limits_of(self, name: str) -> LimitSettings:
        """The limits of a namespace whose id was just given."""
        return self._own_limits.get(name, self._limits)

    async def id_of(self, name: str) -> str:
        """The id of a namespace.

        Raises:
            InvalidArgumentError: No namespace can have this name.
            NamespaceNotFoundError: There is none of this name.
            StorageUnavailableError: The store does not answer.
        """
        found = self._remembered(name)
        if found is not None:
            return found
        check_namespace_name("namespace", name)
        lock = self._loading.setdefault(name, asyncio.Lock())
        async with lock:
            found = self._remembered(name)
            return found if found is not None else await self._load(name)

    def _remembered(self, name: str) -> str | None:
        entry = self._ids.get(name)
        if entry is None or self._clock.monotonic() >= entry[1]:
            return None
        return entry[0]

    async def _load(self, name: str) -> str:
        namespace = await self._catalog.load_namespace(name)
        if namespace is None:
            self._forget(name)
            raise NamespaceNotFoundError(name)
        self._ids[name] = (namespace.namespace_id, self._clock.monotonic() + _TTL)
        self._ids.move_to_end(name)
        limits = limits_of_namespace(self._limits, namespace.limits)
        if limits is self._limits:
            self._own_limits.pop(name, None)
        else:
            self._own_limits[name] = limits
        if len(self._ids) > _MAX_NAMES:
            self._forget(next(iter(self._ids)))
        return namespace.namespace_id

    def _forget(self, name: str) -> None:
        self._ids.pop(name, None)
        self._own_limits.pop(name, None)
