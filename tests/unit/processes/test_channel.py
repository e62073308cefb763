"""What supervisor and process say to each other comes as it was said."""

import asyncio
import socket
from collections.abc import AsyncGenerator

import pytest

from aetheris_server.config import LogSettings, PostgresSettings, RedisSettings, Settings
from aetheris_server.processes.channel import (
    AskMetrics,
    Begin,
    Channel,
    Drain,
    Failed,
    Message,
    Metrics,
    Serving,
    State,
)

Ends = tuple[Channel, Channel]


@pytest.fixture
async def ends() -> AsyncGenerator[Ends]:
    one, two = socket.socketpair()
    opened = await Channel.open(one), await Channel.open(two)
    yield opened
    for end in opened:
        end.close()


@pytest.mark.parametrize(
    "message",
    [
        Begin(1, "{}", 64, 22.0),
        Drain(),
        AskMetrics(),
        State(None),
        State("its shards"),
        Serving("127.0.0.1:1", "[::1]:2"),
        Metrics("# HELP a\n" * 100_000),
        Failed("grpc.port: is\nbad", 2),
    ],
)
async def test_message_comes_as_it_was_said(ends: Ends, message: Message) -> None:
    ends[0].say(message)
    async with asyncio.timeout(10):
        assert await ends[1].hear() == message


async def test_channel_ends_with_the_other_side(ends: Ends) -> None:
    ends[0].say(Failed("last words", 1))
    await ends[0].flush(1.0)
    ends[0].close()
    async with asyncio.timeout(10):
        assert await ends[1].hear() == Failed("last words", 1)
        assert await ends[1].hear() is None
        assert await ends[1].hear() is None
    ends[1].say(Drain())


@pytest.mark.parametrize("name", ["Dance", "State"])
async def test_message_that_is_not_known_is_an_error(name: str) -> None:
    one, two = socket.socketpair()
    with one:
        end = await Channel.open(two)
        one.sendall(b'["%s",{"steps":2}]\n' % name.encode())
        with pytest.raises(ValueError, match=name):
            await end.hear()
        end.close()


async def test_side_that_takes_nothing_is_noticed_and_waited_for_no_longer_than_said() -> None:
    one, two = socket.socketpair()
    with one:
        end = await Channel.open(two)
        assert not end.has_unsent
        end.say(Metrics("x" * 10_000_000))
        assert end.has_unsent
        await end.flush(0.05)
        assert end.has_unsent
        end.close()


def test_settings_come_as_they_were() -> None:
    settings = Settings(
        postgres=PostgresSettings(dsn="postgresql://u:secret@h/d"),
        redis=RedisSettings(url="redis://:secret@h"),
        log=LogSettings(level="error"),
        processes=4,
    )
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
