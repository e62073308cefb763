"""How an activity is run, and its way from there to the run's machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypedDict, Unpack

from aetheris_client.options import check_names
from aetheris_client.retry import RetryPolicy
from aetheris_client.signatures import signature_of
from aetheris_worker.runtime.definitions import ActivityDefinition
from aetheris_worker.runtime.machines.activity import (
    Activities,
    ActivityCancellationType,
    ActivityHandle,
    ActivityOptions,
)
from aetheris_worker.workflow.current_run import current_run


@dataclass(frozen=True, slots=True)
class ActivityCall:
    """What code asks for: an activity, by its function or its name, and what it is called with."""

    name: str
    arguments: Sequence[Any]
    argument_types: Sequence[object]
    result_type: object

    @staticmethod
    def read(
        activity: str | Callable[..., object],
        arguments: tuple[Any, ...],
        args: Sequence[Any] | None,
        result_type: object,
    ) -> "ActivityCall":
        """From what a function of `aetheris_worker.workflow` was given.

        Raises:
            TypeError: Both forms of the arguments are there, or the function is no activity.
        """
        if args is not None:
            if arguments:
                raise TypeError("arguments: expected only one of *arguments and args")
            arguments = tuple(args)
        if isinstance(activity, str):
            return ActivityCall(activity, arguments, (), result_type)
        signature = signature_of(activity)
        return ActivityCall(
            ActivityDefinition.of(activity).name,
            arguments,
            signature.types_of(len(arguments)),
            signature.result_type if result_type is None else result_type,
        )


class StartActivityOptions(TypedDict, total=False):
    """How an activity is run.

    activity_id: Unique among the run's open activities; a number where absent.
    task_queue: Where its workers poll; the run's own queue where absent.
    schedule_to_close_timeout: Limit on all attempts together.
    schedule_to_start_timeout: Limit on the wait for a worker.
    start_to_close_timeout: Limit on one attempt.
    heartbeat_timeout: Limit on the worker's silence.
    retry_policy: How failures are tried again; the server's default where absent.
    cancellation_type: What becomes of it when the code cancels it; TRY_CANCEL where absent.
    capabilities: What its worker must be able to do.
    at_most_once: Never run an attempt twice. An attempt that a worker may have had, and that is
        lost, ends with a TimeoutError whose outcome is unknown; unless retry_policy says otherwise,
        there is no second one.
    """

    activity_id: str | None
    task_queue: str | None
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    cancellation_type: ActivityCancellationType
    capabilities: Sequence[str]
    at_most_once: bool


def schedule_activity(
    activity: str | Callable[..., object],
    arguments: tuple[Any, ...],
    *,
    args: Sequence[Any] | None = None,
    result_type: object = None,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[Any]:
    """What the overloads of `start_activity` and its kind come to; see there."""
    run = current_run("start_activity")
    if options.keys() - _ACTIVITY_OPTIONS:
        check_names("activity", options, _ACTIVITY_OPTIONS, required=())
    call = ActivityCall.read(activity, arguments, args, result_type)
    take = options.get
    at_most_once = take("at_most_once", False)
    retry_policy = take("retry_policy")
    if at_most_once and retry_policy is None:
        retry_policy = _ONE_ATTEMPT
    how = ActivityOptions(
        task_queue=take("task_queue") or run.task_queue,
        schedule_to_close_timeout=take("schedule_to_close_timeout"),
        schedule_to_start_timeout=take("schedule_to_start_timeout"),
        start_to_close_timeout=take("start_to_close_timeout"),
        heartbeat_timeout=take("heartbeat_timeout"),
        retry_policy=retry_policy,
        cancellation_type=take("cancellation_type", ActivityCancellationType.TRY_CANCEL),
        capabilities=take("capabilities", ()),
        at_most_once=at_most_once,
    )
    return run.parts.make(Activities).schedule(
        call.name,
        call.arguments,
        how,
        take("activity_id"),
        call.argument_types,
        call.result_type,
    )


_ACTIVITY_OPTIONS: Final = StartActivityOptions.__optional_keys__
_ONE_ATTEMPT: Final = RetryPolicy(maximum_attempts=1)
