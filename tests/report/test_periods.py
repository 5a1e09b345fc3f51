"""Periods are made of whole spans, and so is the one before each."""

import pytest

from later_reporting_dagster.report.periods import (
    MAXIMUM_DAYS,
    PERIODS,
    default_period,
    span_of,
    spans_before,
    spans_of,
)


@pytest.mark.parametrize("days", PERIODS)
def test_a_period_and_the_one_before_it_are_whole_spans(days: int) -> None:
    ages = range(MAXIMUM_DAYS)
    assert [age for age in ages if span_of(age) in spans_of(days)] == [*range(days)]
    assert [age for age in ages if span_of(age) in spans_before(days)] == [*range(days, 2 * days)]


@pytest.mark.parametrize(("days", "period"), [(1, 7), (14, 7), (55, 7), (56, 28), (730, 28)])
def test_a_report_opens_with_four_weeks_once_there_are_eight(days: int, period: int) -> None:
    assert default_period(days) == period
