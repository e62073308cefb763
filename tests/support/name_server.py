"""A name server that knows all names, and has them at whatever address a test wants."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

_HEADER_BYTES = 12
_TYPE_A = 1
_ANSWER = 0x8180
_POINTER_TO_NAME = b"\xc0\x0c"


class NameServer(asyncio.DatagramProtocol):
    """Answers each question for an IPv4 address with the same one, good for no time.

    Attributes:
        answer: That address.
        address: Where it is asked, `host:port`.
        asked_count: Times that it gave that address.
    """

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.address = ""
        self.asked_count = 0
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        end = data.index(b"\0", _HEADER_BYTES) + 5
        question = data[_HEADER_BYTES:end]
        kind = int.from_bytes(question[-4:-2], "big")
        answers = [self._record()] if kind == _TYPE_A else []
        counts = (1, len(answers), 0, 0)
        header = data[:2] + b"".join(n.to_bytes(2, "big") for n in (_ANSWER, *counts))
        self.asked_count += len(answers)
        self._transport.sendto(header + question + b"".join(answers), addr)

    def _record(self) -> bytes:
        """Name, type A, class IN, seconds to live, and the address behind its length."""
        fields = (_TYPE_A, 1, 0, 0, 4)
        numbers = b"".join(n.to_bytes(2, "big") for n in fields)
        return _POINTER_TO_NAME + numbers + socket.inet_aton(self.answer)


@asynccontextmanager
async def name_server(answer: str) -> AsyncGenerator[NameServer]:
    """A name server on this machine."""
    transport, names = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: NameServer(answer), local_addr=("127.0.0.1", 0)
    )
    try:
        yield names
    finally:
        transport.close()
