# ruff: noqa: N802 - gRPC names the methods
"""WorkflowService: what clients call."""

from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from aetheris.api.v1 import workflow_service_pb2 as pb
from aetheris.server.v1.token_pb2 import PageToken
from aetheris_server.config import LimitSettings
from aetheris_server.errors import DrainingError, NotReadyError, UnavailableError
from aetheris_server.frontend.catalog import Catalog
from aetheris_server.frontend.checks import workflow as checks
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.frontend.pages import page_size
from aetheris_server.frontend.passing import PassingServicer, new_request_id, passed_on
from aetheris_server.frontend.runs import to_execution_info
from aetheris_server.frontend.waits import SLACK_SECONDS, bounded_wait, set_seconds, to_seconds
from aetheris_server.ids import shard_of
from aetheris_server.rpc import table
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import CallContext
from aetheris_server.rpc.peers import HistoryPeer
from aetheris_server.rpc.tokens import LISTING_WORKFLOWS, Tokens
from aetheris_server.storage.execution_rows import ExecutionRow
from aetheris_server.storage.executions import ExecutionFilter

__all__ = ["WorkflowServicer"]

R = TypeVar("R")

_DEFAULT_WAIT_SECONDS = 20.0


class WorkflowServicer(PassingServicer):
    """Checks, finds the namespace, asks history; lists come from the catalog."""

    SignalWorkflow = passed_on(table.SIGNAL_WORKFLOW, checks.check_signal_workflow)
    QueryWorkflow = passed_on(table.QUERY_WORKFLOW, checks.check_query_workflow)
    CancelWorkflow = passed_on(table.CANCEL_WORKFLOW, checks.check_cancel_workflow)
    TerminateWorkflow = passed_on(table.TERMINATE_WORKFLOW, checks.check_terminate_workflow)
    PauseWorkflow = passed_on(table.PAUSE_WORKFLOW, checks.check_pause_workflow)
    UnpauseWorkflow = passed_on(table.UNPAUSE_WORKFLOW, checks.check_pause_workflow)
    PauseActivity = passed_on(table.PAUSE_ACTIVITY, checks.check_pause_activity)
    UnpauseActivity = passed_on(table.UNPAUSE_ACTIVITY, checks.check_unpause_activity)
    ResetActivity = passed_on(table.RESET_ACTIVITY, checks.check_unpause_activity)
    UpdateActivityOptions = passed_on(
        table.UPDATE_ACTIVITY_OPTIONS, checks.check_update_activity_options
    )
    UpdateWorkflowOptions = passed_on(
        table.UPDATE_WORKFLOW_OPTIONS, checks.check_update_workflow_options
    )
    ResetWorkflow = passed_on(table.RESET_WORKFLOW, checks.check_reset_workflow)
    ForkWorkflow = passed_on(table.FORK_WORKFLOW, checks.check_fork_workflow)
    DescribeWorkflow = passed_on(table.DESCRIBE_WORKFLOW, checks.check_describe_workflow)

    def __init__(
        self,
        history: HistoryPeer,
        catalog: Catalog,
        namespaces: NamespaceDirectory,
        gate: DrainGate,
        limits: LimitSettings,
        shard_count: int,
        tokens: Tokens,
    ) -> None:
        super().__init__(history, namespaces, limits)
        self._catalog = catalog
        self._gate = gate
        self._shard_count = shard_count
        self._tokens = tokens

    async def StartWorkflow(
        self, request: pb.StartWorkflowRequest, context: CallContext
    ) -> pb.StartWorkflowResponse:
        namespace_id = await self.namespaces.admit(
            request.namespace, request, checks.check_start_workflow
        )
        request.request_id = request.request_id or new_request_id()
        response = await self.history.call(table.START_WORKFLOW, namespace_id, request)
        if to_seconds(request.result_wait_timeout) > 0:
            await self._add_result(namespace_id, request, response, context)
        return response

    async def SignalWithStartWorkflow(
        self, request: pb.SignalWithStartWorkflowRequest, context: CallContext
    ) -> pb.SignalWithStartWorkflowResponse:
        start = request.start
        namespace_id = await self.namespaces.admit(
            start.namespace, request, checks.check_signal_with_start_workflow
        )
        start.request_id = start.request_id or new_request_id()
        response = await self.history.call(table.SIGNAL_WITH_START_WORKFLOW, namespace_id, request)
        if to_seconds(start.result_wait_timeout) > 0:
            await self._add_result(namespace_id, start, response, context)
        return response

    async def GetWorkflowHistory(
        self, request: pb.GetWorkflowHistoryRequest, context: CallContext
    ) -> pb.GetWorkflowHistoryResponse:
        namespace_id = await self.namespaces.admit(
            request.namespace, request, checks.check_get_workflow_history
        )
        if not request.wait_new_event:
            return await self.history.call(table.GET_WORKFLOW_HISTORY, namespace_id, request)
        wait = bounded_wait(table.LONGEST_WAIT + SLACK_SECONDS, float("inf"), context)
        page = await self._gate.run(
            self.history.call(table.GET_WORKFLOW_HISTORY, namespace_id, request), wait
        )
        return page if page is not None else self._same_page_again(request)

    async def PollWorkflowResult(
        self, request: pb.PollWorkflowResultRequest, context: CallContext
    ) -> pb.PollWorkflowResultResponse:
        namespace_id = await self.namespaces.admit(
            request.namespace, request, checks.check_poll_workflow_result
        )
        asked = (
            to_seconds(request.wait_timeout)
            if request.HasField("wait_timeout")
            else _DEFAULT_WAIT_SECONDS
        )
        return await self._poll_result(namespace_id, request, asked, context)

    async def UpdateWorkflow(
        self, request: pb.UpdateWorkflowRequest, context: CallContext
    ) -> pb.UpdateWorkflowResponse:
        checks.check_update_workflow(request, self.limits)
        namespace_id = await self.namespaces.id_of(request.namespace)
        _name_update(request)
        wait = _bound_wait(request, context)
        return await self._waited(
            self.history.call(table.UPDATE_WORKFLOW, namespace_id, request), wait
        )

    async def PollWorkflowUpdate(
        self, request: pb.PollWorkflowUpdateRequest, context: CallContext
    ) -> pb.PollWorkflowUpdateResponse:
        checks.check_poll_workflow_update(request, self.limits)
        namespace_id = await self.namespaces.id_of(request.namespace)
        wait = _bound_wait(request, context)
        return await self._waited(
            self.history.call(table.POLL_WORKFLOW_UPDATE, namespace_id, request), wait
        )

    async def UpdateWithStartWorkflow(
        self, request: pb.UpdateWithStartWorkflowRequest, context: CallContext
    ) -> pb.UpdateWithStartWorkflowResponse:
        checks.check_update_with_start_workflow(request, self.limits)
        namespace_id = await self.namespaces.id_of(request.namespace)
        request.start.request_id = request.start.request_id or new_request_id()
        _name_update(request.update)
        wait = _bound_wait(request.update, context)
        return await self._waited(
            self.history.call(table.UPDATE_WITH_START_WORKFLOW, namespace_id, request), wait
        )

    async def _waited(self, call: Coroutine[Any, Any, R], wait: float) -> R:
        response = await self._gate.run(call, wait + SLACK_SECONDS)
        if response is not None:
            return response
        # An empty answer would say nothing of how far the update has come.
        if self._gate.is_draining:
            raise DrainingError
        raise UnavailableError("the run's host has not answered")

    async def ListWorkflows(
        self, request: pb.ListWorkflowsRequest, context: CallContext
    ) -> pb.ListWorkflowsResponse:
        namespace_id = await self.namespaces.admit(
            request.namespace, request, checks.check_list_workflows
        )
        token = checks.check_workflows_page(request, namespace_id, self._tokens)
        after = (_to_datetime(token.start_time), token.last_key) if token else None
        size = page_size(request.page_size, self.limits)
        # One more than asked for tells whether there is another page.
        rows = await self._catalog.list_executions(
            namespace_id, self._to_filter(namespace_id, request.filter), size + 1, after
        )
        return pb.ListWorkflowsResponse(
            executions=[to_execution_info(row) for row in rows[:size]],
            next_page_token=self._tokens.seal_page(
                _page_after(rows[size - 1]), *checks.workflows_query(request, namespace_id)
            )
            if len(rows) > size
            else b"",
        )

    async def _poll_result(
        self,
        namespace_id: str,
        request: pb.PollWorkflowResultRequest,
        asked: float,
        context: CallContext,
    ) -> pb.PollWorkflowResultResponse:
        wait = bounded_wait(asked, table.LONGEST_WAIT, context)
        set_seconds(request.wait_timeout, wait)
        response = await self._gate.run(
            self.history.call(table.POLL_WORKFLOW_RESULT, namespace_id, request),
            wait + SLACK_SECONDS,
        )
        if response is None:
            return pb.PollWorkflowResultResponse(run_id=request.workflow_execution.run_id)
        return response

    async def _add_result(
        self,
        namespace_id: str,
        request: pb.StartWorkflowRequest,
        response: pb.StartWorkflowResponse | pb.SignalWithStartWorkflowResponse,
        context: CallContext,
    ) -> None:
        poll = pb.PollWorkflowResultRequest(namespace=request.namespace)
        poll.workflow_execution.workflow_id = request.workflow_id
        poll.workflow_execution.run_id = response.run_id
        asked = to_seconds(request.result_wait_timeout)
        try:
            polled = await self._poll_result(namespace_id, poll, asked, context)
        except UnavailableError:
            # The run was started; the caller asks for its result again by itself.
            return
        if polled.HasField("result"):
            response.result.CopyFrom(polled.result)

    def _same_page_again(
        self, request: pb.GetWorkflowHistoryRequest
    ) -> pb.GetWorkflowHistoryResponse:
        if request.page_token:
            return pb.GetWorkflowHistoryResponse(next_page_token=request.page_token)
        # An answer without a token would say that the history is at its end.
        if self._gate.is_draining:
            raise DrainingError
        raise NotReadyError("the next event")

    def _to_filter(self, namespace_id: str, wanted: pb.ListWorkflowsFilter) -> ExecutionFilter:
        return ExecutionFilter(
            shard_id=shard_of(namespace_id, wanted.workflow_id, self._shard_count)
            if wanted.workflow_id
            else None,
            workflow_id=wanted.workflow_id or None,
            workflow_type=wanted.workflow_type or None,
            statuses=frozenset(wanted.statuses),
            earliest_start_time=_to_datetime(wanted.earliest_start_time)
            if wanted.HasField("earliest_start_time")
            else None,
            latest_start_time=_to_datetime(wanted.latest_start_time)
            if wanted.HasField("latest_start_time")
            else None,
        )


def _name_update(request: pb.UpdateWorkflowRequest) -> None:
    request.request.update_id = request.request.update_id or new_request_id()


def _bound_wait(
    request: pb.UpdateWorkflowRequest | pb.PollWorkflowUpdateRequest, context: CallContext
) -> float:
    """The seconds that history may wait, which the request tells it."""
    asked = (
        to_seconds(request.wait_timeout)
        if request.HasField("wait_timeout")
        else _DEFAULT_WAIT_SECONDS
    )
    wait = bounded_wait(asked, table.LONGEST_WAIT, context)
    set_seconds(request.wait_timeout, wait)
    return wait


def _to_datetime(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC)


def _page_after(row: ExecutionRow) -> PageToken:
    token = PageToken(listing=LISTING_WORKFLOWS, last_key=row.run_id)
    token.start_time.FromDatetime(row.start_time)
    return token
