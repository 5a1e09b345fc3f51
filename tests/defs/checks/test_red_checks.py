"""A check that fails for some days fails until they are right, also in runs of other days."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from later_reporting_dagster.defs.checks.check import MAX_RANGES, named_ranges
from later_reporting_dagster.defs.checks.posts import ROWS_UNIQUE
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import Lake, Partition
from tests.conftest import INSTANCE_IDS
from tests.defs.checks.test_check import (
    ACCOUNTS,
    PERFORMANCE,
    RAW,
    ROLLUP,
    TAMPERED,
    alter,
    file_of,
    set_values,
    stored,
)
from tests.defs.conftest import DAYS, Project, assert_success, fill_once, freeze_clock, plain_metadata
from tests.rollups.conftest import posts_of, row

PUBLISHED, WEEKLY = "posts_published", "organic_paid_weekly"
BEFORE = " (also at {days}, where this had failed)"


@pytest.fixture
def filled(project: Project, module_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with three days that were over for some days."""
    freeze_clock(monkeypatch, datetime(2024, 3, 7, 13, tzinfo=UTC))
    tags = range_tags(DAYS[0], DAYS[-1])
    return fill_once(project, module_lake, lambda new: new.run(RAW, ROLLUP, PERFORMANCE, ACCOUNTS, tags=tags).success)


@dataclass(frozen=True)
class Cause:
    """What makes a check of an asset fail for a day.

    Attributes:
        also: another asset that the run materializes that heals it.
        days: those that the result names.
    """

    asset: str
    check: str
    damage: Callable[[Lake], object]
    also: Sequence[str] = ()
    days: str = str(TAMPERED.day)


CAUSES = [
    Cause(RAW, "rows_unique_by_key", lambda lake: lake.write(RAW, TAMPERED, pa.concat_tables([stored(lake)] * 2))),
    Cause(RAW, "rows_belong_to_partition", lambda lake: file_of(lake).write_bytes(b"no Parquet")),
    Cause(RAW, "rates_agree_with_counts", partial(set_values, engagements=1, impressions=100, engagement_rate=2.0)),
    Cause(RAW, "no_unknown_fields", partial(set_values, extra='{"boosts":1}')),
    Cause(
        RAW,
        "posts_agree_with_later",
        partial(set_values, table=ACCOUNTS, impressions=10**9),
        also=[ACCOUNTS],
        days=f"{DAYS[0]} to {DAYS[2]}",  # the days together differ, too
    ),
    Cause(PERFORMANCE, "totals_agree_with_posts", partial(set_values, table=PERFORMANCE, impressions=10**9)),
    Cause(ROLLUP, "is_current", lambda lake: alter(file_of(lake, ROLLUP))),
]


def evaluation_in_run(
    project: Project, asset: str, check: str, day: date, *, also: Sequence[str] = ()
) -> dg.AssetCheckEvaluation:
    """Materialize a day of some assets; return the result of a check of the first one."""
    result = project.run(asset, *also, tags=range_tags(day, day))
    assert_success(result)
    return project.evaluations(result)[asset, check]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda each: each.check)
def test_check_stays_red_in_runs_of_other_days_until_its_day_is_healed(cause: Cause, filled: Project) -> None:
    asset, check = cause.asset, cause.check
    in_run = partial(evaluation_in_run, filled, asset, check)
    assert filled.check((asset, check))[asset, check].passed
    cause.damage(filled.lake)
    red = filled.check((asset, check))[asset, check]
    assert (red.passed, plain_metadata(red)["failed_days"]) == (False, [cause.days])
    for day in (DAYS[0], DAYS[2]):
        other = in_run(day)
        assert (other.passed, plain_metadata(other)["failed_days"]) == (False, [cause.days])
        assert (other.description or "").endswith(BEFORE.format(days=cause.days))
        assert other.severity is red.severity
    healed = in_run(TAMPERED.day, also=cause.also)
    assert (healed.passed, "failed_days" in healed.metadata) == (True, False)
    after = in_run(DAYS[0])
    assert after.passed
    assert "also at" not in (after.description or "")


