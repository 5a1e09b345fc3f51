"""What breaks heals without a person: a real daemon on SQLite, real kills, and how many ticks of which sensor it takes.

docs/freshness.md has the same numbers: "What heals without you".
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from dagster import DagsterRunStatus

from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.rollups.rollup_tables import DAILY, OVERALL
from tests.e2e.dagster_dev import INSTANCES
from tests.e2e.recovery import BY_API, OF_ROLLUPS, RAW, Recovery, running_recovery
from tests.lake.conftest import truncate
from tests.services import wait_until

pytestmark = [pytest.mark.recovery, pytest.mark.timeout(1800)]  # on a busy machine

FAILURE = DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the lake. For root, it is a disk of its own, which can be filled."""
    disk = tmp_path_factory.mktemp("disk")
    is_mounted = (
        os.geteuid() == 0
        and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=False).returncode
    )
    yield disk
    if is_mounted:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> Iterator[Recovery]:
    with running_recovery(tmp_path_factory.mktemp("recovery"), lake=disk / "lake") as recovery:
        yield recovery


def test_history_of_a_new_instance_is_fetched_although_the_fetch_is_killed(recovery: Recovery) -> None:
    with recovery.kill_run_of(RAW):
        recovery.list_instances(*INSTANCES, stalled=recovery.days[-1])
    recovery.list_instances(*INSTANCES)
    recovery.wait_until_healed()
    recovery.assert_healed(RAW, recovery.days[-1], by=BY_API, ticks=1)


def test_lost_files_and_damaged_rollups_are_made_again(recovery: Recovery) -> None:
    before = recovery.raw_rows()
    lost = recovery.days[0]
    recovery.raw_file(lost).unlink()
    old, new = recovery.days[3:5], recovery.days[-2:]
    for day, other in (old, new):
        recovery.rollup_file(day).unlink()
        truncate(recovery.rollup_file(other))
    recovery.wait_until_healed()
    assert recovery.raw_rows() == before
    recovery.assert_healed(RAW, lost, by=BY_API, ticks=1)
    recovery.assert_healed(DAILY.name, *old, *new, by=OF_ROLLUPS, ticks=2)


def test_damaged_raw_file_is_fetched_again(recovery: Recovery) -> None:
    # Of its own: until it is fetched, each run of the rollup makes the other days, and fails.
    before = recovery.raw_rows()
    damaged = recovery.days[1]
    truncate(recovery.raw_file(damaged))
    recovery.wait_until_healed()
    assert recovery.raw_rows() == before
    recovery.assert_healed(RAW, damaged, by=BY_API, ticks=2)


def test_rollups_follow_a_restatement_that_is_killed(recovery: Recovery) -> None:
    days = recovery.days[3:6]
    recovery.restate(1)
    with recovery.kill_run_of(RAW):
        recovery.dagster.launch(RAW, days=days)
    recovery.wait_until_healed()
    recovery.assert_healed(DAILY.name, days[0], by=OF_ROLLUPS, ticks=2)


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
    recovery.assert_healed(DAILY.name, days[-1], by=OF_ROLLUPS, ticks=2)


def test_retired_instance_leaves_all_rollups_and_comes_back(recovery: Recovery) -> None:
    before = recovery.stored(recovery.days[0])
    for change, instances in ((recovery.lake.retired.add, INSTANCES[1:]), (recovery.lake.retired.remove, INSTANCES)):
        recovery.breaking()
        change(INSTANCES[0])
        recovery.wait_until_healed()
        assert {*recovery.stored(recovery.days[0])["instance_id"].to_pylist()} == {*instances}
        recovery.assert_healed(DAILY.name, *recovery.days, by=OF_ROLLUPS, ticks=2)
    assert recovery.stored(recovery.days[0]) == before


def test_full_disk_heals_once_it_is_freed(recovery: Recovery, disk: Path) -> None:
    if not disk.is_mount():
        pytest.skip("only root may mount a disk that can be filled")
    raw, rolled_up = recovery.days[2], recovery.days[9]
    recovery.raw_file(raw).unlink()
    recovery.rollup_file(rolled_up).unlink()
    with full(disk):
        wait_until("a tick has failed", lambda: recovery.has_failed_tick(BY_API))
        wait_until("the rollup has failed", lambda: recovery.runs_of(DAILY.name, FAILURE))
    # A run that was queued while the disk was full may be the one that heals.
    recovery.wait_until_healed()


def test_upgrade_changes_one_table_and_a_downgrade_none(recovery: Recovery) -> None:
    days, current = recovery.days, DAILY.definition
    recovery.restart_daemon({DAILY.name: current + 1})
    recovery.wait_until_healed()
    recovery.assert_healed(DAILY.name, *days, by=OF_ROLLUPS, ticks=2)
    assert recovery.definitions_of_files() == {current + 1: len(days)}
    assert all(OVERALL.name not in request.run.assets for request in recovery.requests())

    recovery.restart_daemon({})
    recovery.wait_until_healed()
    assert not [*recovery.requests()]
    # The older version writes only what has changed.
    recovery.restate(3)
    recovery.dagster.launch(RAW, days=days[:1])
    recovery.wait_until_healed()
    assert recovery.definitions_of_files() == {current: 1, current + 1: len(days) - 1}


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill a disk while the block runs."""
    file = disk / "filler"
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    yield
    file.unlink()
