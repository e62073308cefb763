"""What callers say by keyword: checked in one place, before anything is sent.

A mistake here would otherwise surface as an AttributeError deep in the SDK, or as a field of a
message that the caller never wrote. An error names the call, the option, what was found, and what
to write instead.
"""

import difflib
import functools
import inspect
import math
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from aetheris_client.enums import (
    QueryRejectCondition,
    TaskQueueType,
    UpdateStage,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
    WorkflowStatus,
)

# What protobuf's Duration can say.
MAX_DURATION: Final = timedelta(seconds=315_576_000_000)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What an option takes; `remedy` says what to write for a value that is near."""

    words: str
    accepts: Callable[[object], bool]
    remedy: Callable[[object], str] = lambda _: ""


def _interval_for(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"timedelta(seconds={value!r})" if is_number else ""


def _is_named_values(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)  # pyright: ignore[reportUnknownVariableType]


def _member(kind: type[StrEnum]) -> _Kind:
    def remedy(value: object) -> str:
        name = value.upper() if isinstance(value, str) else ""
        return f"{kind.__name__}.{name}" if name in kind.__members__ else ""

    names = ", ".join(kind.__members__)
    return _Kind(f"a {kind.__name__} ({names})", lambda value: isinstance(value, kind), remedy)


_DURATION: Final = _Kind("a timedelta", lambda value: isinstance(value, timedelta), _interval_for)
_TEXT: Final = _Kind(
    "a string", lambda value: isinstance(value, str), lambda value: repr(str(value))
)
_VALUES_IN_ORDER: Final = _Kind(
    "a sequence of values",
    lambda value: isinstance(value, Sequence) and not isinstance(value, str | bytes),
    lambda value: f"[{value!r}]",
)
_VALUES: Final = _Kind("a mapping of names to values", _is_named_values)
_COUNT: Final = _Kind(
    "a count from 0",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
)


def _is_name_or_handler(value: object) -> bool:
    return isinstance(value, str) or callable(value)


def _are_statuses(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(item, WorkflowStatus) for item in value)  # pyright: ignore[reportUnknownVariableType]


_MOMENT: Final = _Kind(
    "a datetime with a time zone",
    lambda value: isinstance(value, datetime) and value.tzinfo is not None,
    lambda value: f"{value!r}.replace(tzinfo=UTC)" if isinstance(value, datetime) else "",
)


def _are_words(value: object) -> bool:
    # A string is a sequence of strings as well, one for each letter.
    return (
        isinstance(value, Sequence | AbstractSet)
        and not isinstance(value, str | bytes)
        and all(isinstance(item, str) for item in value)  # pyright: ignore[reportUnknownVariableType]
    )


_WORDS: Final = _Kind(
    "a sequence of strings",
    _are_words,
    lambda value: repr([value]) if isinstance(value, str) else "",
)

# An option means the same in every call that has it.
_KINDS: Final[Mapping[str, _Kind]] = {
    "activity_id": _TEXT,
    "address": _TEXT,
    "build_id": _TEXT,
    "capabilities": _WORDS,
    "codec_timeout": _DURATION,
    "connect_timeout": _DURATION,
    "default_build_id": _TEXT,
    "description": _TEXT,
    "earliest_start_time": _MOMENT,
    "execution_timeout": _DURATION,
    "first_execution_run_id": _TEXT,
    "graceful_shutdown_timeout": _DURATION,
    "heartbeat_timeout": _DURATION,
    "id": _TEXT,
    "id_conflict_policy": _member(WorkflowIdConflictPolicy),
    "id_reuse_policy": _member(WorkflowIdReusePolicy),
    "identity": _TEXT,
    "initial_interval": _DURATION,
    "latest_start_time": _MOMENT,
    "jitter": _DURATION,
    "maximum_attempts": _COUNT,
    "maximum_interval": _DURATION,
    "memo": _VALUES,
    "name": _TEXT,
    "namespace": _TEXT,
    "non_retryable_error_types": _WORDS,
    "page_size": _COUNT,
    "pinned_build_id": _TEXT,
    "reason": _TEXT,
    "reject_condition": _member(QueryRejectCondition),
    "request_id": _TEXT,
    "retention_interval": _DURATION,
    "rpc_timeout": _DURATION,
    "run_id": _TEXT,
    "run_timeout": _DURATION,
    "schedule_to_close_timeout": _DURATION,
    "schedule_to_start_timeout": _DURATION,
    "search_attributes": _VALUES,
    "start_delay": _DURATION,
    "statuses": _Kind("a sequence of WorkflowStatus", _are_statuses),
    "start_signal": _Kind("a signal's handler, or its name", _is_name_or_handler),
    "start_signal_args": _VALUES_IN_ORDER,
    "start_to_close_timeout": _DURATION,
    "sticky_timeout": _DURATION,
    "task_queue": _TEXT,
    "task_queue_type": _member(TaskQueueType),
    "task_timeout": _DURATION,
    "timeout": _DURATION,
    "update_id": _TEXT,
    "wait_for_stage": _member(UpdateStage),
    "version": _TEXT,
    "workflow_id": _TEXT,
    "workflow_type": _TEXT,
}

# What people write for them.
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "args": "the arguments themselves, after the workflow",
    "signal": "'start_signal'",
    "input": "the arguments themselves, after the workflow",
    "queue": "'task_queue'",
    "timeout": "'execution_timeout', or 'run_timeout' for one run",
    "workflow_id": "'id'",
    "workflow_run_timeout": "'run_timeout'",
    "workflow_execution_timeout": "'execution_timeout'",
}


def check_options(call: str, **given: object) -> None:
    """Refuse values that are not of the option's kind; None is an option that is not given.

    Raises:
        TypeError: Names the option, what was found, and what to write.
        ValueError: A duration is longer than any the API can carry, or a text has no UTF-8.
    """
    for name, value in given.items():
        kind = _KINDS.get(name)
        if value is None or kind is None or _is_plainly(kind, value):
            continue
        if not kind.accepts(value):
            raise wrong_kind(call, name, value)
        if isinstance(value, timedelta) and abs(value) > MAX_DURATION:
            raise ValueError(f"{call}: option {name!r}: {value} is longer than {MAX_DURATION}")
        for text in _texts(value):
            check_text(f"{call}: option {name!r}", text)


def _is_plainly(kind: _Kind, value: object) -> bool:
    """Whether a look at it is enough, as at nearly every value: each activity has some."""
    if kind is _TEXT:
        return type(value) is str and value.isascii()
    return kind is _WORDS and value == ()


def _texts(value: object) -> Iterable[object]:
    """It, if it is a text; those that it holds, as names or items."""
    if isinstance(value, str):
        return (value,)
    return value if isinstance(value, Mapping | Sequence | AbstractSet) else ()  # pyright: ignore[reportUnknownVariableType]


def check_text(what: str, text: object) -> None:
    """Refuse a text that no message can carry: names of files that are not in UTF-8 come like that.

    Raises:
        ValueError: Says what it is, and shows it.
    """
    if not isinstance(text, str) or text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what}: expected text that UTF-8 can tell, found {text!a}") from None


def wrong_kind(call: str, name: str, value: object) -> TypeError:
    """The error for a value that is not of the option's kind."""
    kind = _KINDS[name]
    remedy = kind.remedy(value)
    return TypeError(
        f"{call}: option {name!r}: expected {kind.words}, found {reprlib.repr(value)}"
        + (f"; write {name}={remedy}" if remedy else "")
    )


