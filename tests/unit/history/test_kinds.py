"""Kinds of aggregates, and how they are named."""

import pytest

from aetheris_server.errors import UnknownRecordError
from aetheris_server.history.aggregates.key import AggregateKey, id_of_name
from aetheris_server.history.aggregates.kinds import Kinds
from aetheris_server.history.kinds import KINDS
from aetheris_server.history.runs.kind import RUN
from aetheris_server.history.state.run import RunKey
from tests.support.counter import COUNTER, counter_key

_NAMESPACE_ID = "11111111-1111-4111-8111-111111111111"


def test_two_kinds_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two kinds are named run"):
        Kinds((RUN, COUNTER, RUN))


def test_kind_that_is_not_known_is_refused_by_its_name() -> None:
    with pytest.raises(UnknownRecordError, match="the kind 'counter' is not known"):
        KINDS.of(counter_key(_NAMESPACE_ID, "apples"))


def test_key_has_the_form_of_its_kind() -> None:
    kinds = Kinds((RUN, COUNTER))
    run = kinds.key("run", _NAMESPACE_ID, "w", "r")
    assert run == RunKey(_NAMESPACE_ID, "w", "r")
    counter = kinds.key("counter", _NAMESPACE_ID, "apples", "id")
    assert counter == AggregateKey(_NAMESPACE_ID, "apples", "id", "counter")
    assert kinds.key("unheard of", _NAMESPACE_ID, "x", "id").kind == "unheard of"


def test_only_kinds_without_a_table_of_their_own_share_one() -> None:
    kinds = Kinds((RUN, COUNTER))
    names = ("run", "counter", "unheard of")
    keys = [kinds.key(name, _NAMESPACE_ID, "x", "id") for name in names]
    assert [kinds.has_own_rows(key) for key in keys] == [True, False, False]


def test_id_that_follows_from_a_name_never_changes() -> None:
    assert id_of_name("counter", _NAMESPACE_ID, "apples") == "f9937ea4-cf40-5a87-b99a-9b3a79a863fb"
    assert id_of_name("counter", _NAMESPACE_ID, "pears") != id_of_name(
        "counters", _NAMESPACE_ID, "pears"
    )
