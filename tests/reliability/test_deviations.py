"""Each deviation of the real API costs what it must, and no stored file becomes one without rows."""

import shutil
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED
from tests.deviations import (
    BAD_DAY,
    DAYS,
    DEVIATIONS,
    INSTANCE_IDS,
    Deviation,
    PlainPosts,
    asks_for_day,
    asks_for_instance,
    is_bad_day,
    is_bad_instance,
    problem_as_success,
    refused,
    silent,
    when,
)
from tests.independent_server import Posts, Reply
from tests.reliability.lake_comparison import read_partition
from tests.reliability.trial import TABLES, Trial

pytestmark = pytest.mark.faults

STORED_DAYS = DAYS[:3]
"""The days that were fetched before the API deviates."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with the first days, when posts had other metrics."""
    root = tmp_path_factory.mktemp("before")
    for table_name in TABLES:
        trial = Trial(Deviation(), PlainPosts(restated=True), "paged", table_name, root)
        trial.fetch(STORED_DAYS)
        assert not trial.error
        assert not any(day.failed for day in trial.days)
    return root


@pytest.fixture
def lake(before: Path, tmp_path: Path) -> Path:
    """A copy of that lake."""
    return Path(shutil.copytree(before, tmp_path / "lake"))


CASES = [
    (name, version, table_name)
    for name, deviation in DEVIATIONS.items()
    for version in deviation.versions
    for table_name in deviation.tables
]

both_tables = pytest.mark.parametrize("table_name", TABLES)
both_versions = pytest.mark.parametrize("version", API_VERSIONS)


@pytest.mark.parametrize(("name", "version", "table_name"), [pytest.param(*case, id="-".join(case)) for case in CASES])
def test_deviation_costs_what_it_must(name: str, version: str, table_name: str, before: Path, lake: Path) -> None:
    deviation = DEVIATIONS[name]
    trial = Trial(deviation, PlainPosts.at(deviation.hours_from_utc), version, table_name, lake, before)
    trial.fetch()
    assert not (problems := trial.problems()), problems


FAILURES: dict[str, Callable[[Reply], Reply]] = {
    **{str(status): refused(status) for status in (400, 403, 404, 409, 410, 422, 451, 500)},
    "time-out": silent,
    "problem in a 200": problem_as_success,
}


@both_tables
@both_versions
@pytest.mark.parametrize("of_what", ["day", "instance"])
@pytest.mark.parametrize("failure", FAILURES)
def test_failing_day_or_instance_costs_its_own_files(
    failure: str, of_what: str, version: str, table_name: str, before: Path, lake: Path
) -> None:
    concerns, fails = (asks_for_day, is_bad_day) if of_what == "day" else (asks_for_instance, is_bad_instance)
    deviation = Deviation(change=when(concerns, FAILURES[failure]), fails=fails)
    trial = Trial(deviation, PlainPosts.at(0), version, table_name, lake, before)
    trial.fetch(timeout_seconds=2.0 if failure == "time-out" else 60.0)
    assert not (problems := trial.problems()), problems


@given(case=st.sampled_from(CASES), rows=st.integers(1, 30))
@example(case=("counts have units", "paged", POSTS_PUBLISHED.name), rows=1)
def test_no_deviation_replaces_stored_rows_by_none(case: tuple[str, str, str], rows: int) -> None:
    name, version, table_name = case
    deviation = DEVIATIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        root, hours = Path(folder), deviation.hours_from_utc
        Trial(Deviation(), PlainPosts(rows=rows, restated=True), version, table_name, root).fetch([BAD_DAY])
        posts = PlainPosts(rows=rows, hours_from_utc=hours)
        Trial(deviation, posts, version, table_name, root).fetch([BAD_DAY])
        stored = {name: read_partition(root, (table_name, Partition(BAD_DAY, name))) for name in INSTANCE_IDS}
    assert {name: bool(of_instance) for name, of_instance in stored.items()} == dict.fromkeys(INSTANCE_IDS, True)


@both_versions
def test_wider_ranges_take_few_more_requests(version: str, tmp_path: Path) -> None:
    days = [date(2023, 3, 1) + timedelta(days=offset) for offset in range(365)]
    requests = []
    for padding_days in (0, 1):
        posts = Posts(first_day=days[0] - timedelta(days=2), days=369, instance_ids=INSTANCE_IDS, seed=1, most=8)
        posts.published = cache(posts.published)  # type: ignore[method-assign]
        posts.hours_from_utc = -5 * padding_days
        trial = Trial(
            Deviation(padding_days=padding_days), posts, version, POSTS_PUBLISHED.name, tmp_path / str(padding_days)
        )
        requests.append(trial.fetch(days).asked.total())
        assert not any(day.failed for day in trial.days)
        assert len(trial.days) == len(days)
    assert requests[0] > 50
    assert requests[1] <= 1.1 * requests[0]
