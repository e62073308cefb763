"""A value comes back as it was, types included, or is refused where it is encoded."""

import dataclasses
import enum
import functools
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetheris.api.v1.common_pb2 import Payload, WorkflowExecution
from aetheris_client.converter import DataConverter
from aetheris_client.errors import PayloadEncodeError

CONVERTER = DataConverter.default()
T = TypeVar("T")
K = TypeVar("K")


class Text(enum.StrEnum):
    A = "a"
    ONE = "1"


class Number(enum.IntEnum):
    ONE = 1
    TWO = 2


class Mode(enum.Flag):
    READ = 1
    WRITE = 2
    RUN = 4


class Odd(enum.Enum):
    """Values that are not their own JSON."""

    PLACE = (1, "x")
    PRICE = Decimal("1.50")
    WAIT = timedelta(minutes=1)
    DAY = date(2026, 1, 2)
    NAMES = frozenset({"n"})
    RAW = b"\xff"
    TEXT = "text"


class Twins(enum.Enum):
    TEXT = "1.5"
    PRICE = Decimal("1.5")


class Word(str):
    __slots__ = ()


class Tagged(str):  # noqa: SLOT000 - what is lost without slots
    tag: str


UserId = NewType("UserId", str)


@dataclass(frozen=True, slots=True)
class Price:
    amount: Decimal
    unit: Literal["EUR", "USD", 3, True] = "EUR"


@dataclass(kw_only=True)
class Derived:
    """A field of its own making, and one that the code has changed since."""

    base: int
    double: int = field(init=False)
    seen: list[date] = field(init=False, default_factory=list[date])

    def __post_init__(self) -> None:
        self.double = 2 * self.base


@dataclass(frozen=True)
class Child(Price):
    more: int = 0


@dataclass
class Box(Generic[T]):
    content: T
    items: list[T] = field(default_factory=list[T])


@dataclass
class Pair(Box[T], Generic[K, T]):
    keys: dict[str, K] = field(default_factory=dict[str, K])


@dataclass
class DayBox(Pair[UUID, date]):
    pass


@dataclass
class Named(Generic[T]):
    label: T


@dataclass
class Swapped(Box[K], Named[T], Generic[T, K]):
    """Both bases name their type variable alike."""


class Row(TypedDict, Generic[T]):
    cell: T


class DayRow(Row[date]):
    more: int


@dataclass
class Tree:
    name: str
    children: list["Tree"] = field(default_factory=list["Tree"])
    parent: "Tree | None" = None


@dataclass
class Hidden:
    shown: int
    _hidden: int = 3


@dataclass
class Needs:
    kept: int
    seed: InitVar[int]


@dataclass
class Stubborn:
    """Does not take back what it makes."""

    name: str

    def __post_init__(self) -> None:
        if self.name.endswith("!"):
            raise RuntimeError("no")
        self.name += "!"


class Movie(TypedDict):
    title: str
    released: date
    rating: NotRequired[Decimal]


class Point(NamedTuple):
    x: int
    y: float
    when: date | None = None


class Model(pydantic.BaseModel):
    name: str
    since: date
    parts: tuple[int, ...] = ()

    @pydantic.computed_field
    @property
    def size(self) -> int:
        return len(self.parts)

    @functools.cached_property
    def later(self) -> int:
        return 1


class Secretive(pydantic.BaseModel):
    key: pydantic.SecretStr


class Excluding(pydantic.BaseModel):
    kept: int
    dropped: int = pydantic.Field(default=0, exclude=True)


class Wider(pydantic.BaseModel):
    name: str
    size: int = 0


class Narrow(pydantic.BaseModel):
    name: str


@dataclass
class Cat:
    name: str
    kind: Literal["cat"] = "cat"


@dataclass
class Dog:
    name: str
    kind: Literal["dog"] = "dog"
    good: bool = True


@dataclass
class Twin:
    name: str
    kind: Literal["cat"] = "cat"


def there_and_back(value: object, hint: object) -> object:
    payload = CONVERTER.to_payload(value, hint)
    return CONVERTER.from_payload(Payload.FromString(payload.SerializeToString()), hint)


def shape(value: Any) -> object:
    """A value with all its types, in a form whose equality leaves nothing out."""
    kind = type(value)
    if isinstance(value, enum.Enum):
        return value
    if isinstance(value, datetime):
        return kind, value.replace(tzinfo=None), value.utcoffset(), value.fold
    if dataclasses.is_dataclass(value):
        return kind, [shape(getattr(value, item.name)) for item in dataclasses.fields(value)]
    if isinstance(value, pydantic.BaseModel):
        return kind, [shape(item) for item in vars(value).values()]
    if isinstance(value, Mapping):
        entries: Any = value.items()
        return kind, [(shape(key), shape(item)) for key, item in entries]
    if isinstance(value, (list, tuple)):
        items: Any = value
        return kind, [shape(item) for item in items]
    if isinstance(value, (set, frozenset)):
        members: Any = value
        return kind, sorted(repr(shape(item)) for item in members)
    if isinstance(value, float):
        return kind, value.hex()
    return kind, str(value) if isinstance(value, (Decimal, Path)) else value


