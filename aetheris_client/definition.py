"""The attributes by which decorated workflow code is known, to the worker SDK that sets them and to
the client that reads them. The client never imports the worker SDK: it asks for these.

- A class under `@workflow.defn` carries WORKFLOW_DEFINITION: an object with `name`. A subclass does
  not inherit it.
- Its method under `@workflow.run` carries WORKFLOW_RUN (true), and, once the class is decorated,
  the class's WORKFLOW_DEFINITION as well: so both the class and `Class.run` name a workflow. No two
  decorated classes share a run method.
- Methods under `@workflow.signal`, `@workflow.query` and `@workflow.update` carry
  SIGNAL_DEFINITION, QUERY_DEFINITION and UPDATE_DEFINITION: objects with `name`.
"""

import inspect
from collections.abc import Callable, Sequence

from aetheris_client.options import check_text
from aetheris_client.signatures import signature_of

WORKFLOW_DEFINITION = "__aetheris_workflow_definition__"
WORKFLOW_RUN = "__aetheris_workflow_run__"
SIGNAL_DEFINITION = "__aetheris_signal_definition__"
QUERY_DEFINITION = "__aetheris_query_definition__"
UPDATE_DEFINITION = "__aetheris_update_definition__"

NameReference = str | Callable[..., object]


def workflow_name(workflow: NameReference) -> str:
    """The workflow type that a name, a decorated class or its run method stands for.

    Raises:
        TypeError: It is none of them.
        ValueError: It is a name that UTF-8 cannot tell.
    """
    return _name(workflow, WORKFLOW_DEFINITION, "a workflow", "@workflow.defn")


def signal_name(signal: NameReference) -> str:
    """The signal that a name or a decorated method stands for; TypeError if it is neither."""
    return _name(signal, SIGNAL_DEFINITION, "a signal", "@workflow.signal")


def query_name(query: NameReference) -> str:
    """The query that a name or a decorated method stands for; TypeError if it is neither."""
    return _name(query, QUERY_DEFINITION, "a query", "@workflow.query")


def update_name(update: NameReference) -> str:
    """The update that a name or a decorated method stands for; TypeError if it is neither."""
    return _name(update, UPDATE_DEFINITION, "an update", "@workflow.update")


def run_method(workflow: NameReference) -> Callable[..., object] | None:
    """The run method of a decorated class, or the method itself; None for a name."""
    if isinstance(workflow, str):
        return None
    if not isinstance(workflow, type):
        return workflow
    for _, member in inspect.getmembers(workflow, inspect.isfunction):
        if getattr(member, WORKFLOW_RUN, None):
            return member
    return None


def types_of_call(
    function: NameReference | None, argument_count: int
) -> tuple[Sequence[object], object]:
    """The types of a method's arguments and of its result; nothing is known of a name."""
    if function is None or isinstance(function, str):
        return (), None
    signature = signature_of(function)
    return signature.types_of(argument_count), signature.result_type


def _name(reference: NameReference, attribute: str, noun: str, decorator: str) -> str:
    if isinstance(reference, str):
        check_text(f"the name of {noun}", reference)
        return reference
    definition = (
        vars(reference).get(attribute)
        if isinstance(reference, type)
        else getattr(reference, attribute, None)
    )
    name = getattr(definition, "name", None)
    if isinstance(name, str):
        return name
    raise TypeError(f"{reference!r} is not {noun}: expected a name or something under {decorator}")
