"""The opaque tokens that clients and workers carry: a message, and a code that only this cluster's
hosts can make.

    key id (1 byte) | HMAC (16 bytes) | serialized message

What is opened is what a host of this cluster has sealed, for the same purpose and the same query.
It is checked by itself all the same; whether it fits the run's state is for whoever acts on it.
"""

import re
from collections.abc import Mapping
from hmac import compare_digest
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from aetheris.server.v1.token_pb2 import PageToken, TaskToken
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.rpc.keys import MAC_BYTES, ClusterSecrets, Mac, derive_key

__all__ = [
    "LISTING_HISTORY",
    "LISTING_NAMESPACES",
    "LISTING_TASK_HISTORY",
    "LISTING_WORKFLOWS",
    "Tokens",
]

LISTING_HISTORY = "history"
LISTING_NAMESPACES = "namespaces"
LISTING_TASK_HISTORY = "task_history"
LISTING_WORKFLOWS = "workflows"

T = TypeVar("T", bound=Message)

_MAC_END = 1 + MAC_BYTES
# Most come back soon, and are then opened more than once on the way to their run.
_KNOWN_TASKS = 4096
_MAX_SECONDS = 253_402_300_799
_MAX_NANOS = 999_999_999
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Tokens:
    """Seals and opens the tokens of one cluster."""

    def __init__(self, secrets: ClusterSecrets) -> None:
        self._task = _Seal(secrets, "task token")
        self._page = _Seal(secrets, "page token")
        self._known_tasks: dict[bytes, TaskToken] = {}

    def seal_task(self, token: TaskToken) -> bytes:
        """The bytes that a worker carries; the token must not be changed from here on."""
        data = self._task.seal(token.SerializeToString())
        self._note_task(data, token)
        return data

    def open_task(self, data: bytes, field: str = "task_token") -> TaskToken:
        """What `seal_task` was given; the same object for the same bytes, not to be changed.

        Raises:
            InvalidArgumentError: Not sealed by this cluster, or it names no task; names `field`.
        """
        token = self._known_tasks.get(data)
        if token is not None:
            return token
        token = _parse(TaskToken, self._task.open(data, field), field)
        if not (_names_a_task(token) and _is_time(token.started_time)):
            raise InvalidArgumentError(field, "the token names no task")
        self._note_task(data, token)
        return token

    def open_task_of(self, namespace_id: str, data: bytes) -> TaskToken:
        """As `open_task`, for a task of one namespace.

        Raises:
            InvalidArgumentError: Also where the task is of another namespace.
        """
        token = self.open_task(data)
        if token.namespace_id != namespace_id:
            raise InvalidArgumentError("task_token", "the task is of another namespace")
        return token

    def task_of(self, namespace_id: str, request: Any) -> TaskToken:
        """What a worker's answer is about: what its token says; without one, the activity that it
        names by its id, as a token that only this process has.

        Raises:
            InvalidArgumentError: As `open_task_of`.
        """
        if request.task_token or not _names_an_activity(request):
            return self.open_task_of(namespace_id, request.task_token)
        activity = request.activity
        return TaskToken(
            namespace_id=namespace_id,
            workflow_id=activity.workflow_id,
            run_id=activity.run_id,
            activity_id=activity.activity_id,
        )

    def _note_task(self, data: bytes, token: TaskToken) -> None:
        """Only of what this cluster has sealed: nobody else can fill the memory."""
        if len(self._known_tasks) >= _KNOWN_TASKS:
            del self._known_tasks[next(iter(self._known_tasks))]
        self._known_tasks[data] = token

    def seal_page(self, token: PageToken, *query: bytes) -> bytes:
        """The bytes that a client carries.

        Args:
            token: `listing` is set.
            query: What the listing was asked for, its namespace among it; the token opens with the
                same only.
        """
        return self._page.seal(token.SerializeToString(), query)

    def open_page(
        self, data: bytes, listings: frozenset[str], *query: bytes, field: str = "page_token"
    ) -> PageToken | None:
        """What `seal_page` was given for the same query; None for the first page.

        Raises:
            InvalidArgumentError: This cluster has not sealed it, or for another query, or it is of
                none of the listings; names `field`.
        """
        if not data:
            return None
        token = _parse(PageToken, self._page.open(data, field, query), field)
        if not _is_time(token.start_time):
            raise InvalidArgumentError(field, "the token names no time")
        if token.listing not in listings:
            expected = " or ".join(repr(listing) for listing in sorted(listings))
            raise InvalidArgumentError(
                field, f"the token is of {token.listing!r}, expected one of {expected}"
            )
        return token


class _Seal:
    """The keys of one purpose."""

    def __init__(self, secrets: ClusterSecrets, purpose: str) -> None:
        self._macs: Mapping[int, Mac] = {
            key_id: Mac(derive_key(secret, purpose)) for key_id, secret in secrets.items()
        }
        key_id = max(self._macs)
        self._mac = self._macs[key_id]
        self._key_id = key_id.to_bytes(1)

    def seal(self, body: bytes, bound_to: tuple[bytes, ...] = ()) -> bytes:
        return self._key_id + self._mac.of(_joined(body, bound_to)) + body

    def open(self, data: bytes, field: str, bound_to: tuple[bytes, ...] = ()) -> bytes:
        if not data:
            raise InvalidArgumentError(field, "expected a token, found none")
        mac, code, body = self._macs.get(data[0]), data[1:_MAC_END], data[_MAC_END:]
        if mac is None or not compare_digest(mac.of(_joined(body, bound_to)), code):
            raise _not_ours(field)
        return body


def _joined(body: bytes, bound_to: tuple[bytes, ...]) -> bytes:
    """All of it, in a form that says where each part ends."""
    if not bound_to:
        return body
    return b"".join(len(part).to_bytes(4) + part for part in bound_to) + body


def _parse(message: type[T], body: bytes, field: str) -> T:
    try:
        return message.FromString(body)
    except DecodeError:
        raise _not_ours(field) from None


def _names_a_task(token: TaskToken) -> bool:
    return bool(
        token.namespace_id
        and token.workflow_id
        and _UUID.fullmatch(token.run_id)
        and token.scheduled_event_id >= 0
        # An attempt; only a query has none.
        and (token.attempt > 0 or (token.query_id and not token.attempt))
    )


def _names_an_activity(request: Message) -> bool:
    return "activity" in request.DESCRIPTOR.fields_by_name and request.HasField("activity")


def _is_time(time: Timestamp) -> bool:
    return 0 <= time.seconds <= _MAX_SECONDS and 0 <= time.nanos <= _MAX_NANOS


def _not_ours(field: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        field,
        "expected a token as this cluster gave it for the same use, found one that is damaged, "
        "forged, of another cluster or query, or of an earlier version",
    )
