"""The run's memo and search attributes, and what the runs before it in its chain left."""

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from aetheris_client.errors import FailureError
from aetheris_client.failure import from_failure
from aetheris_worker.workflow.current_run import current_run

T = TypeVar("T")


def memo() -> Mapping[str, object]:
    """The run's memo as it is now; values that cannot be decoded are payloads."""
    run = current_run("memo")
    read = run.converter.from_payload_or_itself
    return {name: read(payload) for name, payload in run.properties.memo.items()}


@overload
def memo_value(name: str, default: T, *, result_type: type[T]) -> T: ...
@overload
def memo_value(name: str, default: Any = ..., *, result_type: object = ...) -> Any: ...
def memo_value(name: str, default: Any = None, *, result_type: object = None) -> Any:
    """One value of the memo, or `default` where there is none of the name.

    Args:
        name: Of the value.
        default: Instead of it.
        result_type: A hint for it.

    Raises:
        PayloadDecodeError: It is not of that type.
    """
    run = current_run("memo_value")
    payload = run.properties.memo.get(name)
    return default if payload is None else run.converter.from_payload(payload, result_type)


def upsert_memo(values: Mapping[str, object]) -> None:
    """Set values of the memo, which describe and list show; None removes the one of its name.

    The run that continues this one begins with the memo as it is then.

    Raises:
        PayloadEncodeError: A value has no encoding; names it.
    """
    current_run("upsert_memo").properties.upsert_memo(values)


def search_attributes() -> Mapping[str, object]:
    """The run's search attributes as they are now."""
    return current_run("search_attributes").properties.read_search_attributes()


def upsert_search_attributes(values: Mapping[str, object]) -> None:
    """Set search attributes (str, int, float, bool, aware datetimes, lists of str); None removes
    the one of its name.

    The run that continues this one begins with them as they are then.

    Raises:
        PayloadEncodeError: A value is none of these; names it.
    """
    current_run("upsert_search_attributes").properties.upsert_search_attributes(values)


@overload
def last_completion_result(result_type: type[T]) -> T | None: ...
@overload
def last_completion_result(result_type: object = ...) -> Any: ...
def last_completion_result(result_type: object = None) -> Any:
    """What a run before this one in its chain has left as its result; None where none has.

    Args:
        result_type: A hint for it.
    """
    run = current_run("last_completion_result")
    values = run.converter.from_payloads(run.started.last_completion_result, [result_type])
    return values[0] if values else None


def last_failure() -> FailureError | None:
    """Why the run that this one continues failed; None where it did not."""
    run = current_run("last_failure")
    if not run.started.HasField("continued_failure"):
        return None
    return from_failure(run.started.continued_failure, run.converter)
