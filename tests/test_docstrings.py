"""Examples in docstrings run as doctests, and the classes that users start with have some."""

import doctest
import importlib
import os
import tempfile
from pathlib import Path

import pytest

import later_reporting_dagster

PACKAGE = Path(later_reporting_dagster.__file__).parent
CLASSES_WITH_EXAMPLES = (
    "LaterClient",
    "PageNumberPaginator",
    "CursorPaginator",
    "Lake",
    "LaterLake",
    "LaterReportingResource",
)


def modules_with_examples() -> list[str]:
    """Return the names of all modules of the package whose source contains a doctest prompt."""
    paths = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]
    dotted = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in dotted]


def examples_in(module_name: str) -> list[doctest.DocTest]:
    """Return the docstrings of a module that contain examples."""
    module = importlib.import_module(module_name)
    return [test for test in doctest.DocTestFinder().find(module, module_name) if test.examples]


def test_docstring_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("LATER_")]:
        monkeypatch.delenv(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for module_name in modules_with_examples():
        for test in examples_in(module_name):
            runner.run(test, out=output.append)
    assert runner.failures == 0, "".join(output)


@pytest.mark.parametrize("class_name", CLASSES_WITH_EXAMPLES)
def test_docstring_of_class_has_examples(class_name: str) -> None:
    names = [test.name.split(".") for module in modules_with_examples() for test in examples_in(module)]
    assert any(class_name in parts for parts in names)
