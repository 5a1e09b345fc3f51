"""docs/architecture.md agrees with the package: its modules, the imports between packages, and its exceptions."""

import builtins
import importlib
import pkgutil
import re

import pytest

import later_reporting_dagster
from tests.docs.conftest import PACKAGE, ROOT, code_blocks, section

PAGE = ROOT / "docs" / "architecture.md"
UNLISTED_FILES = {"__init__.py", "py.typed"}


def test_architecture_lists_each_file_of_the_package_once() -> None:
    listed = re.findall(r"`([a-z_/-]+\.[a-z]+)`", "\n".join(re.findall(r"^- .*(?:\n  .*)*", _modules(), re.MULTILINE)))
    files = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.*")
        if path.is_file() and path.name not in UNLISTED_FILES and "__pycache__" not in path.parts
    }
    assert files - set(listed) == set(), "not listed"
    assert set(listed) - files == set(), "do not exist"
    assert len(listed) == len(files)


def test_architecture_names_existing_files_elsewhere() -> None:
    named = set(re.findall(r"\b((?:[a-z]+/)[a-z_]+\.(?:py|sql|html|yaml))\b", PAGE.read_text()))
    assert {name for name in named if not (PACKAGE / name).exists()} == set()


def packages() -> list[tuple[set[str], str]]:
    """Return the packages of each row of the table, and the cell of their imports, from top to bottom."""
    rows = re.findall(r"^\| (`[^|]*) \| [^|]* \| ([^|]*)\|$", section(PAGE, "Packages"), re.MULTILINE)
    return [(package_names(cell), imports) for cell, imports in rows]


def package_names(cell: str) -> set[str]:
    """Return the packages and modules that a cell of the table names."""
    return set(re.findall(r"`(\w+)(?:/|\.py)`", cell))


def test_architecture_states_the_imports_of_each_package() -> None:
    above: set[str] = set()
    for names, cell in packages():
        everything, _, exceptions = cell.partition("all of the above")
        stated = package_names(cell) if everything == cell else above - package_names(exceptions)
        assert stated == set().union(*map(imports_of, names)) - names, names
        assert stated <= above
        above |= names
    assert above == {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"} - {
        "__init__",
        "__pycache__",
    }


def imports_of(name: str) -> set[str]:
    """Return the packages and top-level modules that a package or top-level module imports."""
    path = PACKAGE / name
    files = [*path.rglob("*.py")] if path.is_dir() else [path.with_suffix(".py")]
    imports = re.compile(r"^ *from later_reporting_dagster(?:\.(\w+)[\w.]*)? import \(?(\w*)", re.MULTILINE)
    return {package or imported for file in files for package, imported in imports.findall(file.read_text())}


@pytest.fixture(scope="module")
def exceptions() -> set[tuple[str, str]]:
    """Each exception class of the package with its base classes, as pairs of names."""
    found: set[tuple[str, str]] = set()
    for info in pkgutil.walk_packages(later_reporting_dagster.__path__, "later_reporting_dagster."):
        if info.name.endswith("__main__"):
            continue
        for each in vars(importlib.import_module(info.name)).values():
            if isinstance(each, type) and issubclass(each, Exception) and each.__module__ == info.name:
                found |= {
                    (each.__name__, base.__name__) for base in each.__bases__ if not each.__name__.startswith("_")
                }
    return found


def test_architecture_prints_the_hierarchy_of_exceptions(exceptions: set[tuple[str, str]]) -> None:
    (tree,) = code_blocks(PAGE.read_text().partition("<!-- exceptions -->")[2], "")
    printed: set[tuple[str, str]] = set()
    ancestors: list[str] = []
    for line in tree.splitlines():
        name = line.strip().rpartition(".")[2]
        depth = (len(line) - len(line.lstrip())) // 2
        del ancestors[depth:]
        if not hasattr(builtins, name) and "dagster." not in line:
            printed.add((name, ancestors[-1]))
        ancestors.append(name)
    assert exceptions - printed == set(), "not printed"
    assert printed - exceptions == set(), "do not exist"


def test_architecture_explains_each_exception(exceptions: set[tuple[str, str]]) -> None:
    explanations = section(PAGE, "Errors").partition("\nClient errors")[2]
    assert {name for name, _ in exceptions if f"`{name}`" not in explanations} == set()


def _modules() -> str:
    return section(PAGE, "Modules")
