"""The hook through which payloads pass on their way to the server and back: encryption,
compression, references to a store of one's own. The server never sees what a codec hides.

A codec works on whole payloads, after the data converter has made them and before it reads them.
Search attributes do not pass through it, since the server reads them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast

from google.protobuf.message import Message

from aetheris.api.v1.common_pb2 import Payload, Payloads, SearchAttributes


class PayloadCodec(Protocol):
    """Turns payloads into other payloads and back. Must not change its arguments."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """As many payloads as were given, or one that stands for them all."""
        ...

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """What `encode` was given; payloads that it never encoded come back as they are."""
        ...


async def encode_message(codec: PayloadCodec, message: Message) -> None:
    """Encode, in place, every payload inside a message, however deep."""
    for payloads in list(_payload_lists(message)):
        _replace(payloads, await codec.encode(_contents(payloads)))


async def decode_message(codec: PayloadCodec, message: Message) -> None:
    """Decode, in place, every payload inside a message, however deep."""
    for payloads in list(_payload_lists(message)):
        _replace(payloads, await codec.decode(_contents(payloads)))


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
    """Every Payloads, and every Payload that is not in one."""
    if isinstance(message, (Payloads, Payload)):
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
