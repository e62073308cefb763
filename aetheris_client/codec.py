"""The hook through which payloads pass on their way to the server and back: encryption,
compression, references to a store of one's own. The server never sees what a codec hides.

A codec works on whole payloads, after the data converter has made them and before it reads them.
Search attributes do not pass through it, since the server reads them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final, Protocol, TypeVar, cast

from google.protobuf.message import Message

from aetheris.api.v1.common_pb2 import Payload, Payloads, SearchAttributes
from aetheris_client.errors import CodecError

DEFAULT_CODEC_TIMEOUT: Final = timedelta(seconds=10)

Result = TypeVar("Result")


class PayloadCodec(Protocol):
    """Turns payloads into other payloads and back. Must not change its arguments."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """As many payloads as were given, or one that stands for them all."""
        ...

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """What `encode` was given; payloads that it never encoded come back as they are."""
        ...


class BoundedCodec:
    """A codec as the SDK calls it: in time, and with one kind of error.

    What a codec raises is its own: a TimeoutError of its key store says nothing of the server.
    """

    def __init__(self, codec: PayloadCodec, timeout: timedelta = DEFAULT_CODEC_TIMEOUT) -> None:
        self._codec = codec
        self._timeout = timeout.total_seconds()

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """What the codec makes of them; CodecError where it does not."""
        return await self._bounded("encode", lambda: self._codec.encode(payloads))

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """What the codec makes of them; CodecError where it does not."""
        return await self._bounded("decode", lambda: self._codec.decode(payloads))

    async def encode_message(self, message: Message) -> None:
        """Encode, in place, every payload inside a message, however deep.

        Raises:
            CodecError: The codec failed, or took too long over them together.
        """
        await self._bounded("encode", lambda: _replace_all(message, self._codec.encode))

    async def decode_message(self, message: Message) -> None:
        """Decode, in place, every payload inside a message, however deep.

        Raises:
            CodecError: The codec failed, or took too long over them together.
        """
        await self._bounded("decode", lambda: _replace_all(message, self._codec.decode))

    async def _bounded(self, action: str, begin: Callable[[], Awaitable[Result]]) -> Result:
        deadline = asyncio.timeout(self._timeout)
        try:
            async with deadline:
                return await begin()
        except Exception as error:
            if deadline.expired():
                reason = f"no answer within its {self._timeout:g} s"
            else:
                reason = f"{type(error).__name__}: {error}"
            raise CodecError(action, reason) from error


async def _replace_all(
    message: Message, change: Callable[[Sequence[Payload]], Awaitable[list[Payload]]]
) -> None:
    for payloads in list(_payload_lists(message)):
        _replace(payloads, await change(_contents(payloads)))


def _contents(found: Payloads | Payload) -> list[Payload]:
    return list(found.payloads) if isinstance(found, Payloads) else [found]


def _replace(found: Payloads | Payload, payloads: Sequence[Payload]) -> None:
    if isinstance(found, Payloads):
        # Copied first: the codec may have returned the very messages that are cleared here.
        replacement = Payloads(payloads=payloads)
        found.CopyFrom(replacement)
        return
    if len(payloads) != 1:
        raise ValueError(f"a codec made {len(payloads)} payloads of a single one, expected 1")
    found.CopyFrom(payloads[0])


def _payload_lists(message: Message) -> Iterator[Payloads | Payload]:
    """Every Payloads, and every Payload that is not in one and is not empty: that is no value, but
    takes one away.
    """
    if isinstance(message, (Payloads, Payload)):
        if message.ByteSize() or isinstance(message, Payloads):
            yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for child in _messages(cast(object, value)):
            if not isinstance(child, SearchAttributes):
                yield from _payload_lists(child)


def _messages(value: object) -> Iterator[Message]:
    """The messages in a field's value: one, the items of a list, or the values of a map."""
    if isinstance(value, Message):
        yield value
        return
    if isinstance(value, Mapping):
        items = cast(Mapping[object, object], value).values()
    else:
        items = cast(Sequence[object], value)
    for item in items:
        if not isinstance(item, Message):
            return
        yield item
