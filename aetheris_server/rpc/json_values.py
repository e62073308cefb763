"""JSON from outside, bounded on its way in so that nothing that is done with it later can fail.

What passes here can be encoded, stored in Postgres and decoded again, and says the same after: no
deeper than a stack takes, numbers that a double or 64 bits hold, text that UTF-8 and Postgres
store, no name twice in an object.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn, cast

from aetheris_server.errors import InvalidArgumentError

__all__ = ["MAX_JSON_DEPTH", "parse_json"]

MAX_JSON_DEPTH = 32
"""Levels of arrays and objects."""

_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1
_MAX_INTEGER_DIGITS = 20


class _BadValueError(ValueError):
    """What the text says cannot be kept; the message says which part."""


def parse_json(field: str, data: bytes) -> Any:
    """The value that a JSON text in UTF-8 says.

    Args:
        field: The text's path in the request, for the error.
        data: The text. The cost grows with its length, which the caller bounds.

    Raises:
        InvalidArgumentError: It is no JSON, or not within the bounds above; names the part.
    """
    try:
        value = json.loads(
            data.decode(),
            parse_int=_parse_integer,
            parse_float=_parse_number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_to_object,
        )
    except _BadValueError as error:
        raise InvalidArgumentError(field, str(error)) from None
    except RecursionError:
        raise _too_deep(field) from None
    except ValueError as error:
        raise InvalidArgumentError(field, f"expected JSON: {error}") from None
    _check_parts(field, value)
    return value


def _parse_integer(text: str) -> int:
    # Python refuses to read an integer of thousands of digits, in words of its own.
    if len(text) > _MAX_INTEGER_DIGITS or not _MIN_INTEGER <= int(text) <= _MAX_INTEGER:
        raise _BadValueError(f"expected integers of 64 bits, found {_cut(text)}")
    return int(text)


def _parse_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _BadValueError(f"expected numbers that a double holds, found {_cut(text)}")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise _BadValueError(f"expected finite numbers, found {name}")


def _to_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, value in pairs:
        if name in names:
            raise _BadValueError(
                f"expected each name once in an object, found {_cut(name)!a} twice"
            )
        names[name] = value
    return names


def _check_parts(field: str, value: Any) -> None:
    """Check depth and texts, without recursion of its own."""
    waiting: list[tuple[str, Any, int]] = [(field, value, 0)]
    while waiting:
        path, part, depth = waiting.pop()
        if isinstance(part, str):
            _check_text(path, part)
        elif isinstance(part, dict | list):
            if depth == MAX_JSON_DEPTH:
                raise _too_deep(field)
            waiting += ((place, inner, depth + 1) for place, inner in _parts_of(path, part))


def _parts_of(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        items = cast("list[Any]", value)
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(items))
        return
    for name, inner in value.items():
        _check_text(path, name)
        yield f"{path}.{_cut(name)}", inner


def _check_text(path: str, text: str) -> None:
    if "\0" in text:
        raise InvalidArgumentError(path, "expected no U+0000, found one")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentError(path, "expected whole surrogate pairs, found a half") from None


def _too_deep(field: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        field, f"expected at most {MAX_JSON_DEPTH} levels of arrays and objects, found more"
    )


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