# -- any value of any type

DECIMALS = st.decimals().filter(lambda number: not number.is_snan())
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    type(None): st.none(),
    bool: st.booleans(),
    int: st.integers(-(2**65), 2**65),
    float: st.floats(),
    str: st.text(st.characters(codec=None)),
    bytes: st.binary(max_size=9),
    datetime: st.datetimes(
        timezones=st.none()
        | st.just(UTC)
        | st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
        | st.just(ZoneInfo("Europe/Berlin"))
    ),
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas(),
    UUID: st.uuids(),
    Decimal: DECIMALS,
    Path: st.text("ab/.", max_size=5).map(Path),
    Text: st.sampled_from(Text),
    Number: st.sampled_from(Number),
    Mode: st.sampled_from([Mode.READ, Mode.READ | Mode.RUN, Mode(0)]),
    Odd: st.sampled_from(Odd),
    Twins: st.sampled_from(Twins),
    Literal["EUR", 3, True]: st.sampled_from(["EUR", 3, True]),
    Word: st.text(max_size=3).map(Word),
    UserId: st.text(max_size=3).map(UserId),
    Annotated[int, "unit"]: st.integers(0, 9),
    Price: st.builds(Price, DECIMALS, st.sampled_from(["EUR", "USD", 3, True])),
    Child: st.builds(Child, DECIMALS, more=st.integers(0, 3)),
    Derived: st.builds(Derived, base=st.integers(0, 9)),
    Tree: st.recursive(
        st.builds(Tree, st.text(max_size=2)),
        lambda inner: st.builds(Tree, st.text(max_size=2), st.lists(inner, max_size=2), inner),
        max_leaves=4,
    ),
    Hidden: st.builds(Hidden, st.integers(0, 1), st.integers(3, 4)),
    Movie: st.fixed_dictionaries(
        {"title": st.text(max_size=3), "released": st.dates()},
        optional={"rating": st.decimals()},
    ),
    Point: st.builds(Point, st.integers(0, 9), st.floats(), st.none() | st.dates()),
    Model: st.builds(Model, name=st.text(max_size=3), since=st.dates()),
    Cat: st.builds(Cat, st.text(max_size=2)),
    Dog: st.builds(Dog, st.text(max_size=2), good=st.booleans()),
    Twin: st.builds(Twin, st.text(max_size=2)),
    DayBox: st.builds(DayBox, st.dates(), st.lists(st.dates(), max_size=2)),
}
Typed = tuple[Any, st.SearchStrategy[Any]]


def containers(inner: Typed) -> Iterator[Typed]:
    hint, values = inner
    yield list[hint], st.lists(values, max_size=3)
    yield tuple[hint, ...], st.lists(values, max_size=3).map(tuple)
    yield tuple[hint, str], st.tuples(values, st.text(max_size=2))
    yield dict[str, hint], st.dictionaries(st.text(max_size=2), values, max_size=3)
    yield OrderedDict[str, hint], st.dictionaries(st.text(max_size=2), values).map(OrderedDict)
    yield Box[hint], st.builds(Box, values, st.lists(values, max_size=2))
    yield hint | None, st.none() | values


def hashables(inner: Typed) -> Iterator[Typed]:
    hint, values = inner
    yield set[hint], st.sets(values, max_size=3)
    yield frozenset[hint], st.frozensets(values, max_size=3)
    yield dict[hint, int], st.dictionaries(values, st.integers(0, 9), max_size=3)
    yield Counter[hint], st.lists(values, max_size=4).map(Counter)


UNHASHABLE = (Derived, Tree, Hidden, Movie, Model, Cat, Dog, Twin, DayBox)
LEAVES: list[Typed] = list(SCALARS.items())
FLAT: list[Typed] = [
    *(made for leaf in LEAVES for made in containers(leaf)),
    *(made for leaf in LEAVES if leaf[0] not in UNHASHABLE for made in hashables(leaf)),
]


