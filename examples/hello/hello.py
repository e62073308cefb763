"""A workflow with one activity."""

from datetime import timedelta

from aetheris_worker import activity, workflow

TASK_QUEUE = "hello"


@activity.defn
def greet(name: str) -> str:
    """Make a greeting. Activities may do anything: call a model, write a file, fail."""
    return f"Hello, {name}!"


@workflow.defn
class Hello:
    """Greet somebody. Workflow code decides what is done; what it has awaited is durable."""

    @workflow.run
    async def run(self, name: str) -> str:
        """Give the greeting."""
        return await workflow.execute_activity(
            greet, name, start_to_close_timeout=timedelta(seconds=10)
        )
