"""Examples in docstrings run as doctests."""

import doctest
import importlib
import tempfile
from pathlib import Path

import pytest

import later_reporting_dagster

PACKAGE = Path(later_reporting_dagster.__file__).parent


def test_docstring_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    paths = [path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text()]
    for path in sorted(paths):
        module = importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))
        assert doctest.testmod(module, optionflags=doctest.ELLIPSIS).failed == 0
