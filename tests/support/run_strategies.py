"""Commands at random, for a run whose ids are a to g."""

from hypothesis import strategies as st

from aetheris.api.v1 import workflow_pb2
from tests.support.runs import (
    application_failure,
    cancel_activity,
    cancel_timer,
    cancel_workflow,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    record_marker,
    schedule_activity,
    seconds,
    start_timer,
    upsert_memo,
    upsert_search_attributes,
)

_IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"])
_MAYBE = st.sampled_from([0.0, 0.0, 0.5, 2, 20])
_GOOD_ACTIVITIES = st.builds(
    lambda id_, to_close, to_start, all_, heartbeat, delivery, attempts: schedule_activity(
        id_,
        start_to_close_timeout=seconds(to_close),
        schedule_to_start_timeout=seconds(to_start),
        schedule_to_close_timeout=seconds(all_),
        heartbeat_timeout=seconds(heartbeat),
        delivery=delivery,
        request_eager_execution=True,
        retry_policy={"maximum_attempts": attempts},
    ),
    _IDS,
    st.sampled_from([0.5, 2, 20]),
    _MAYBE,
    st.sampled_from([0.0, 0.0, 3, 40]),
    _MAYBE,
    st.sampled_from(workflow_pb2.ActivityDelivery.values()),
    st.integers(0, 3),
)
_GOOD_TIMERS = st.builds(start_timer, _IDS, st.sampled_from([0.5, 2, 20]))
_GOOD_NOTES = st.sampled_from(
    [
        upsert_memo(a="1", b="2"),
        upsert_memo(a=""),
        upsert_search_attributes(a="1"),
        upsert_search_attributes(a="", b='"x"'),
    ]
)
GOOD_COMMANDS = st.lists(
    st.one_of(_GOOD_ACTIVITIES, _GOOD_TIMERS, st.just(record_marker()), _GOOD_NOTES), max_size=3
)
COMMANDS = st.lists(
    st.one_of(
        st.just(schedule_activity("", start_to_close_timeout=seconds(1))),
        st.just(start_timer("t", 0)),
        st.builds(cancel_timer, _IDS),
        st.builds(cancel_activity, st.integers(1, 30)),
        _GOOD_ACTIVITIES,
        st.just(upsert_memo()),
    ),
    max_size=3,
)
CLOSINGS = st.sampled_from(
    [
        complete_workflow(),
        fail_workflow(application_failure()),
        cancel_workflow(),
        fail_workflow(),
        continue_as_new(),
        continue_as_new(cron_schedule="not served"),
    ]
)
