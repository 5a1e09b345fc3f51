"""Recovery with Dagster's storage in PostgreSQL: see test_recovery.py."""

from collections.abc import Iterator

import pyarrow.compute as pc
import pytest
from dagster import DagsterRunStatus

from tests.e2e.recovery import RAW, Recovery, running_recovery
from tests.e2e.test_recovery import (  # noqa: F401 - tests that run here too
    test_history_of_a_new_instance_is_fetched_although_the_fetch_is_killed,
    test_killed_and_failed_rollups_are_repeated,
)
from tests.services import postgres_storage, running_postgres, wait_until

pytestmark = [pytest.mark.recovery, pytest.mark.timeout(1800)]  # on a busy machine


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovery]:
    with (
        running_postgres() as url,
        running_recovery(tmp_path_factory.mktemp("postgres"), storage=postgres_storage(url)) as recovery,
    ):
        yield recovery


def test_concurrent_backfills_of_the_same_days_write_the_newest_response(recovery: Recovery) -> None:
    day = recovery.days[0]
    before = recovery.raw_rows(day)["impressions"]
    recovery.restate(2)
    hold = recovery.folder / f"hold-{RAW}"
    hold.touch()
    for _ in range(2):
        recovery.dagster.backfill(RAW, days=recovery.days)
    wait_until("both fetch", lambda: len(recovery.runs_of(RAW, DagsterRunStatus.STARTED)) == 2)
    hold.unlink()
    recovery.wait_until_healed()
    assert len(recovery.runs_of(RAW, DagsterRunStatus.SUCCESS)) == 2
    assert recovery.raw_rows(day)["impressions"] == pc.add(before, 2)
