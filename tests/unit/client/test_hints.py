"""Hints that do not resolve, as an import for type checkers only leaves them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypedDict, TypeVar

import pytest

from aetheris_client.converter import DataConverter
from aetheris_client.definition import types_of_call
from aetheris_client.hints import hints_of
from aetheris_client.signatures import signature_of
from aetheris_worker import Worker, activity, workflow

if TYPE_CHECKING:
    from tests.unit.client.test_converter import Order

T = TypeVar("T")
CONVERTER = DataConverter.default()


@dataclass
class Price:
    amount: int


@dataclass
class Old:
    price: Price


@dataclass
class Line(Old, Generic[T]):
    order: Order
    second: Price
    item: T


class Row(TypedDict):
    order: Order
    price: Price


class Pair(NamedTuple):
    order: Order
    price: Price


@pytest.fixture(autouse=True)
def _forget_hints() -> None:
    hints_of.cache_clear()


async def _with_parameter(first: Price, order: Order, last: Price) -> Price:
    return first


async def _with_result(first: Price) -> list[Order]:
    return []


def test_hint_that_does_not_resolve_leaves_only_its_parameter_untyped() -> None:
    signature = signature_of(_with_parameter)
    assert signature.argument_types == (Price, None, Price)
    assert signature.result_type is Price


def test_result_that_does_not_resolve_leaves_the_parameters_typed() -> None:
    assert types_of_call(_with_result, 1) == ((Price,), None)


@pytest.mark.parametrize("kind", [Line[Price], Row, Pair])
def test_field_that_does_not_resolve_leaves_the_other_fields_typed(kind: Any) -> None:
    price = {"amount": 1}
    values: dict[str, Any] = {"order": {"a": 1}, "price": price}
    if kind not in (Row, Pair):
        values |= {"second": price, "item": price}
    data = list(values.values()) if kind is Pair else values
    read = CONVERTER.from_payload(CONVERTER.to_payload(data), kind)
    found = read if kind is Row else {name: getattr(read, name) for name in values}
    prices = {name: Price(1) for name in values if name != "order"}
    assert found == {"order": {"a": 1}, **prices}


def test_hint_that_does_not_resolve_is_warned_of_once_with_its_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(3):
        hints_of(_with_parameter)
    [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
    for part in ("_with_parameter", "'order'", "'Order'", "not defined"):
        assert part in record.getMessage()


@activity.defn
async def _count(order: Order, price: Price) -> int:
    return 1


@workflow.defn
class Ordered:
    @workflow.run
    async def run(self, order: Order) -> Price: ...

    @workflow.signal
    def approve(self, by: Order) -> None: ...

    @workflow.query
    def progress(self, of: Order) -> int: ...


def test_worker_warns_of_every_hint_that_does_not_resolve_when_it_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Worker("localhost:1", task_queue="queue", workflows=[Ordered], activities=[_count])
    text = caplog.text
    for name in ("Ordered.run", "Ordered.approve", "Ordered.progress", "_count"):
        assert name in text
