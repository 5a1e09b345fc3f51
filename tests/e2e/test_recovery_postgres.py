"""Recovery with Dagster's storage in PostgreSQL: see test_recovery.py."""

from collections.abc import Iterator

import pyarrow.compute as pc
import pytest
from dagster import DagsterRunStatus

from later_reporting_dagster.rollups.rollup_tables import DAILY
from tests.e2e.dagster_dev import INSTANCES
from tests.e2e.recovery import BY_API, OUTDATED, RAW, Recovery, running_recovery
from tests.services import postgres_storage, running_postgres, wait_until

pytestmark = [pytest.mark.recovery, pytest.mark.timeout(1800)]  # on a busy machine

BACKFILL = """mutation ($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) { ... on LaunchBackfillSuccess { backfillId } }
}"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovery]:
    with (
        running_postgres() as url,
        running_recovery(tmp_path_factory.mktemp("postgres"), storage=postgres_storage(url)) as recovery,
    ):
        yield recovery


@pytest.fixture
def recovery(running: Recovery) -> Recovery:
    """The daemon on PostgreSQL, with nothing to do."""
    running.wait_until_healed()
    running.breaking()
    return running


def test_killed_fetch_is_continued(recovery: Recovery) -> None:
    with recovery.kill_run_of(RAW):
        recovery.list_instances(*INSTANCES, stalled=recovery.days[-1])
    recovery.list_instances(*INSTANCES)
    recovery.wait_until_healed()
    recovery.assert_healed(RAW, recovery.days[-1], by=BY_API, ticks=1)


def test_killed_rollup_is_repeated(recovery: Recovery) -> None:
    days = recovery.days[3:6]
    recovery.restate(1)
    with recovery.kill_run_of(DAILY.name):
        recovery.dagster.launch(RAW, days=days)
    recovery.wait_until_healed()
    recovery.assert_healed(DAILY.name, days[-1], by=OUTDATED, ticks=2)


def test_concurrent_backfills_of_the_same_days_write_the_newest_response(recovery: Recovery) -> None:
    day = recovery.days[0]
    before = recovery.raw_rows(day)["impressions"]
    recovery.restate(2)
    days = [*map(str, recovery.days)]
    backfill = {"assetSelection": [{"path": ["later", RAW]}], "partitionNames": days, "allPartitions": False}
    hold = recovery.folder / f"hold-{RAW}"
    hold.touch()
    for _ in range(2):
        recovery.dagster.graphql(BACKFILL, backfill=backfill)
    wait_until("both fetch", lambda: len(recovery.runs_of(RAW, DagsterRunStatus.STARTED)) == 2)
    hold.unlink()
    recovery.wait_until_healed()
    assert len(recovery.runs_of(RAW, DagsterRunStatus.SUCCESS)) == 2
    assert recovery.raw_rows(day)["impressions"] == pc.add(before, 2)
