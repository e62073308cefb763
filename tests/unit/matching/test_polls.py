from aetheris.api.v1.worker_service_pb2 import ActivityCancellation
from aetheris_server.matching.polls import Mailboxes, Poll, PollerLog


def poll(identity: str, *capabilities: str) -> Poll:
    return Poll(frozenset(capabilities), "", 1, identity, identity, "")


def test_poller_log_lists_workers_the_latest_first() -> None:
    log = PollerLog()
    first, second = poll("first", "b", "a"), poll("second")
    log.begin(first, 1000.0)
    log.begin(second, 1001.0)
    log.end(first, 1002.5)
    one, two = log.infos()
    assert (one.identity, one.waiting_poll_count, two.waiting_poll_count) == ("first", 0, 1)
    assert list(one.capabilities) == ["a", "b"]
    assert one.last_access_time.ToMilliseconds() == 1_002_500


def test_poller_log_forgets_who_has_not_polled_for_five_minutes() -> None:
    log = PollerLog()
    gone, waits = poll("gone"), poll("waits")
    log.begin(gone, 0.0)
    log.end(gone, 0.0)
    log.begin(waits, 0.0)
    log.forget_old(300.0)
    assert [info.identity for info in log.infos()] == ["gone", "waits"]
    log.forget_old(300.1)
    assert [info.identity for info in log.infos()] == ["waits"]


def test_poller_log_with_too_many_workers_forgets_the_one_seen_longest_ago() -> None:
    log = PollerLog()
    for n in range(1_001):
        log.begin(poll(str(n)), float(n))
    assert "0" not in {info.identity for info in log.infos()}
    assert len(list(log.infos())) == 1_000


def test_mailbox_with_the_same_request_twice_keeps_it_once() -> None:
    boxes = Mailboxes()
    for _ in range(2):
        boxes.put("worker", ActivityCancellation(activity_id="a"), 0.0)
    assert [mail.activity_id for mail in boxes.take("worker", 60.0 - 0.1)] == ["a"]
    assert boxes.is_empty


def test_mailbox_after_a_minute_is_empty() -> None:
    boxes = Mailboxes()
    boxes.put("worker", ActivityCancellation(activity_id="a"), 0.0)
    boxes.put("other", ActivityCancellation(activity_id="b"), 1.0)
    assert boxes.take("worker", 60.0) == []
    boxes.forget_old(61.0)
    assert boxes.is_empty


def test_mailbox_with_too_much_mail_loses_the_oldest() -> None:
    boxes = Mailboxes()
    for n in range(1_001):
        boxes.put("worker", ActivityCancellation(scheduled_event_id=n), 0.0)
    kept = boxes.take("worker", 0.0)
    assert (len(kept), kept[0].scheduled_event_id) == (1_000, 1)


def test_mailboxes_that_are_too_many_lose_the_one_opened_first() -> None:
    boxes = Mailboxes()
    for n in range(1_001):
        boxes.put(str(n), ActivityCancellation(), 0.0)
    assert not boxes.has_mail("0")
    assert boxes.has_mail("1")
