"""The worker process of test_admin_cli: `python -m tests.e2e.admin_worker ADDRESS`."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import timedelta

from aetheris_client.errors import ApplicationError
from aetheris_worker import RetryPolicy, Worker, activity, run_until_signal, workflow

TASK_QUEUE = "admin-cli"


@dataclass
class Order:
    item: str
    count: int


@activity.defn
async def reserve(order: Order) -> str:
    if order.count < 1:
        raise ApplicationError("nothing to reserve", order.count, type="EmptyOrderError")
    return f"{order.count} of {order.item}"


@workflow.defn(name="reservation")
class Reservation:
    def __init__(self) -> None:
        self.approver = ""

    @workflow.run
    async def run(self, order: Order) -> str:
        reserved = await workflow.execute_activity(
            reserve,
            order,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )
        await workflow.wait_condition(lambda: bool(self.approver))
        return f"{reserved}, approved by {self.approver}"

    @workflow.signal
    def approve(self, approver: str) -> None:
        self.approver = approver

    @workflow.query
    def is_approved(self) -> bool:
        return bool(self.approver)


if __name__ == "__main__":
    worker = Worker(
        sys.argv[1], task_queue=TASK_QUEUE, workflows=[Reservation], activities=[reserve]
    )
    asyncio.run(run_until_signal(worker))
