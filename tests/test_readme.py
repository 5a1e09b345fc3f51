"""The README is correct: what it names exists, and its commands run as written."""

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, running_server

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def test_readme_names_existing_make_targets() -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README.read_text(), re.MULTILINE))
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo", "ui", "help"} <= named
    assert named <= set(re.findall(r"make ([a-z-]+)", listed))


@pytest.mark.docs
def test_readme_commands_for_the_real_api_run_against_the_sandbox(tmp_path: Path) -> None:
    """All commands but the installation and the UI, which does not end."""
    section = README.read_text().partition("## With the real API")[2]
    (block,) = re.findall(r"```sh\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    skipped = ("python3 -m venv", ".venv/bin/pip", "source .venv", "dagster dev")
    lines = [line for line in block.splitlines() if not line.startswith(skipped)]
    options = SandboxOptions(requests_per_window=1_000_000)
    world = World(first_day=date(2024, 1, 1), last_day=date(2024, 2, 1), instances=2, posts_per_day=3)
    home = tmp_path / "dagster"
    home.mkdir()
    values = {
        "LATER_CLIENT_ID": options.client_id,
        "LATER_CLIENT_SECRET": options.client_secret,
        "LATER_LAKE_ROOT": str(tmp_path / "lake"),
        "DAGSTER_HOME": str(home),
    }
    script = "set -e\n" + "\n".join(
        re.sub(
            r"^export (\w+)=\S+",
            lambda match: f"export {match[1]}={values.get(match[1]) or match[0].partition('=')[2]}",
            line,
        )
        for line in lines
    )
    with running_server(create_app(world, options=options)) as base_url:
        environment = {
            "HOME": str(tmp_path),
            "LATER_BASE_URL": base_url,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),  # the package of this checkout, not an installed one
        }
        completed = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "FAIL" not in completed.stdout
    assert len(list((tmp_path / "lake" / "posts_published").rglob("part-0.parquet"))) == 30 * 2
