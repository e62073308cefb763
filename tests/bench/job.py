"""The simple workflow: one activity. What both sides of the benchmark agree on."""

from datetime import timedelta

from aetheris_worker import activity, workflow

TASK_QUEUE = "bench"


@activity.defn
async def greet(name: str) -> str:
    """Do next to nothing."""
    return f"hello, {name}"


@workflow.defn
class Simple:
    """Start, one activity, done."""

    @workflow.run
    async def run(self, name: str) -> str:
        """Give what the activity gives."""
        return await workflow.execute_activity(
            greet, name, start_to_close_timeout=timedelta(seconds=30)
        )
