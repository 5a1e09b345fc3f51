"""Processes killed at any moment of a write damage nothing, and the next run repairs the lake."""

import os
from collections.abc import Iterator

import pytest

from tests.crash.kill_writers import IngestWriter, kill_repeatedly, kills_by_writer, writers_by_name

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("KILLS", "20"))


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, IngestWriter]]:
    """Writers to be killed, by name."""
    with writers_by_name(tmp_path_factory.mktemp("victims")) as writers:
        yield writers


@pytest.mark.parametrize(("name", "kills"), kills_by_writer(KILLS).items())
def test_writers_killed_at_random_moments_damage_nothing(
    name: str, kills: int, victims: dict[str, IngestWriter]
) -> None:
    report = kill_repeatedly(victims[name], kills=kills, seed=0)

    assert report.problems == []
    assert report.kills == kills
    assert report.partitions_read > kills * len(victims[name].partitions)
