"""The opaque tokens that clients and workers carry: a serialized message behind its checksum.

The checksum tells damage from a message by chance; it is no signature, so what a token says is
checked like any other input by whoever acts on it.
"""

from binascii import crc32

from google.protobuf.message import DecodeError

from aetheris.server.v1.token_pb2 import PageToken, TaskToken
from aetheris_server.errors import InvalidArgumentError

__all__ = [
    "LISTING_HISTORY",
    "LISTING_NAMESPACES",
    "LISTING_TASK_HISTORY",
    "LISTING_WORKFLOWS",
    "decode_page_token",
    "decode_task_token",
    "encode_page_token",
    "encode_task_token",
]

LISTING_HISTORY = "history"
LISTING_NAMESPACES = "namespaces"
LISTING_TASK_HISTORY = "task_history"
LISTING_WORKFLOWS = "workflows"

_CHECKSUM_BYTES = 4


def encode_task_token(token: TaskToken) -> bytes:
    """The bytes that a worker carries."""
    return _seal(token.SerializeToString())


def decode_task_token(data: bytes, field: str = "task_token") -> TaskToken:
    """What `encode_task_token` was given.

    Raises:
        InvalidArgumentError: These are not such bytes; names `field`.
    """
    body = _open(data, field)
    try:
        token = TaskToken.FromString(body)
    except DecodeError:
        raise InvalidArgumentError(field, "the token is corrupt") from None
    if not (token.namespace_id and token.workflow_id and token.run_id):
        raise InvalidArgumentError(field, "the token names no run")
    return token


def encode_page_token(token: PageToken) -> bytes:
    """The bytes that a client carries; `token.listing` is set."""
    return _seal(token.SerializeToString())


def decode_page_token(data: bytes, *listings: str, field: str = "page_token") -> PageToken | None:
    """What `encode_page_token` was given; None for the first page.

    Raises:
        InvalidArgumentError: These are not such bytes, or of none of the listings; names `field`.
    """
    if not data:
        return None
    body = _open(data, field)
    try:
        token = PageToken.FromString(body)
    except DecodeError:
        raise InvalidArgumentError(field, "the token is corrupt") from None
    if token.listing not in listings:
        expected = " or ".join(repr(listing) for listing in listings)
        raise InvalidArgumentError(
            field, f"the token is of {token.listing!r}, expected one of {expected}"
        )
    return token


def _seal(body: bytes) -> bytes:
    return crc32(body).to_bytes(_CHECKSUM_BYTES) + body


def _open(data: bytes, field: str) -> bytes:
    if not data:
        raise InvalidArgumentError(field, "expected a token, found none")
    body = data[_CHECKSUM_BYTES:]
    if data[:_CHECKSUM_BYTES] != crc32(body).to_bytes(_CHECKSUM_BYTES):
        raise InvalidArgumentError(field, "the token is corrupt")
    return body
