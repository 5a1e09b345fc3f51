"""`later-reporting query` stays within its memory, for single large values too: DuckDB does not count these."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment


@pytest.mark.e2e
def test_large_value_ends_the_query_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "query", "--memory-gb", "1"]
    variables = {**environment(), "LATER_LAKE_ROOT": str(tmp_path / "lake")}
    errors = tmp_path / "errors"
    with errors.open("wb") as output:
        process = subprocess.Popen([*command, "SELECT range(200_000_000)"], env=variables, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 1
    assert errors.read_text() == (
        "Error: the query needs more than 1 GB of memory: select fewer days or columns, or raise the limit\n"
    )
    assert usage.ru_maxrss < 3.5e6  # kB
