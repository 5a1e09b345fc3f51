"""Which old days are fetched again, simulated over years of daily runs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.contract.days import days_between, refetch_ages, restated_days
from later_reporting_dagster.lake.coverage import FileRecord, to_table
from later_reporting_dagster.lake.tables import POSTS_NAMES
from later_reporting_dagster.quality.old_days import MAX_DAYS_PER_RUN, due_old_days

START, LOOKBACK_DAYS = date(2022, 1, 1), 28
AGES = refetch_ages(LOOKBACK_DAYS, 1.5, oldest=1_200)
DAY = timedelta(days=1)


def coverage(requested: Mapping[date, date | None], *, instance_id: str = "a", **fields: datetime) -> list[FileRecord]:
    """Return the records of files of an instance, each with the day on which it was last requested."""
    times = {day: at and datetime.combine(at, time(6), UTC) for day, at in requested.items()}
    return [
        FileRecord(name, day, instance_id, has_file=True, requested_at=at)._replace(**fields)
        for name in POSTS_NAMES
        for day, at in times.items()
    ]


def due(coverage: list[FileRecord], today: date, instances: Iterable[str] = ("a",)) -> list[date]:
    newest_old_day = restated_days(today - DAY, start_date=START, lookback_days=LOOKBACK_DAYS)[0] - DAY
    days = days_between(START, newest_old_day)
    return due_old_days(to_table(coverage), days, instances=[*instances], today=today, ages=AGES)


def simulate(fetched: dict[date, date], runs: Iterable[date]) -> dict[date, list[date]]:
    """Run the daily schedule on these days; update when each day was fetched, and return the old days of each run."""
    found = {}
    for today in runs:
        found[today] = due(coverage(fetched), today)
        requested = [*restated_days(today - DAY, start_date=START, lookback_days=LOOKBACK_DAYS), *found[today]]
        assert len(set(requested)) == len(requested)
        fetched.update(dict.fromkeys(requested, today))
    return found


def a_year(*, without: Iterable[date] = ()) -> list[date]:
    left_out = {*without}
    return [day for day in days_between(START + DAY, START + timedelta(days=360)) if day not in left_out]


def test_ages_grow_by_the_factor() -> None:
    assert AGES == [28, 42, 63, 94, 141, 212, 318, 477, 716, 1074]
    assert refetch_ages(1, 1.1, oldest=5) == [1, 2, 3, 4, 5]


def test_an_old_day_is_fetched_at_each_age_and_never_waits_longer_than_half_its_age() -> None:
    runs = simulate({}, a_year())
    ages = Counter((today - day).days for today, old in runs.items() for day in old)
    reached = [age for age in AGES if age < 360]
    assert [*sorted(ages)] == reached[1:]
    assert max(map(len, runs.values())) == len(reached) - 1


@settings(max_examples=4, deadline=None)
@given(st.sets(st.integers(60, 350), max_size=30), st.integers(60, 330))
def test_missed_runs_lose_no_age(single: set[int], week: int) -> None:
    missed = {START + timedelta(days=number) for number in {*single, *range(week, week + 7)}}
    fetched: dict[date, date] = {}
    runs = simulate(fetched, a_year(without=missed))
    last = max(runs)
    assert not simulate(fetched, [last])[last]
    for day, newest in fetched.items():
        reached = [age for age in AGES if age <= (last - day).days]
        assert not reached or (newest - day).days >= reached[-1]


def test_an_upgraded_lake_is_fetched_again_newest_day_first_some_days_a_run() -> None:
    today = START + timedelta(days=460)
    # Each day was last fetched before it became old, and possibly long before, because its content did not change.
    fetched = {day: min(day + timedelta(days=20), today - DAY) for day in days_between(START, today - DAY)}
    runs = simulate(fetched, days_between(today, today + timedelta(days=60)))
    first = today - timedelta(days=LOOKBACK_DAYS + 1)
    assert runs[today] == [first - timedelta(days=number) for number in range(MAX_DAYS_PER_RUN)]
    assert max(map(len, runs.values())) == MAX_DAYS_PER_RUN
    assert len([*runs.values()][-1]) < MAX_DAYS_PER_RUN


TODAY, OLD = date(2024, 5, 1), date(2024, 3, 1)


def test_a_file_whose_request_is_unknown_is_due_by_its_content() -> None:
    assert due(coverage({OLD: None}), TODAY) == [OLD]
    assert due(coverage({OLD: None}, fetched_at=datetime(2024, 4, 30, tzinfo=UTC)), TODAY) == []


def test_an_instance_that_is_no_longer_fetched_does_not_decide_and_days_that_failed_come_last() -> None:
    current, lagging = coverage({OLD: TODAY - DAY}), coverage({OLD: OLD + DAY}, instance_id="lagging")
    assert due(current + lagging, TODAY, ("a", "lagging")) == []
    assert due(lagging, TODAY, ("a", "lagging")) == [OLD]
    requested = {OLD: OLD + DAY, TODAY - DAY: TODAY - DAY}
    assert due(current + coverage(requested, instance_id="b"), TODAY, "ab") == [OLD]
    failed = coverage(requested, instance_id="b", failed_at=datetime(2024, 4, 30, tzinfo=UTC))
    before = coverage({OLD - DAY: OLD, TODAY - DAY: TODAY - DAY})
    assert due(before + failed, TODAY, "ab") == [OLD - DAY, OLD]
