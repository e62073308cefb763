"""A matching host on a real Redis."""

from collections.abc import AsyncIterator

import pytest

from aetheris_server.config import MatchingSettings, RedisSettings
from tests.support.matching_host import MatchingHost, running_host


@pytest.fixture
def matching_settings() -> MatchingSettings:
    return MatchingSettings(poll_timeout=10, linger=0.01, lease_timeout=10)


@pytest.fixture
def redis_settings(redis_url: str, redis_key_prefix: str) -> RedisSettings:
    return RedisSettings(url=redis_url, key_prefix=redis_key_prefix)


@pytest.fixture
async def host(
    matching_settings: MatchingSettings, redis_settings: RedisSettings
) -> AsyncIterator[MatchingHost]:
    async with running_host(matching_settings, redis_settings) as running:
        yield running
