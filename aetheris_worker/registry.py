"""What a worker can run, by name."""

from collections.abc import Callable, Mapping, Sequence

from aetheris_worker.runtime.definitions import ActivityDefinition, WorkflowDefinition


def workflows_by_name(workflows: Sequence[type]) -> Mapping[str, WorkflowDefinition]:
    """Raises TypeError for a class without a decorator, ValueError for two of one name."""
    definitions: dict[str, WorkflowDefinition] = {}
    for workflow in workflows:
        definition = WorkflowDefinition.of(workflow)
        if definition.name in definitions:
            raise ValueError(f"two workflows have the name {definition.name!r}")
        definitions[definition.name] = definition
    return definitions


def activities_by_name(
    activities: Sequence[Callable[..., object]],
) -> Mapping[str, ActivityDefinition]:
    """Raises TypeError for a function without a decorator, ValueError for two of one name."""
    definitions: dict[str, ActivityDefinition] = {}
    for activity in activities:
        definition = ActivityDefinition.of(activity)
        if definition.name in definitions:
            raise ValueError(f"two activities have the name {definition.name!r}")
        definitions[definition.name] = definition
    return definitions
