"""What breaks heals without a person: a real daemon on SQLite, and real kills."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterRunStatus

from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.rollups.rollup_tables import DAILY, OVERALL
from tests.e2e.dagster_dev import INSTANCES
from tests.e2e.recovery import RAW, Recovery, running_recovery
from tests.lake.conftest import truncate
from tests.services import wait_until

pytestmark = [pytest.mark.recovery, pytest.mark.timeout(1800)]  # on a busy machine

FAILURE = DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recovery]:
    with running_recovery(tmp_path_factory.mktemp("recovery")) as recovery:
        yield recovery


def test_history_of_a_new_instance_is_fetched_although_the_fetch_is_killed(recovery: Recovery) -> None:
    with recovery.kill_run_of(RAW):
        recovery.list_instances(*INSTANCES, stalled=recovery.days[-1])
    recovery.list_instances(*INSTANCES)
    recovery.wait_until_healed()


def test_lost_and_damaged_files_are_made_again(recovery: Recovery) -> None:
    before = recovery.raw_rows()
    lost, damaged = recovery.days[:2]
    recovery.raw_file(lost).unlink()
    truncate(recovery.raw_file(damaged))
    old, new = recovery.days[3:5], recovery.days[-2:]
    for day, other in (old, new):
        recovery.rollup_file(day).unlink()
        truncate(recovery.rollup_file(other))
    recovery.wait_until_healed()
    assert recovery.raw_rows() == before


def test_rollups_follow_a_restatement_that_is_killed(recovery: Recovery) -> None:
    days = recovery.days[3:6]
    recovery.restate(1)
    with recovery.kill_run_of(RAW):
        recovery.dagster.launch(RAW, days=days)
    recovery.wait_until_healed()


def test_killed_and_failed_rollups_are_repeated(recovery: Recovery) -> None:
    days = recovery.days[3:6]
    failing = Path(recovery.lake.storage.location(table_path(OVERALL.name)))
    failing.unlink()
    failing.mkdir()
    recovery.restate(2)
    with recovery.kill_run_of(DAILY.name):
        recovery.dagster.launch(RAW, days=days)
        wait_until("the other rollup has failed", lambda: recovery.runs_of(OVERALL.name, FAILURE))
    failing.rmdir()
    recovery.wait_until_healed()
