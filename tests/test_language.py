"""The code stays short and in plain words: limits on functions, file names, words and tags."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "later_reporting_dagster"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_FUNCTION_LINES = 50
MAX_PUZZLING_LINES = 29
PUZZLING_WORDS = re.compile(
    r"\b(tell|tells|told|telling|hears|lies|lay|whoever|whatever|nobody|somebody)\b", re.IGNORECASE
)
# Tags that name a source in private notes, which readers of the repository cannot look up.
SOURCE_TAG = re.compile(r"(?<!\w)\[[SDC](, [a-z ]+)?\]")
TEXT_SUFFIXES = {".md", ".py", ".sql", ".yaml", ".html", ".js", ".css"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(node: ast.AST, depth: int = 0) -> Iterator[tuple[Function, int]]:
    """Yield all functions below a node, each with the number of functions around it."""
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, Function)
        if is_function:
            yield child, depth
        yield from functions(child, depth + is_function)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_short_and_not_nested_twice(module: Path) -> None:
    found = list(functions(ast.parse(module.read_text())))
    long = {
        function.name: lines
        for function, _ in found
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long, f"longer than {MAX_FUNCTION_LINES} lines: {long}"
    nested = [function.name for function, depth in found if depth > 1]
    assert not nested, f"closures inside closures: {nested}"


def test_module_names_are_unique() -> None:
    counts = Counter(path.name for path in MODULES if path.name not in ("__init__.py", "__main__.py"))
    assert [name for name, count in counts.items() if count > 1] == []


def test_package_avoids_puzzling_words() -> None:
    lines = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in MODULES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if PUZZLING_WORDS.search(line)
    ]
    assert len(lines) <= MAX_PUZZLING_LINES, "\n".join(lines)


def test_files_contain_no_source_tags() -> None:
    tagged = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in (PACKAGE, ROOT / "docs", ROOT / "tests")
        for path in sorted(folder.rglob("*"))
        if path.suffix in TEXT_SUFFIXES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if SOURCE_TAG.search(line)
    ]
    assert tagged == []
