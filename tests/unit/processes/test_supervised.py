"""A process that is one of several, and its supervisor."""

import asyncio
import socket

from aetheris_server.config import Settings
from aetheris_server.processes.channel import Begin, Channel
from aetheris_server.supervised import SupervisedHost

# The limit of the shutdown, at which it would end the process of the tests.
_LONG = 1e6


async def test_process_that_does_not_understand_its_supervisor_drains() -> None:
    one, two = socket.socketpair()
    with one:
        channel = await Channel.open(two)
        begin = Begin(number=1, settings="", shard_count=1, end_timeout=_LONG)
        host = SupervisedHost(begin, Settings(), channel)
        one.sendall(b'["Dance",{}]\n')
        async with asyncio.timeout(10):
            await host.talk()
            await host.shutdown.wait()
        channel.close()
