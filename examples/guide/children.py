"""Children: runs that a run starts, waits for, signals and cancels; and other runs."""

import asyncio
from datetime import timedelta

from aetheris_client import Client
from aetheris_client.errors import ApplicationError, ChildWorkflowError
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-children"


@workflow.defn
class Researcher:
    """Answer one question, once it is told where to look."""

    def __init__(self) -> None:
        self._source = ""

    @workflow.run
    async def run(self, question: str) -> str:
        """Give the answer."""
        if not question:
            raise ApplicationError("nothing was asked", type="NoQuestion")
        await workflow.wait_condition(lambda: self._source != "")
        return f"{question}: see {self._source}"

    @workflow.signal
    def look_in(self, source: str) -> None:
        """Where to look."""
        self._source = source


@workflow.defn
class Editor:
    """Have several questions answered at the same time."""

    @workflow.run
    async def run(self, questions: list[str]) -> list[str]:
        """Give the answers, and what became of a question that was none."""
        children = await asyncio.gather(
            *(
                workflow.start_child_workflow(
                    Researcher.run,
                    question,
                    id=f"{workflow.info().workflow_id}/{number}",
                    run_timeout=timedelta(hours=1),
                )
                for number, question in enumerate(questions)
            )
        )
        for child in children:
            await child.signal(Researcher.look_in, "the library")
        answers = list(await asyncio.gather(*children))

        try:
            await workflow.execute_child_workflow(Researcher.run, "")
        except ChildWorkflowError as error:
            answers.append(str(error.cause))

        # One that outlives this run, and is told where to look by whoever knows its id.
        await workflow.start_child_workflow(
            Researcher.run,
            "afterwards",
            id="researcher-of-its-own",
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        )
        other = workflow.get_external_workflow_handle("researcher-of-its-own")
        await other.signal(Researcher.look_in, "the archive")
        return answers


async def main() -> None:
    """Ask an editor."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Editor, Researcher]),
    ):
        answers = await client.execute_workflow(
            Editor.run, ["who", "when"], id="editor-1", task_queue=TASK_QUEUE
        )
        assert answers == [
            "who: see the library",
            "when: see the library",
            "NoQuestion: nothing was asked",
        ]
        own = client.get_workflow_handle("researcher-of-its-own")
        assert await own.result() == "afterwards: see the archive"


if __name__ == "__main__":
    asyncio.run(main())
