"""Values to payloads and back.

A data converter asks its payload converters in order; the first that takes a value encodes it, and
the payload's "encoding" names the one that decodes it. The default ones: binary/null, binary/plain,
json/protobuf, json/plain. An optional codec (codec.py) sees the payloads after that.

The plain methods are pure and never wait, so workflow code may use them; `encode` and `decode` also
pass the codec.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Protocol, cast

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message

from aetheris.api.v1.common_pb2 import Payload, Payloads
from aetheris_client.codec import DEFAULT_CODEC_TIMEOUT, BoundedCodec, PayloadCodec
from aetheris_client.errors import PayloadConversionError, PayloadDecodeError, PayloadEncodeError
from aetheris_client.typed_json.decoding import decode, parse
from aetheris_client.typed_json.encoding import encode
from aetheris_client.typed_json.kinds import type_name
from aetheris_client.typed_json.mismatch import MismatchError
from aetheris_client.typed_json.round_trip import check_same, is_trivial

ENCODING: Final = "encoding"
MESSAGE_TYPE: Final = "messageType"


class PayloadConverter(Protocol):
    """One encoding."""

    @property
    def encoding(self) -> bytes:
        """Its name in the metadata of payloads."""
        ...

    def to_payload(self, value: object) -> Payload | None:
        """The value encoded, or None if this encoding is not for it."""
        ...

    def from_payload(self, payload: Payload, hint: object) -> object:
        """The value in a payload of this encoding, as the hint asks (None: as it comes)."""
        ...


class NullConverter:
    """None."""

    encoding: bytes = b"binary/null"

    def to_payload(self, value: object) -> Payload | None:
        return Payload(metadata={ENCODING: self.encoding}) if value is None else None

    def from_payload(self, payload: Payload, hint: object) -> object:
        return decode(None, hint)


class BytesConverter:
    """Bytes, as they are."""

    encoding: bytes = b"binary/plain"

    def to_payload(self, value: object) -> Payload | None:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return Payload(metadata={ENCODING: self.encoding}, data=bytes(cast(bytes, value)))
        return None

    def from_payload(self, payload: Payload, hint: object) -> object:
        return decode(payload.data, hint)


class ProtobufConverter:
    """Protobuf messages, as their JSON; the metadata names the message, so that a hint is not
    needed.
    """

    encoding: bytes = b"json/protobuf"

    def to_payload(self, value: object) -> Payload | None:
        if not isinstance(value, Message):
            return None
        return Payload(
            metadata={ENCODING: self.encoding, MESSAGE_TYPE: value.DESCRIPTOR.full_name.encode()},
            data=json_format.MessageToJson(value, indent=None).encode(),
        )

    def from_payload(self, payload: Payload, hint: object) -> object:
        name = payload.metadata[MESSAGE_TYPE].decode(errors="replace")
        if isinstance(hint, type) and issubclass(hint, Message):
            message = hint()
        else:
            message = _message_class(name)()
        try:
            json_format.Parse(payload.data, message, ignore_unknown_fields=True)
        except (json_format.ParseError, DecodeError, ValueError) as error:
            # The last is of data that is not UTF-8.
            raise PayloadDecodeError(name, "$", str(error)) from error
        return message


class JsonConverter:
    """Everything else, as JSON: see typed_json."""

    encoding: bytes = b"json/plain"

    def to_payload(self, value: object) -> Payload | None:
        payload = Payload(data=encode(value))
        # A dictionary for the constructor takes three times as long.
        payload.metadata[ENCODING] = self.encoding
        return payload

    def from_payload(self, payload: Payload, hint: object) -> object:
        try:
            value = parse(payload.data)
        except (ValueError, RecursionError) as error:
            raise PayloadDecodeError(type_name(hint), "$", f"not JSON: {error}") from error
        return value if hint is None else decode(value, hint)


DEFAULT_CONVERTERS: Final[tuple[PayloadConverter, ...]] = (
    NullConverter(),
    BytesConverter(),
    ProtobufConverter(),
    JsonConverter(),
)


class DataConverter:
    """Payload converters in order of preference, and a codec.

    `codec_timeout` is how long the codec may take over one message, in clients and workers; then
    the call or the task fails with a CodecError.
    """

    def __init__(
        self,
        converters: Sequence[PayloadConverter] = DEFAULT_CONVERTERS,
        codec: PayloadCodec | None = None,
        codec_timeout: timedelta = DEFAULT_CODEC_TIMEOUT,
    ) -> None:
        self.codec = None if codec is None else BoundedCodec(codec, codec_timeout)
        self._converters = tuple(converters)
        self._by_encoding: Mapping[bytes, PayloadConverter] = {
            converter.encoding: converter for converter in converters
        }

    @staticmethod
    def default() -> "DataConverter":
        """The shared converter of all the encodings above, without a codec."""
        return _default()

    def to_payload(self, value: object, hint: object = None) -> Payload:
        """One value encoded. A Payload stands for itself.

        Args:
            value: What to encode.
            hint: What its receiver decodes it as; the value's own class where None.

        Raises:
            PayloadEncodeError: No converter takes it; some part of it has no encoding; or it would
                not come back as it is (typed_json/round_trip.py).
        """
        if isinstance(value, Payload):
            return value
        for converter in self._converters:
            payload = converter.to_payload(value)
            if payload is not None:
                if not is_trivial(value, hint):
                    self._check(value, payload, type(value) if hint is None else hint)
                return payload
        raise PayloadEncodeError(type_name(type(value)), "$", "no payload converter takes it")

    def from_payload(self, payload: Payload, hint: object = None) -> Any:
        """One value decoded, as the hint asks; None asks for nothing, Payload for the
        payload itself.

        Raises:
            PayloadDecodeError: The encoding is unknown, or the payload is not what the hint says.
        """
        if hint is Payload:
            return payload
        encoding = payload.metadata[ENCODING]
        converter = self._by_encoding.get(encoding)
        if converter is None:
            name = encoding.decode(errors="replace")
            raise PayloadDecodeError(type_name(hint), "$", f"unknown encoding {name!r}")
        return converter.from_payload(payload, hint)

    def from_payload_or_itself(self, payload: Payload, hint: object = None) -> Any:
        """One value decoded, or the payload where it does not decode: for who only shows it."""
        try:
            return self.from_payload(payload, hint)
        except PayloadDecodeError:
            return payload

    def to_payloads(
        self, values: Sequence[object], types: Sequence[object] = ()
    ) -> Payloads | None:
        """Values encoded in order, the nth for the nth hint; None for no values. The path in an
        error begins with the value's number.
        """
        if not values:
            return None
        hints = itertools.chain(types, itertools.repeat(None))
        payloads = Payloads()
        try:
            for value, hint in zip(values, hints, strict=False):
                payloads.payloads.append(self.to_payload(value, hint))
        except PayloadEncodeError as error:
            path = _path_in(len(payloads.payloads), error)
            raise PayloadEncodeError(error.type_name, path, error.reason) from error.__cause__
        return payloads

    def from_payloads(
        self, payloads: Payloads | None, types: Sequence[object] | None = None
    ) -> list[Any]:
        """Values decoded in order, the nth as the nth hint asks; values beyond the hints as they
        come. The path in an error begins with the value's number.

        Fewer values than hints give fewer results: defaults are the caller's affair.
        """
        if payloads is None:
            return []
        hints = itertools.chain(types or (), itertools.repeat(None))
        values: list[Any] = []
        try:
            for payload, hint in zip(payloads.payloads, hints, strict=False):
                values.append(self.from_payload(payload, hint))
        except PayloadDecodeError as error:
            path = _path_in(len(values), error)
            raise PayloadDecodeError(error.type_name, path, error.reason) from error.__cause__
        return values

    async def encode(
        self, values: Sequence[object], types: Sequence[object] = ()
    ) -> Payloads | None:
        """`to_payloads`, then the codec."""
        payloads = self.to_payloads(values, types)
        if payloads is None or self.codec is None:
            return payloads
        return Payloads(payloads=await self.codec.encode(payloads.payloads))

    async def decode(
        self, payloads: Payloads | None, types: Sequence[object] | None = None
    ) -> list[Any]:
        """The codec, then `from_payloads`."""
        if payloads is not None and self.codec is not None:
            payloads = Payloads(payloads=await self.codec.decode(payloads.payloads))
        return self.from_payloads(payloads, types)

    def _check(self, value: object, payload: Payload, hint: object) -> None:
        try:
            back = self.from_payload(payload, hint)
            check_same(hint, value, back)
        except PayloadDecodeError as error:
            # It says the same: what this side would write, the other could not read.
            cause = error.__cause__
            raise PayloadEncodeError(error.type_name, error.path, error.reason) from cause
        except MismatchError as error:
            name = type_name(error.wanted)
            raise PayloadEncodeError(name, error.full_path(), error.reason) from error.__cause__
        except RecursionError as error:
            raise PayloadEncodeError(type_name(hint), "$", "nested too deep") from error


def _path_in(index: int, error: PayloadConversionError) -> str:
    return f"[{index}]{error.path.removeprefix('$')}"


@functools.cache
def _default() -> DataConverter:
    return DataConverter()


def _message_class(name: str) -> type[Message]:
    # Its stubs leave the pool untyped.
    pool = cast(Any, descriptor_pool).Default()
    try:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    except KeyError as error:
        raise PayloadDecodeError(name, "$", "no such message is imported here") from error
