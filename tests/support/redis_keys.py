"""The keys of one test's queues in Redis, to look at and to harm."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import redis

from aetheris_server.config import RedisSettings


class QueueKeys:
    """The keys that queues have below the prefix of a test."""

    def __init__(self, client: Any, key_prefix: str) -> None:
        self.client = client
        self._pattern = f"{{{key_prefix}:*"

    def names(self, kind: str = "") -> list[str]:
        """Those there are now, in order; `kind` is `subs`, `sub:` or `leases:`."""
        found = cast("list[str]", self.client.keys(self._pattern))
        return sorted(key for key in found if f"}}:{kind}" in key)

    def delete(self, *names: str) -> None:
        if names:
            self.client.delete(*names)


@contextmanager
def queue_keys(settings: RedisSettings) -> Generator[QueueKeys]:
    """The keys of queues, none at first."""
    with redis.Redis.from_url(settings.url, decode_responses=True, encoding="latin-1") as client:
        keys = QueueKeys(client, settings.key_prefix)
        keys.delete(*keys.names())
        yield keys
