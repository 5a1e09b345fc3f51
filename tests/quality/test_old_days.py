"""Which old days are fetched again, simulated over years of daily runs, and read from the lake."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.contract.days import days_between, refetch_ages, restated_days
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.fetch_records import FetchRecord
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, RAW_NAMES
from later_reporting_dagster.quality.coverage import recorded_fetches, refreshed_coverage, stored_and_expected_files
from later_reporting_dagster.quality.old_days import MAX_DAYS_PER_RUN, last_fetches, overdue_days

START, RESTATE_DAYS = date(2022, 1, 1), 28
AGES = refetch_ages(RESTATE_DAYS, 1.5, oldest=1_200)
DAY = timedelta(days=1)


def simulate(fetched: dict[date, date], runs: Iterable[date]) -> dict[date, list[date]]:
    """Run the daily schedule on these days; update when each day was fetched, and return the old days of each run."""
    found = {}
    for today in runs:
        restated = restated_days(today - DAY, start_date=START, restate_days=RESTATE_DAYS)
        old = {day: last for day, last in fetched.items() if day < restated[0]}
        found[today] = overdue_days(old, today=today, ages=AGES)
        requested = [*restated, *found[today]]
        assert len(set(requested)) == len(requested)
        fetched.update(dict.fromkeys(requested, today))
    return found


def three_years(*, without: Iterable[date] = ()) -> list[date]:
    left_out = {*without}
    return [day for day in days_between(START + DAY, START + timedelta(days=1_130)) if day not in left_out]


def test_ages_grow_by_the_factor() -> None:
    assert AGES == [28, 42, 63, 94, 141, 212, 318, 477, 716, 1074]
    assert refetch_ages(1, 1.1, oldest=5) == [1, 2, 3, 4, 5]


def test_an_old_day_is_fetched_at_each_age_and_never_waits_longer_than_half_its_age() -> None:
    runs = simulate({}, three_years())
    ages = Counter((today - day).days for today, old in runs.items() for day in old)
    assert [*sorted(ages)] == AGES[1:]
    assert max(map(len, runs.values())) == len(AGES) - 1


@settings(max_examples=8)
@given(st.sets(st.integers(100, 1_050), max_size=60), st.integers(100, 1_050))
def test_missed_runs_lose_no_age(single: set[int], week: int) -> None:
    missed = {START + timedelta(days=number) for number in {*single, *range(week, week + 7)}}
    fetched: dict[date, date] = {}
    runs = simulate(fetched, three_years(without=missed))
    last = max(runs)
    assert not simulate(fetched, [last])[last]
    for day, newest in fetched.items():
        reached = [age for age in AGES if age <= (last - day).days]
        assert not reached or (newest - day).days >= reached[-1]


def test_an_upgraded_lake_is_fetched_again_newest_day_first_some_days_a_run() -> None:
    today = START + timedelta(days=1_060)
    # Each day was last fetched before it became old, and possibly long before, because its content did not change.
    fetched = {day: min(day + timedelta(days=20), today - DAY) for day in days_between(START, today - DAY)}
    runs = simulate(fetched, days_between(today, today + timedelta(days=200)))
    first = today - timedelta(days=RESTATE_DAYS + 1)
    assert runs[today] == [first - timedelta(days=number) for number in range(MAX_DAYS_PER_RUN)]
    assert max(map(len, runs.values())) == MAX_DAYS_PER_RUN
    assert len([*runs.values()][-1]) < MAX_DAYS_PER_RUN


def test_days_that_failed_lately_come_last() -> None:
    days = days_between(START, START + timedelta(days=40))
    fetched = dict.fromkeys(days, START)
    overdue = overdue_days(fetched, failed=days[30:], today=START + timedelta(days=200), ages=AGES)
    assert overdue == [day for day in reversed(days[:30])][:MAX_DAYS_PER_RUN]
    assert overdue_days(dict.fromkeys(days[:2], START), failed=[days[1]], today=date(2022, 7, 1), ages=AGES) == days[:2]


# From the lake

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def write(lake: Lake, day: date, instance_id: str, *, at: datetime | None, tables: Iterable[str] = RAW_NAMES) -> None:
    metadata = {"fetched_at": at.isoformat(timespec="milliseconds")} if at else {}
    for name in tables:
        lake.write(name, Partition(day, instance_id), pa.table({"post_id": [1]}), metadata=metadata)


def record(lake: Lake, day: date, instance_id: str, *, at: datetime, error: str | None = None) -> None:
    for name in RAW_NAMES:
        records = lake.fetch_records.begin(name, now=at)
        file = lake.read_metadata(name, Partition(day, instance_id))
        assert file is not None
        records.add([FetchRecord(day, instance_id, at, content_hash=None if error else file.content_hash, error=error)])
        records.save()


def update_coverage(lake: Lake, *, today: date) -> None:
    files, expected = stored_and_expected_files(lake, DAYS, configured=["a", "b"], tables=RAW_NAMES)
    records, old_records = recorded_fetches(lake, today=today)
    lake.write_table(COVERAGE_TABLE, refreshed_coverage(lake, files, expected, records)[0])
    lake.fetch_records.remove(old_records)


def test_last_fetch_of_a_day_is_that_of_its_earliest_file_with_records_before_and_after_coverage(lake: Lake) -> None:
    assert last_fetches(lake, instances=["a", "b"]) == {}
    for day, name in ((day, name) for day in DAYS for name in "ab"):
        write(lake, day, name, at=NOON)
    update_coverage(lake, today=NOON.date())
    assert last_fetches(lake, instances=["a", "b"]) == dict.fromkeys(DAYS, NOON.date())
    later = NOON + DAY
    # Nothing has changed, so only the records show that responses came.
    record(lake, DAYS[0], "a", at=later)
    record(lake, DAYS[0], "b", at=later, error="503")
    assert last_fetches(lake, instances=["a", "b"])[DAYS[0]] == NOON.date()
    record(lake, DAYS[0], "b", at=later)
    expected = {DAYS[0]: later.date(), DAYS[1]: NOON.date()}
    assert last_fetches(lake, instances=["a", "b"]) == expected
    update_coverage(lake, today=later.date() + 9 * DAY)
    assert not lake.fetch_records.files(RAW_NAMES[0])
    assert last_fetches(lake, instances=["a", "b"]) == expected


def test_last_fetch_of_a_file_without_a_time_is_long_ago(lake: Lake) -> None:
    write(lake, DAYS[0], "a", at=NOON)
    write(lake, DAYS[1], "a", at=None, tables=RAW_NAMES[:1])
    update_coverage(lake, today=NOON.date())
    assert last_fetches(lake, instances=["a"]) == {DAYS[0]: NOON.date(), DAYS[1]: date(1970, 1, 1)}


def test_last_fetches_leave_out_instances_that_are_no_longer_fetched(lake: Lake) -> None:
    for day in DAYS:
        write(lake, day, "a", at=NOON)
        write(lake, day, "b", at=NOON - 3 * DAY)
    update_coverage(lake, today=NOON.date())
    assert last_fetches(lake, instances=["a", "b"]) == dict.fromkeys(DAYS, NOON.date())
    assert last_fetches(lake, instances=["b"]) == dict.fromkeys(DAYS, NOON.date() - 3 * DAY)
