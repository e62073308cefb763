"""What one Python file is made of. Pure: bytes in, figures out, the same for the same interpreter.

Every line of a file that parses is exactly one of code, docstring, comment and blank.
"""

import ast
import io
import tokenize
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_BRANCHES: Final = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.comprehension,
    ast.match_case,
)
_WITH_DOCSTRING: Final = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_UNREADABLE: Final = (
    SyntaxError,
    ValueError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts that add up. `branches` are places where control may go two ways; of a file that does
    not parse, only `files` and `lines` count.
    """

    files: int = 0
    lines: int = 0
    code: int = 0
    docstring: int = 0
    comment: int = 0
    blank: int = 0
    functions: int = 0
    classes: int = 0
    imports: int = 0
    branches: int = 0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) + getattr(other, name) for name in _COUNTS))


_COUNTS: Final = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True, slots=True)
class LongFunction:
    """A function and its length in lines, from `def` to its last line."""

    lines: int
    path: str
    name: str


@dataclass(frozen=True, slots=True)
class FileCensus:
    """One file. `problem` says why it does not parse; `longest` is its longest function, if any."""

    path: str
    figures: Figures
    longest: LongFunction | None = None
    problem: str | None = None


def analyse(
    path: str, source: bytes, between_steps: Callable[[], object] = lambda: None
) -> FileCensus:
    """Count what is in a file.

    Args:
        path: Only named in the result.
        source: The file as it is on disk.
        between_steps: Called now and then, so that the caller can say that it is alive.
    """
    try:
        lines = _decode(source)
        nodes = list(ast.walk(ast.parse(source)))
        between_steps()
        comments = _comment_lines(lines)
    except _UNREADABLE as error:
        figures = Figures(files=1, lines=len(source.splitlines()))
        return FileCensus(path, figures, problem=_describe(error))
    between_steps()
    figures = _count_lines(lines, comments, _docstring_lines(nodes)) + _count_nodes(nodes)
    return FileCensus(path, figures, _longest_function(path, nodes))


def _describe(error: Exception) -> str:
    what = f"{error.msg} in line {error.lineno}" if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {what}"


def _decode(source: bytes) -> Sequence[str]:
    """The lines as Python sees them: a form feed ends none."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return list(io.TextIOWrapper(io.BytesIO(source), encoding))


def _comment_lines(lines: Sequence[str]) -> set[int]:
    """Numbers of the lines that hold a comment and nothing else."""
    return {
        number
        for kind, _, (number, column), _, _ in tokenize.generate_tokens(iter(lines).__next__)
        if kind == tokenize.COMMENT and not lines[number - 1][:column].strip()
    }


def _docstring_lines(nodes: Iterable[ast.AST]) -> set[int]:
    return {
        number
        for node in nodes
        if isinstance(node, _WITH_DOCSTRING) and (text := _docstring(node)) is not None
        for number in range(text.lineno, (text.end_lineno or text.lineno) + 1)
    }


def _docstring(node: ast.Module | ast.ClassDef | FunctionNode) -> ast.Constant | None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return first.value if isinstance(first.value.value, str) else None
    return None


def _count_lines(lines: Sequence[str], comments: set[int], docstrings: set[int]) -> Figures:
    counts = {"blank": 0, "docstring": 0, "comment": 0, "code": 0}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            counts["blank"] += 1
        elif number in docstrings:
            counts["docstring"] += 1
        elif number in comments:
            counts["comment"] += 1
        else:
            counts["code"] += 1
    return Figures(files=1, lines=len(lines), **counts)


def _count_nodes(nodes: Iterable[ast.AST]) -> Figures:
    functions = classes = imports = branches = 0
    for node in nodes:
        if isinstance(node, FunctionNode):
            functions += 1
        elif isinstance(node, ast.ClassDef):
            classes += 1
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports += 1
        elif isinstance(node, _BRANCHES):
            branches += 1
        elif isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
    return Figures(functions=functions, classes=classes, imports=imports, branches=branches)


def _longest_function(path: str, nodes: Iterable[ast.AST]) -> LongFunction | None:
    """The longest; of several, the one whose name comes first."""
    return min(_functions(path, nodes), key=lambda found: (-found.lines, found.name), default=None)


def _functions(path: str, nodes: Iterable[ast.AST]) -> Iterator[LongFunction]:
    for node in nodes:
        if isinstance(node, FunctionNode):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield LongFunction(length, path, node.name)
