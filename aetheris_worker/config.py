"""What the parts of one worker share: who it is, where it works, what it can do."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aetheris_client.converter import DataConverter

SDK_NAME: Final = "aetheris-python"
SDK_VERSION: Final = "0.1.0"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Settings of one worker.

    Attributes:
        sticky_task_queue: The queue that only this worker polls; empty if it caches no runs.
        sticky_timeout: How long the server offers a cached run's task to this worker alone.
        instance_id: The same for all calls of one worker.
        build_id: The build of the code that it runs; empty where nobody says.
        capabilities: What it can do, sorted.
        answer_timeout: Seconds for which an answer is tried while no server takes it.
        graceful_shutdown_timeout: Seconds that activities have to end by themselves at shutdown.
    """

    namespace: str
    task_queue: str
    sticky_task_queue: str
    sticky_timeout: timedelta
    identity: str
    instance_id: str
    build_id: str
    capabilities: tuple[str, ...]
    converter: DataConverter
    answer_timeout: float
    max_concurrent_activities: int
    max_concurrent_local_activities: int
    max_concurrent_workflow_tasks: int
    max_cached_workflows: int
    graceful_shutdown_timeout: float