def check_names(
    call: str, given: Mapping[str, object], known: Collection[str], required: Collection[str]
) -> None:
    """Refuse names that the call does not have, and the lack of those that it needs.

    Raises:
        TypeError: Names the option and the one that was probably meant, or that is missing.
    """
    for name in given:
        if name not in known:
            meant = _OTHER_NAMES.get(name) or ", ".join(
                map(repr, difflib.get_close_matches(name, known, n=1))
            )
            instead = f"did you mean {meant}?" if meant else f"there are {', '.join(sorted(known))}"
            raise TypeError(f"{call}: there is no option {name!r}: {instead}")
    for name in sorted(required):
        if given.get(name) is None:
            raise TypeError(f"{call}: option {name!r} is missing: write {name}=...")


def check_arguments(
    call: str, method: Callable[..., object] | None, args: tuple[object, ...]
) -> None:
    """Refuse arguments that a workflow's run method does not take; a name says nothing of them.

    Raises:
        TypeError: Names the method and the argument.
    """
    if method is None:
        return
    signature, least, most = _signature(method)
    if least <= len(args) <= most:
        return
    try:
        signature.bind(None, *args)
    except TypeError as error:
        raise TypeError(
            f"{call}: the arguments of {method.__qualname__}{signature}: {error}; found {len(args)}"
        ) from None


@functools.lru_cache(maxsize=1024)
def _signature(method: Callable[..., Any]) -> tuple[inspect.Signature, int, float]:
    """It, and how many arguments it takes by position beside `self`."""
    signature = inspect.signature(method)
    by_position = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    least = sum(parameter.default is parameter.empty for parameter in by_position)
    takes_more = any(p.kind is p.VAR_POSITIONAL for p in signature.parameters.values())
    return signature, least - 1, math.inf if takes_more else len(by_position) - 1
