"""The Makefile installs what its targets run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("is_editable", "installs"), [("true", False), ("false", True)])
def test_demo_runs_the_code_of_its_folder(is_editable: str, installs: bool, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, tmp_path)
    installed = tmp_path / ".venv/lib/python3.13/site-packages/later_reporting_dagster-1.0.0.dist-info/direct_url.json"
    stamp, python = tmp_path / ".venv/installed", tmp_path / ".venv/bin/python"
    for path in (installed, stamp, python):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    installed.write_text(f'{{"url": "file:///somewhere", "dir_info": {{"editable": {is_editable}}}}}')
    for path in (tmp_path / "pyproject.toml", tmp_path / "constraints.txt", python):
        os.utime(path, (0, 0))
    printed = subprocess.run(["make", "-n", "demo"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "later-reporting demo" in printed
    assert ("pip install" in printed) is installs
