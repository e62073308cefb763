"""The Aetheris worker SDK: write workflows and activities, and run them.

from aetheris_worker import Worker, activity, workflow

What workflows and activities raise and catch (ApplicationError, ActivityError) is in
`aetheris_client.errors`; what tests of them need is in `aetheris_worker.testing`.
"""

from aetheris_client.retry import RetryPolicy
from aetheris_worker import activity, workflow
from aetheris_worker.run_until_signal import run_until_signal
from aetheris_worker.worker import Worker

__all__ = ["RetryPolicy", "Worker", "activity", "run_until_signal", "workflow"]
