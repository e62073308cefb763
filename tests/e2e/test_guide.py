"""The programs of docs/guide, as their readers run them."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from aetheris.api.v1.operator_service_pb2 import CreateNamespaceRequest
from tests.support.processes import ServerProcess
from tests.support.raw import Raw

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted(path.stem for path in (ROOT / "examples" / "guide").glob("[a-z]*.py"))
DEADLINE = 60.0


async def run_example(name: str, address: str, namespace: str) -> tuple[int, str]:
    """Its exit code, and all that it has printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"examples.guide.{name}"),
        cwd=ROOT,
        env={**os.environ, "AETHERIS_ADDRESS": address, "AETHERIS_NAMESPACE": namespace},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_guide_program_runs_and_shows_what_it_says(
    name: str, shared_server: ServerProcess, server: Raw
) -> None:
    namespace = f"guide-{name}"
    await server.operators.CreateNamespace(CreateNamespaceRequest(namespace=namespace))

    code, output = await run_example(name, shared_server.address, namespace)

    assert code == 0, output
