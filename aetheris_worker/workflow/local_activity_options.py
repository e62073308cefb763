"""How a local activity is run, and its way from there to the run's machines."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final, TypedDict, Unpack

from aetheris_client.options import check_names
from aetheris_client.retry import RetryPolicy
from aetheris_worker.runtime.machines.activity import ActivityCancellationType, ActivityHandle
from aetheris_worker.runtime.machines.local_activity import LocalActivities, LocalActivityOptions
from aetheris_worker.workflow.activity_options import ActivityCall
from aetheris_worker.workflow.current_run import current_run

DEFAULT_LOCAL_RETRY_THRESHOLD: Final = timedelta(minutes=1)


class StartLocalActivityOptions(TypedDict, total=False):
    """How a local activity is run. It may be run more than once: no option makes that otherwise.

    activity_id: For people; a number where absent.
    schedule_to_close_timeout: Limit on all attempts together.
    schedule_to_start_timeout: Limit on the wait for a place in the worker.
    start_to_close_timeout: Limit on one attempt.
    retry_policy: How failures are tried again; as those of other activities where absent.
    local_retry_threshold: A wait up to this is waited in the worker, a longer one with a durable
        timer; a minute where absent.
    cancellation_type: What becomes of it when the code cancels it; TRY_CANCEL where absent.
    """

    activity_id: str | None
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    local_retry_threshold: timedelta | None
    cancellation_type: ActivityCancellationType


def schedule_local_activity(
    activity: str | Callable[..., object],
    arguments: tuple[Any, ...],
    *,
    args: Sequence[Any] | None = None,
    result_type: object = None,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[Any]:
    """What the overloads of `start_local_activity` and its kind come to; see there."""
    run = current_run("start_local_activity")
    if options.keys() - _OPTIONS:
        check_names("local activity", options, _OPTIONS, required=())
    call = ActivityCall.read(activity, arguments, args, result_type)
    take = options.get
    how = LocalActivityOptions(
        schedule_to_close_timeout=take("schedule_to_close_timeout"),
        schedule_to_start_timeout=take("schedule_to_start_timeout"),
        start_to_close_timeout=take("start_to_close_timeout"),
        retry_policy=take("retry_policy"),
        local_retry_threshold=take("local_retry_threshold") or DEFAULT_LOCAL_RETRY_THRESHOLD,
        cancellation_type=take("cancellation_type", ActivityCancellationType.TRY_CANCEL),
    )
    return run.parts.make(LocalActivities).start(
        call.name,
        call.arguments,
        how,
        take("activity_id"),
        call.argument_types,
        call.result_type,
    )


_OPTIONS: Final = StartLocalActivityOptions.__optional_keys__
