"""What names an aggregate in the whole cluster."""

import uuid
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AggregateKey:
    """Names an aggregate.

    Attributes:
        namespace_id: A UUID.
        name: With the namespace it says which shard: all aggregates of a name are in one. A run's
            is its workflow id.
        id: A UUID that no other aggregate of any kind has.
        kind: The name of its kind.
    """

    namespace_id: str
    name: str
    id: str
    kind: str


def id_of_name(kind: str, namespace_id: str, name: str) -> str:
    """The id of the one aggregate that a kind has by a name, where it never has another.

    Part of the stored format: the version 5 UUID, in the namespace's own, of the kind, a slash and
    the name.
    """
    return str(uuid.uuid5(uuid.UUID(namespace_id), f"{kind}/{name}"))
