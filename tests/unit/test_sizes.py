"""How large files and functions are: nine of ten are small, a larger one may want another owner."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("aetheris_server", "aetheris_worker", "aetheris_client")


def _sources() -> Iterator[str]:
    for package in _PACKAGES:
        for path in (_ROOT / package).rglob("*.py"):
            yield path.read_text()


def _function_lengths(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.end_lineno - node.lineno + 1


def _p90(sizes: Sequence[int]) -> int:
    assert len(sizes) > 100
    return sorted(sizes)[len(sizes) * 9 // 10]


def test_nine_of_ten_files_have_at_most_300_lines() -> None:
    assert _p90([len(source.splitlines()) for source in _sources()]) <= 300


def test_nine_of_ten_functions_have_at_most_20_lines() -> None:
    lengths = [length for source in _sources() for length in _function_lengths(source)]
    assert _p90(lengths) <= 20