@st.composite
def typed_values(draw: st.DrawFn) -> tuple[Any, Any]:
    hint, values = draw(st.sampled_from([*LEAVES, *FLAT]))
    if draw(st.booleans()):
        hint, values = draw(st.sampled_from(list(containers((hint, values)))))
    if draw(st.booleans()):
        other, others = draw(st.sampled_from([*LEAVES, *FLAT]))
        hint, values = (
            (hint | other, values | others)
            if draw(st.booleans())
            else (
                other | hint,
                values | others,
            )
        )
    return hint, draw(values)


@settings(
    max_examples=1500,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(typed_values())
def test_value_of_any_type_comes_back_with_its_types_or_is_refused_with_its_path(
    typed: tuple[Any, Any],
) -> None:
    hint, value = typed
    refusal = None
    try:
        assert shape(there_and_back(value, hint)) == shape(value)
    except PayloadEncodeError as error:
        refusal = error
    assert refusal is None or refusal.path.startswith("$")


def test_value_that_cannot_be_compared_is_refused_by_its_path_in_a_tuple_too() -> None:
    movie = Movie(title="M", released=date(1931, 5, 11), rating=Decimal("sNaN"))
    value = ({"best": movie}, "text")
    hint: Any = tuple[type(None), ...] | tuple[dict[str, Movie], str]
    with pytest.raises(PayloadEncodeError, match=r"\$\[0\]\.best\.rating: it does not compare"):
        there_and_back(value, hint)


# -- what is taken and what is refused, by name

MOVIE = {"title": "M", "released": date(1931, 5, 11)}


@pytest.mark.parametrize(
    "value,hint",
    [
        *((member, Odd) for member in Odd),
        ([Odd.PLACE], list[Odd]),
        ({Text.ONE: 1, Text.A: 2}, dict[Text, int]),
        (Mode.READ | Mode.WRITE, Mode),
        (OrderedDict(a=[1]), OrderedDict[str, list[int]]),
        (Counter("aab"), Counter[str]),
        (Derived(base=2), Derived),
        (DayBox(date(2026, 1, 1), [], {"k": UUID(int=1)}), DayBox),
        (Pair(date(2026, 1, 1), [], {"k": 1}), Pair[int, date]),
        (Swapped(UUID(int=1), date(2026, 1, 1), [date(2026, 1, 2)]), Swapped[UUID, date]),
        ({"cell": date(2026, 1, 1), "more": 1}, DayRow),
        ({"cell": date(2026, 1, 1)}, Row[date]),
        ({**MOVIE, "seen": 1}, Movie),
        (Dog("d"), Cat | Dog),
        (Cat("c"), Dog | Cat),
        (Child(Decimal(1)), Price | Child),
        (Price(Decimal(1)), Child | Price),
        (Wider(name="n", size=2), Narrow | Wider),
        (Model(name="n", since=date(2026, 1, 1), parts=(1, 2)), Model),
        (1, float | int),
        (1.0, int | float),
        (3, float),
        ([3], list[float] | str),
        (3, float | str | None),
        ((1, 2), Sequence[int]),
        (OrderedDict(a=1), Mapping[str, int]),
        (frozenset({1}), AbstractSet[int]),
        ({"when": date(2026, 1, 1), "place": (1, 2)}, dict[str, Any]),
        (WorkflowExecution(run_id="r"), WorkflowExecution),
        (-0.0, float),
        (2**64 - 1, int),
    ],
)
def test_value_that_comes_back_is_taken(value: object, hint: object) -> None:
    there_and_back(value, hint)


def _changed() -> Derived:
    value = Derived(base=1)
    value.double = 7
    value.seen.append(date(2026, 1, 1))
    return value


def test_fields_that_the_constructor_does_not_take_come_back_as_they_are() -> None:
    assert there_and_back(_changed(), Derived) == _changed()


def test_of_a_union_the_class_with_exactly_the_fields_is_taken() -> None:
    back = there_and_back(Child(Decimal(1), more=2), Price | Child)
    assert (type(back), back) == (Child, Child(Decimal(1), more=2))


BERLIN = ZoneInfo("Europe/Berlin")
# Its offset has seconds, which ISO 8601 has no room for.
LOCAL_MEAN_TIME = datetime(1893, 1, 1, tzinfo=BERLIN)
SECOND_TIME = datetime(2026, 10, 25, 2, 30, fold=1)  # noqa: DTZ001 - naive, so that fold counts


@pytest.mark.parametrize(
    "value,hint,path,reason",
    [
        ([{"a": defaultdict(int)}], list[dict[str, dict[str, int]]], "$[0].a", "a defaultdict"),
        (OrderedDict(a=1), dict[str, int], "$", "an OrderedDict would arrive as a dict"),
        (Number.ONE, int, "$", "a Number would arrive as an int"),
        (Text.A, str, "$", "a Text would arrive as a str"),
        (Word("w"), str, "$", "a Word would arrive as a str"),
        (True, int, "$", "found a boolean"),
        ((1, 2), list[int], "$", "a tuple would arrive as a list"),
        ([Twins.PRICE], list[Twins], "$[0]", "TEXT"),
        (Child(Decimal(1)), Price, "$", "a Child would arrive as a Price"),
        ([Price(Decimal(1)), "x"], list[Price], "$[1]", "found a string"),
        (Twin("t"), Cat | Twin, "$", "a Twin would arrive as a Cat"),
        ({"": [LOCAL_MEAN_TIME]}, Movie | dict[str, list[datetime]], "$.[0]", "time zone"),
        ({**MOVIE, "seen": date(2026, 1, 1)}, Movie, "$.seen", "would arrive as a str"),
        (["w"], list[Word] | list[str], "$[0]", "a str would arrive as a Word"),
        ("2026-01-01", date | str, "$", "a str would arrive as a date"),
        (date(2026, 1, 1), str | date, "$", "a date would arrive as a str"),
        ((1, ""), tuple[float, str] | tuple[int, str], "$", "another member takes it first"),
        ({1: "a"}, dict[str, str], "$[1]", "an int would arrive as a str"),
        ({1: "a", "1": "b"}, dict[str, str], "$", "one of two keys"),
        ({1: "a", "1": "b"}, None, "$", "one of two keys"),
        (math.nan, float, "$", "JSON has no nan"),
        ([Decimal("nan")], list[Decimal], "$[0]", "would arrive as"),
        ([Decimal("snan")], list[Decimal], "$[0]", "does not compare"),
        ([math.inf], list[float], "$[0]", "JSON has no inf"),
        ({"n": 2**64}, dict[str, int], "$.n", "64-bit"),
        (2**53 + 1, float, "$", "would arrive as"),
        (timedelta(days=10**8, microseconds=1), timedelta, "$", "would arrive as"),
        (datetime(2026, 1, 1, tzinfo=BERLIN), datetime, "$", "Europe/Berlin would arrive as"),
        (SECOND_TIME, datetime, "$", "would arrive as"),
        (time(1, tzinfo=UTC), time, "$", "tzinfo"),
        (bytearray(b"x"), bytes, "$", "a bytearray would arrive as a bytes"),
        (Hidden(1, 9), Hidden, "$._hidden", "9 would arrive as 3"),
        (Hidden(1, 9), None, "$._hidden", "9 would arrive as 3"),
        ([Needs(1, 2)], list[Needs], "$[0]", "seed"),
        ([Stubborn("a")], list[Stubborn], "$[0]", "no"),
        (Secretive(key=pydantic.SecretStr("s")), Secretive, "$.key", "a secret is not written"),
        ([pydantic.SecretStr("s")], list[Any], "$[0]", "a secret is not written"),
        ({"a": [Excluding(kept=1, dropped=2)]}, None, "$.a[0]", "with other dropped"),
        ({"a": object()}, dict[str, Any], "$.a", "object"),
        (["\ud800"], list[str], "$[0]", "surrogates"),
    ],
)
def test_value_that_would_not_come_back_is_refused_with_path_and_reason(
    value: object, hint: object, path: str, reason: str
) -> None:
    with pytest.raises(PayloadEncodeError) as caught:
        CONVERTER.to_payload(value, hint)
    assert caught.value.path == path
    assert reason in caught.value.reason


def test_what_a_model_has_computed_is_not_part_of_it() -> None:
    model = Model(name="n", since=date(2026, 1, 1))
    assert model.later == 1
    assert there_and_back([model], list[Model]) == [Model(name="n", since=date(2026, 1, 1))]


def test_value_nested_too_deep_is_refused() -> None:
    tree = Tree("leaf")
    for _ in range(400):
        tree = Tree("", [tree])
    with pytest.raises(PayloadEncodeError):
        CONVERTER.to_payload(tree, Tree)


def test_extra_attribute_of_a_str_is_refused() -> None:
    value = Tagged("x")
    value.tag = "lost"
    with pytest.raises(PayloadEncodeError, match="would arrive as"):
        CONVERTER.to_payload(value, Tagged)


@pytest.mark.parametrize("number", [2**63, 2**64 + 1, -(2**70), 10**30])
def test_integer_of_any_size_is_read_exactly(number: int) -> None:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b'{"n": [%d]}' % number)
    assert CONVERTER.from_payload(payload) == {"n": [number]}


def test_arguments_are_encoded_for_their_hints() -> None:
    with pytest.raises(PayloadEncodeError) as caught:
        CONVERTER.to_payloads([1, ("x",), {}], [int, list[str]])
    assert caught.value.path == "[1]"
