"""From a namespace's name to its id, remembered for a short time.

A namespace never changes its id, so what is remembered can only be out of date by a namespace that
was deleted. That a name is unknown is never remembered: it may be made the next moment.
"""

import asyncio
from collections import OrderedDict
from weakref import WeakValueDictionary

from aetheris_server.clock import Clock
from aetheris_server.errors import NamespaceNotFoundError
from aetheris_server.frontend.catalog import Catalog
from aetheris_server.frontend.checks.fields import check_namespace_name

__all__ = ["NamespaceDirectory"]

_TTL = 10.0
_MAX_NAMES = 10_000


class NamespaceDirectory:
    """The namespaces by name."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        # By age: the oldest entry is the first.
        self._ids: OrderedDict[str, tuple[str, float]] = OrderedDict()
        # One load at a time for each name, however many calls wait for it.
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
            self._ids.pop(name, None)
            raise NamespaceNotFoundError(name)
        self._ids[name] = (namespace.namespace_id, self._clock.monotonic() + _TTL)
        self._ids.move_to_end(name)
        if len(self._ids) > _MAX_NAMES:
            self._ids.popitem(last=False)
        return namespace.namespace_id
