"""Paused runs of two hosts, of which one is killed: the other holds them, and has them go on."""

import asyncio

from tests.fault.conftest import NewServer
from tests.support.drive import persist
from tests.support.log_audit import audit_log
from tests.support.processes import running
from tests.support.raw import Raw, complete_workflow, schedule_activity, seconds, types
from tests.support.wait import wait_until

_RUNS = 8
_SETTINGS = {"AETHERIS_HISTORY__SHARD_COUNT": "16"}
_NOTHING_COMES = 1.0


async def test_paused_runs_of_a_killed_host_are_held_and_go_on_once_at_the_other(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    one, two = new_server(**_SETTINGS), new_server(**_SETTINGS)
    async with running(one, two), Raw(one.address) as server:
        runs = [await server.start_run() for _ in range(_RUNS)]
        for _ in runs:
            task = await server.poll_workflow()
            await server.decide(task, schedule_activity("a", start_to_close_timeout=seconds(600)))
        for run in runs[::2]:
            await server.pause(run)
        for run in runs[1::2]:
            await server.change_activity("PauseActivity", run)
        await two.kill()
        for run in runs:
            await persist(lambda run=run: server.signal(run, request_id="once"))
        # Those whose activity alone is paused have a workflow task.
        for _ in runs[1::2]:
            await server.decide(await persist(server.poll_workflow))
        assert not (await server.poll_activities(_NOTHING_COMES)).tasks
        assert not await server.poll_workflows(_NOTHING_COMES)
        for run in runs[::2]:
            await server.unpause(run)
        for run in runs[1::2]:
            await server.change_activity("UnpauseActivity", run)
        for _ in runs:
            await server.complete_activity(await server.poll_activity())

        async def are_closed() -> bool:
            for task in await server.poll_workflows(_NOTHING_COMES, max_tasks=_RUNS):
                events = types(task.history.events)
                ends = "ACTIVITY_TASK_COMPLETED" in events
                await server.decide(task, *([complete_workflow()] if ends else []))
            results = [await server.result(run, wait=0.01) for run in runs]
            return all(result is not None for result in results)

        await wait_until(are_closed, 30, "all runs to close")
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    for run in runs:
        events = types(audited[run.run_id].events)
        assert events.count("ACTIVITY_TASK_STARTED") == 1
        assert events.count("WORKFLOW_EXECUTION_SIGNALED") == 1
        assert events[-1] == "WORKFLOW_EXECUTION_COMPLETED"