def test_check_of_weeks_looks_at_the_week_that_failed(filled: Project) -> None:
    after, weeks, key = date(2024, 3, 4), [date(2024, 2, 26), date(2024, 3, 4)], (WEEKLY, "is_current")
    assert_success(filled.fetch(RAW, days=[after]))
    result = filled.roll_up(WEEKLY, days=[*DAYS, after])
    assert filled.evaluations(result)[key].passed
    alter(Path(filled.lake.url(WEEKLY, Partition(weeks[0]))))
    red = filled.check(key)[key]
    other = filled.evaluations(filled.roll_up(WEEKLY, days=[after]))[key]
    assert [plain_metadata(each)["failed_days"] for each in (red, other)] == [[str(weeks[0])]] * 2
    assert filled.evaluations(filled.roll_up(WEEKLY, days=DAYS))[key].passed


def test_sum_of_settled_posts_stays_red_until_the_posts_that_differ_agree(project: Project) -> None:
    project, lake, name = project.configured(lookback_days=1), project.lake, INSTANCE_IDS[1]
    key, post = (PUBLISHED, "days_add_up_to_metrics_to_date"), row(instance_id=name, post_id=1, impressions=10)
    published_at = datetime.combine(DAYS[0], time(), UTC)

    def write_to_date(impressions: int) -> None:
        rows = posts_of(post | {"impressions": impressions, "post_date": published_at})
        lake.write(PUBLISHED, Partition(DAYS[0], name), rows)

    for day in DAYS:
        lake.write(RAW, Partition(day, name), posts_of(post | {"post_date": published_at}))
    write_to_date(1_000)
    red = project.check(key)[key]
    assert (red.passed, plain_metadata(red)["failed_days"]) == (False, [str(DAYS[0])])
    # Of this day, no post is settled.
    other = evaluation_in_run(project, *key, DAYS[2])
    assert (other.passed, plain_metadata(other)["failed_days"]) == (False, [str(DAYS[0])])
    write_to_date(30)
    assert evaluation_in_run(project, *key, DAYS[2]).passed


def test_failed_instance_does_not_hide_a_red_check(filled: Project) -> None:
    """The step of the asset evaluates its checks itself if it is about to fail."""
    file_of(filled.lake).write_bytes(b"no Parquet")
    key = (RAW, "rows_belong_to_partition")
    assert not filled.check(key)[key].passed
    result = filled.fetch(RAW, days=DAYS[:1], instances=["unknown"])
    assert not result.success
    found = filled.evaluations(result)[key]
    assert (found.passed, (found.description or "").endswith(BEFORE.format(days=TAMPERED.day))) == (False, True)


def test_day_whose_file_is_gone_is_missing_and_no_longer_damaged(filled: Project) -> None:
    file_of(filled.lake).write_bytes(b"no Parquet")
    damaged, missing = (RAW, "rows_belong_to_partition"), (RAW, "every_instance_is_present")
    assert not filled.check(damaged)[damaged].passed
    file_of(filled.lake).unlink()
    results = filled.evaluations(filled.run(RAW, tags=range_tags(DAYS[0], DAYS[0])))
    assert (results[damaged].passed, results[missing].passed) == (True, False)


def test_many_days_are_named_by_the_range_that_has_all() -> None:
    days = [DAYS[0] + timedelta(days=2 * number) for number in range(MAX_RANGES + 1)]
    assert named_ranges(days[1:]) == [*map(str, days[1:])]
    assert named_ranges(days) == [f"{days[0]} to {days[-1]}"]
    result = ROWS_UNIQUE.result(False, "", otherwise="", failed_days=days)
    assert result.metadata["failed_days"].value == named_ranges(days)
