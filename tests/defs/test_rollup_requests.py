"""When the sensor of rollups looks at the lake, and what it requests: cases of values, without Dagster."""

from collections.abc import Collection, Sequence
from datetime import date

import pytest

from later_reporting_dagster.defs.rollup_requests import DAY, HOUR, MINUTE, Attempts, Dagster, Seen, choose, wait
from later_reporting_dagster.quality.outdated import Outdated

DAILY, BY_CAMPAIGN = "organic_paid_daily", "organic_paid_daily_by_campaign"
WEEKLY, MONTHLY, WINDOW, REPORT = (
    "organic_paid_weekly",
    "organic_paid_monthly",
    "organic_paid_overall",
    "organic_paid_report",
)
LISTS = ["instances", "coverage"]
DEFINED = (*LISTS, DAILY, BY_CAMPAIGN, WEEKLY, MONTHLY, WINDOW, REPORT)
NOW = 1_700_000_000.0
LOOKED = Seen(event=7, looked=NOW - 10 * MINUTE)


def dagster(*, in_progress: Collection[str] = (), event: int = 7, now: float = NOW, due: float = NOW + HOUR) -> Dagster:
    return Dagster(in_progress=in_progress, event=event, now=now, due=due, patience=6 * HOUR)


def files(*names: str, inputs: str = "a") -> list[Outdated]:
    return [Outdated(name, date(2024, 3, 1) if name in DEFINED[2:6] else None, "missing", inputs) for name in names]


@pytest.mark.parametrize(
    ("seen", "at", "looks"),
    [
        (Seen(), dagster(), True),
        (LOOKED, dagster(), False),
        (LOOKED, dagster(event=8), True),
        (LOOKED, dagster(event=3), True),  # of another Dagster instance
        (LOOKED, dagster(now=NOW + 51 * MINUTE), True),
        (LOOKED, dagster(due=NOW), True),
        (LOOKED, dagster(event=8, in_progress={DAILY}), False),
        (Seen(event=7, looked=NOW, waits_since=NOW - 6 * HOUR), dagster(in_progress={DAILY}), True),
        (Seen(event=7, looked=NOW, waits_since=NOW - 5 * HOUR), dagster(in_progress={DAILY}), False),
        (Seen(event=7, looked=NOW, waits_since=NOW - MINUTE), dagster(), True),
        (Seen(event=7, looked=NOW, attempts={DAILY: Attempts("a", (NOW,))}), dagster(now=NOW + 4 * MINUTE), False),
        (Seen(event=7, looked=NOW, attempts={DAILY: Attempts("a", (NOW,))}), dagster(now=NOW + 5 * MINUTE), True),
    ],
)
def test_sensor_looks_after_an_event_a_run_an_hour_or_to_repeat(seen: Seen, at: Dagster, looks: bool) -> None:
    assert (wait(seen, at) is None) is looks


@pytest.mark.parametrize(
    ("seen", "found", "at", "runs"),
    [
        (LOOKED, [], dagster(event=8), []),
        (
            LOOKED,
            [DAILY, BY_CAMPAIGN, WEEKLY, MONTHLY, WINDOW],
            dagster(event=8),
            [[DAILY, BY_CAMPAIGN], [WEEKLY], [MONTHLY]],
        ),
        (LOOKED, [WINDOW], dagster(), [[WINDOW, *LISTS, REPORT]]),
        (LOOKED, [], dagster(due=NOW), [[*LISTS, REPORT]]),
        (Seen(event=7, looked=NOW, waits_since=NOW, lists_follow=True), [], dagster(), [[*LISTS, REPORT]]),
        (LOOKED, [DAILY, WINDOW], dagster(in_progress={DAILY}), [[WINDOW, *LISTS, REPORT]]),
        (
            LOOKED,
            [DAILY, WEEKLY, WINDOW],
            dagster(in_progress={WEEKLY, "coverage"}),
            [[DAILY], [WINDOW, "instances", REPORT]],
        ),
    ],
)
def test_requests(seen: Seen, found: Sequence[str], at: Dagster, runs: list[list[str]]) -> None:
    assert choose(seen, files(*found), at, defined=DEFINED).runs == runs


def test_what_fails_is_repeated_step_by_step_after_5_and_60_minutes_three_times_a_day() -> None:
    seen, requested = Seen(event=7), {}
    outdated = files(DAILY, BY_CAMPAIGN)
    for minute in range(0, 26 * 60, 5):
        at = dagster(now=NOW + minute * MINUTE, due=NOW + 9 * DAY)
        if wait(seen, at) is None:
            chosen = choose(seen, outdated, at, defined=DEFINED)
            seen = chosen.seen
            if chosen.runs:
                requested[minute] = chosen.runs
    apart = [[DAILY], [BY_CAMPAIGN]]
    assert requested == {0: [[DAILY, BY_CAMPAIGN]], 5: apart, 65: apart, 1440: apart, 1500: apart}
    assert choose(seen, files(DAILY, inputs="b"), at, defined=DEFINED).runs == [[DAILY]]
