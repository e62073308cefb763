"""Going on in a new run."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final, NoReturn, TypedDict, Unpack

from aetheris.api.v1.command_pb2 import ContinueAsNewWorkflowExecutionCommandAttributes
from aetheris.api.v1.common_pb2 import SearchAttributes
from aetheris_client.converter import DataConverter
from aetheris_client.definition import NameReference, run_method, types_of_call, workflow_name
from aetheris_client.options import check_arguments, check_names, check_options
from aetheris_client.retry import RetryPolicy, check_retry_policy
from aetheris_client.search_attributes import to_search_attributes
from aetheris_worker.durations import check_timeout
from aetheris_worker.runtime.call_site import find_call_site
from aetheris_worker.runtime.errors import ContinueAsNewError
from aetheris_worker.runtime.machines.properties import to_memo_payload
from aetheris_worker.workflow.current_run import current_run

_Attributes = ContinueAsNewWorkflowExecutionCommandAttributes


class ContinueAsNewOptions(TypedDict, total=False):
    """How the new run differs from this one; what is absent stays as it is.

    workflow: Another workflow: its class, its run method or its name.
    task_queue: Where its workflow tasks go.
    run_timeout, task_timeout: Limits on one run and on one workflow task.
    retry_policy: How it is tried again.
    start_delay: How long its code waits before it first runs. One that goes on within a second of
        its start waits for the rest of that second in any case.
    memo, search_attributes: In place of those of this run.
    """

    workflow: NameReference | None
    task_queue: str | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    start_delay: timedelta | None
    memo: Mapping[str, object] | None
    search_attributes: Mapping[str, object] | None


def continue_as_new(*arguments: object, **options: Unpack[ContinueAsNewOptions]) -> NoReturn:
    """Close this run, and go on in a new one with these arguments, of the same workflow id.

    Raises what is no Exception: let it pass. Signals that come before the run has closed are shown
    to its code first; those of which there is no handler are not carried over.

    Args:
        arguments: Of the run method.
        options: See ContinueAsNewOptions.

    Raises:
        ContinueAsNewError: Always, where the options are good.
        TypeError, ValueError: An argument or an option is not.
        PayloadEncodeError: An argument has no encoding.
    """
    run = current_run("continue_as_new")
    run.loop.check_writable("continuing as new")
    call = "continue_as_new"
    check_names(call, options, _OPTIONS, required=())
    workflow = options.get("workflow")
    attributes = _Attributes()
    if workflow is not None:
        attributes.workflow_type.name = workflow_name(workflow)
    method = run.run_method if workflow is None else run_method(workflow)
    check_arguments(call, method, arguments)
    _check(call, options)
    types = types_of_call(method, len(arguments))[0]
    payloads = run.converter.to_payloads(arguments, types)
    if payloads is not None:
        attributes.input.CopyFrom(payloads)
    _write_settings(options, attributes)
    _write_notes(options, attributes, run.converter)
    raise ContinueAsNewError(attributes, find_call_site())


def _check(call: str, options: ContinueAsNewOptions) -> None:
    check_options(call, **{name: value for name, value in options.items() if name != "workflow"})
    check_retry_policy(call, options.get("retry_policy"))
    for name in ("run_timeout", "task_timeout", "start_delay"):
        check_timeout(name, options.get(name))


def _write_settings(options: ContinueAsNewOptions, attributes: _Attributes) -> None:
    task_queue, retry_policy = options.get("task_queue"), options.get("retry_policy")
    if task_queue:
        attributes.task_queue.name = task_queue
    if retry_policy is not None:
        attributes.retry_policy.CopyFrom(retry_policy.to_proto())
    for interval, duration in (
        (options.get("run_timeout"), attributes.workflow_run_timeout),
        (options.get("task_timeout"), attributes.workflow_task_timeout),
        (options.get("start_delay"), attributes.backoff_start_interval),
    ):
        if interval is not None:
            duration.FromTimedelta(interval)


def _write_notes(
    options: ContinueAsNewOptions, attributes: _Attributes, converter: DataConverter
) -> None:
    memo, search_attributes = options.get("memo"), options.get("search_attributes")
    if memo is not None:
        attributes.memo.SetInParent()
        for name, value in memo.items():
            attributes.memo.fields[name].CopyFrom(to_memo_payload(converter, name, value))
    if search_attributes is not None:
        attributes.search_attributes.CopyFrom(
            to_search_attributes(search_attributes) or SearchAttributes()
        )


_OPTIONS: Final = ContinueAsNewOptions.__optional_keys__
