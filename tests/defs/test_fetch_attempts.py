"""Which missing pairs the sensor requests, day by day, and the size of its cursor."""

from collections.abc import Collection, Mapping
from datetime import date, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.defs.automation import MAX_RANGES, MAX_WAIT_DAYS, Cursor, parse_cursor, plan_requests

FIRST, TODAY = date(2024, 1, 1), date(2024, 6, 1)
DAYS = days_between(FIRST, FIRST + timedelta(days=8))


def tick(missing: Mapping[str, Collection[date]], cursor: Cursor, today: date) -> tuple[dict[str, list[date]], Cursor]:
    """Return what a tick requests, and the cursor for the next one, as it is stored."""
    requested, after = plan_requests(missing, cursor, instances=missing, days_in_progress=(), today=today)
    return requested, parse_cursor(msgspec.json.encode(after).decode())


def test_pairs_are_requested_after_1_2_4_8_days_and_so_on() -> None:
    cursor, requested_after = Cursor(), []
    for after in range(130):
        requested, cursor = tick({"a": [FIRST]}, cursor, TODAY + timedelta(days=after))
        if requested:
            requested_after.append(after)
    waits = [after - before for before, after in zip(requested_after, requested_after[1:], strict=False)]
    assert waits == [1, 2, 4, 8, 16, *([MAX_WAIT_DAYS] * 3)]


@given(st.lists(st.dictionaries(st.sampled_from("ab"), st.sets(st.sampled_from(DAYS), min_size=1)), max_size=12))
def test_each_pair_waits_for_its_own_requests(missing_by_day: list[dict[str, set[date]]]) -> None:
    """Compare with a count for each pair. A pair that was not missing in between starts anew."""
    cursor = Cursor()
    counts: dict[tuple[str, date], tuple[int, date]] = {}
    for number, missing in enumerate(missing_by_day):
        today = TODAY + timedelta(days=number)
        pairs = {(name, day) for name, days in missing.items() for day in days}
        counts = {pair: count for pair, count in counts.items() if pair in pairs}
        due = {
            pair for pair in pairs if pair not in counts or (today - counts[pair][1]).days >= 2 ** (counts[pair][0] - 1)
        }
        counts |= {pair: (counts.get(pair, (0, today))[0] + 1, today) for pair in due}
        requested, cursor = tick(missing, cursor, today)
        assert {(name, day) for name, days in requested.items() for day in days} == due


def test_cursor_and_request_stay_small_if_every_other_day_is_missing() -> None:
    every_other = days_between(FIRST, FIRST + timedelta(days=1059))[::2]
    missing = {f"instance_{number:03}": every_other for number in range(200)}
    cursor, requested_before = Cursor(), set[tuple[str, date]]()
    for _ in range(4):
        requested, cursor = tick(missing, cursor, TODAY)
        pairs = {(name, day) for name, days in requested.items() for day in days}
        assert len(pairs) == MAX_RANGES
        assert not pairs & requested_before
        requested_before |= pairs
    assert len(cursor.attempts) <= MAX_RANGES
    assert len(msgspec.json.encode(cursor)) < 300_000


def test_new_instances_are_known_once_their_days_are_requested() -> None:
    missing, instances = {"a": [FIRST], "b": [DAYS[1]]}, ["a", "b", "complete"]
    requested, cursor = plan_requests(missing, Cursor(), instances=instances, days_in_progress={FIRST}, today=TODAY)
    assert requested == {"b": [DAYS[1]]}
    assert cursor.instances == ["b", "complete"]
