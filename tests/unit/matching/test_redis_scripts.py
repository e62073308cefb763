import traceback

import pytest

from aetheris_server.config import ConfigError, RedisSettings
from aetheris_server.matching.redis_scripts import Scripts


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun#ter2@host:6379/0",
        "redis://user:hun/ter2@host:6379/0",
        "redis://:hunter2@host:port/0",
        "redis://:hunter2@[::1/0",
        "redis://:hunter2@host/0?socket_timeout=hunter2",
        "redis://:hunter2@host/0?hunter2=1",
    ],
)
def test_bad_url_is_a_config_error_that_shows_nothing_of_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url: expected a Redis URL") as raised:
        Scripts(RedisSettings(url=url))
    assert "hun" not in "".join(traceback.format_exception(raised.value, limit=0))


async def test_good_url_is_taken() -> None:
    await Scripts(RedisSettings(url="rediss://user:hun%23ter2@[::1]:6379/3?protocol=3")).close()
