"""Retries outlast a window of the rate limit, and end."""

import pytest

from later_reporting_dagster.client import RetryPolicy


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_by_default_the_waits_outlast_a_window_of_a_minute(jitter):
    policy = RetryPolicy()
    waits = [policy.wait_after(attempt, asked_for=None, jitter=jitter) for attempt in range(1, 9)]
    assert waits[-1] is None
    assert 61.2 < sum(waits[:-1]) < 93


def test_the_waits_double_up_to_a_bound_and_jitter_only_lengthens_them():
    policy = RetryPolicy(attempts=2000)
    waits = [policy.wait_after(attempt, asked_for=None, jitter=0.0) for attempt in (1, 2, 3, 6, 7, 1999)]
    assert waits == [0.5, 1, 2, 16, 30, 30]
    assert policy.wait_after(1, asked_for=None, jitter=1.0) == 0.75


def test_the_service_may_ask_for_more_but_not_for_less():
    policy = RetryPolicy()
    assert policy.wait_after(1, asked_for=17.0, jitter=0.0) == 17
    assert policy.wait_after(7, asked_for=1.0, jitter=0.0) == 30


@pytest.mark.parametrize(
    ("attempts", "waits"), [(2, [60]), (4, [15, 30, 60]), (8, [60 / 64, 60 / 32, 3.75, 7.5, 15, 30, 60])]
)
def test_a_refusal_without_a_wait_waits_out_the_window_before_the_last_attempt(attempts, waits):
    policy = RetryPolicy(attempts=attempts)
    assert [policy.unsaid_wait_after(attempt, window_seconds=60) for attempt in range(1, attempts)] == waits


def test_it_gives_up_when_the_service_asks_for_too_much():
    policy = RetryPolicy(longest_wait_seconds=300)
    assert policy.wait_after(1, asked_for=300.0, jitter=0.0) == 300
    assert policy.wait_after(1, asked_for=301.0, jitter=0.0) is None
