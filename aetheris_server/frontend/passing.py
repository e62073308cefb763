"""Public methods that the frontend passes on as they are: one line each in their servicer.

The request is checked, its namespace looked up, and, where it is a write, named by a request id.
"""

import secrets
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from aetheris_server.config import LimitSettings
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.rpc.handlers import CallContext
from aetheris_server.rpc.peers import HistoryPeer
from aetheris_server.rpc.table import RunMethod

__all__ = ["PassingServicer", "new_request_id", "passed_on"]

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class PassingServicer:
    """A servicer with methods that are `passed_on`."""

    def __init__(
        self, history: HistoryPeer, namespaces: NamespaceDirectory, limits: LimitSettings
    ) -> None:
        self.history = history
        self.namespaces = namespaces
        self.limits = limits


def passed_on(
    method: RunMethod[Q, R], check: Callable[[Q, LimitSettings], None]
) -> Callable[[PassingServicer, Q, CallContext], Coroutine[Any, Any, R]]:
    """A servicer's method, by its row in the RPC table and its check."""
    is_write = "request_id" in method.request.DESCRIPTOR.fields_by_name

    async def pass_on(self: PassingServicer, request: Q, context: CallContext) -> R:
        del context
        fields = cast(Any, request)
        namespace_id = await self.namespaces.admit(fields.namespace, request, check)
        if is_write and not fields.request_id:
            fields.request_id = new_request_id()
        return await self.history.call(method, namespace_id, request)

    return pass_on


def new_request_id() -> str:
    """What names a write whose caller has not named it."""
    return secrets.token_hex(16)
