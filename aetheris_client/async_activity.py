"""Activities that are answered from elsewhere than their worker."""

from typing import Final

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.worker_service_pb2 import (
    ActivityReference,
    RecordActivityTaskHeartbeatRequest,
    RespondActivityTaskCancelledRequest,
    RespondActivityTaskCompletedRequest,
    RespondActivityTaskFailedRequest,
)
from aetheris_client.connection import Connection
from aetheris_client.errors import CancelledError
from aetheris_client.failure import to_failure
from aetheris_client.rpc_outbound import ClientConfig

_NO_RESULT: Final = object()


class AsyncActivityHandle:
    """An activity whose attempt ended with `activity.raise_complete_async()`; or any open one.

    By a task token it is one attempt, by its id the current one, whoever has that. All calls raise
    TaskNotFoundError where that is over (completed, timed out, its run closed), and
    WorkflowNotFoundError where there is no such run. A call that is repeated because a server died
    may say so of an answer that was taken.
    """

    def __init__(
        self,
        connection: Connection,
        config: ClientConfig,
        task_token: bytes,
        activity: ActivityReference | None,
    ) -> None:
        self._connection = connection
        self._config = config
        self._task_token = task_token
        self._activity = activity
        self._timeout = config.rpc_timeout.total_seconds()

    async def complete(self, result: object = _NO_RESULT) -> None:
        """End it with a result; without one, where it has none."""
        values = () if result is _NO_RESULT else (result,)
        request = RespondActivityTaskCompletedRequest(
            namespace=self._config.namespace,
            task_token=self._task_token,
            activity=self._activity,
            result=await self._encode(values),
            identity=self._config.identity,
        )
        await self._connection.call(
            lambda stubs: stubs.worker_service.RespondActivityTaskCompleted, request, self._timeout
        )

    async def fail(self, error: BaseException, *last_heartbeat_details: object) -> None:
        """Let the attempt fail with an error; whether there is another one is the server's to
        decide, by the activity's retry policy. It finds these details, or those of the last
        heartbeat.
        """
        request = RespondActivityTaskFailedRequest(
            namespace=self._config.namespace,
            task_token=self._task_token,
            activity=self._activity,
            failure=to_failure(error, self._config.converter, drops_details=True),
            last_heartbeat_details=await self._encode(last_heartbeat_details),
            identity=self._config.identity,
        )
        if self._config.converter.codec is not None:
            await self._config.converter.codec.encode_message(request.failure)
        await self._connection.call(
            lambda stubs: stubs.worker_service.RespondActivityTaskFailed, request, self._timeout
        )

    async def heartbeat(self, *details: object) -> None:
        """Say that it is alive; the next attempt finds the details.

        Raises:
            CancelledError: It should cancel: clean up, and `report_cancellation`.
        """
        request = RecordActivityTaskHeartbeatRequest(
            namespace=self._config.namespace,
            task_token=self._task_token,
            activity=self._activity,
            details=await self._encode(details),
            identity=self._config.identity,
        )
        response = await self._connection.call(
            lambda stubs: stubs.worker_service.RecordActivityTaskHeartbeat, request, self._timeout
        )
        if response.cancel_requested:
            raise CancelledError("the activity is asked to cancel")

    async def report_cancellation(self, *details: object) -> None:
        """It has cancelled, as it was asked to.

        Raises:
            InvalidArgumentError: Nobody asked it to.
        """
        request = RespondActivityTaskCancelledRequest(
            namespace=self._config.namespace,
            task_token=self._task_token,
            activity=self._activity,
            details=await self._encode(details),
            identity=self._config.identity,
        )
        await self._connection.call(
            lambda stubs: stubs.worker_service.RespondActivityTaskCancelled, request, self._timeout
        )

    async def _encode(self, values: tuple[object, ...]) -> Payloads | None:
        return await self._config.converter.encode(values) if values else None
