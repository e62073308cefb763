"""Build ids: which tasks go to which workers' builds, as history and matching tell each other.

A task that requires a build requires a capability with a prefix that is reserved for that; a poll
has it by the build that its worker says it runs. So matching has nothing else to compare.
"""

from collections.abc import Collection

__all__ = ["BUILD_PREFIX", "build_capability", "split_build"]

BUILD_PREFIX = "build-id:"
"""What no capability of a user begins with."""


def build_capability(build_id: str) -> str:
    """What a task requires that goes to a build; the build id is not empty."""
    return BUILD_PREFIX + build_id


def split_build(capabilities: Collection[str]) -> tuple[list[str], str]:
    """The users' capabilities among these, sorted, and the build; empty for none."""
    build_id = ""
    others: list[str] = []
    for capability in sorted(capabilities):
        if capability.startswith(BUILD_PREFIX):
            build_id = capability.removeprefix(BUILD_PREFIX)
        else:
            others.append(capability)
    return others, build_id
