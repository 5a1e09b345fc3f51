from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))
