"""Which expected files are missing, and how a message names them."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.ingest.missing_files import describe_missing, missing_days
from later_reporting_dagster.lake import Partition

FIRST = date(2024, 3, 1)
DAYS = [FIRST + timedelta(days=offset) for offset in range(4)]


@given(
    st.sets(st.builds(Partition, st.sampled_from([*DAYS, FIRST - timedelta(days=1)]), st.sampled_from("abx"))),
    st.sets(st.sampled_from("abc")),
)
def test_missing_days_and_present_files_are_all_that_is_expected(present: set[Partition], instances: set[str]) -> None:
    missing = missing_days(DAYS, instances, present)
    pairs = [Partition(day, name) for name, days in missing.items() for day in days]
    expected = {Partition(day, name) for name in instances for day in DAYS}
    assert set(pairs) == expected - present
    assert len(pairs) == len(set(pairs))
    assert all(days == sorted(days) for days in missing.values())


def test_missing_days_of_a_table_with_one_file_a_day() -> None:
    assert missing_days(DAYS, [None], [Partition(DAYS[1])]) == {None: [DAYS[0], DAYS[2], DAYS[3]]}


def test_gaps_are_named_by_their_first_and_last_day_and_length() -> None:
    missing = {"a": [DAYS[0], DAYS[2], DAYS[3]], "b": [DAYS[2], DAYS[3]]}
    gaps = "2024-03-01 (1 day): a; 2024-03-03 to 2024-03-04 (2 days): a, b"
    assert describe_missing(missing, instances=3) == f"5 files are missing: {gaps}"
    assert describe_missing({None: DAYS[:1]}, instances=1) == "1 file is missing: 2024-03-01 (1 day)"
    assert describe_missing({}, instances=3) == ""
    many = dict.fromkeys(map(str, range(6)), DAYS[:2])
    assert describe_missing(many, instances=6).endswith("2024-03-01 to 2024-03-02 (2 days): all 6 instances")
    assert describe_missing(many, instances=200).endswith("(2 days): 6 of 200 instances")
    every_other = [FIRST + timedelta(days=2 * number) for number in range(50)]
    assert describe_missing({"a": every_other}, instances=1).endswith("2024-04-08 (1 day): a; 30 more gaps")
