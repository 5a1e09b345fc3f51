"""Tests of retry waits: they outlast a window of the rate limit, and end."""

import pytest

from later_reporting_dagster.client import RetryPolicy


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_default_waits_add_up_to_more_than_a_minute(jitter):
    policy = RetryPolicy()
    waits = [policy.wait_after(attempt, requested_wait=None, jitter=jitter) for attempt in range(1, 9)]
    assert waits[-1] is None
    assert 61.2 < sum(waits[:-1]) < 93


def test_backoff_doubles_up_to_its_limit_and_jitter_lengthens_it():
    policy = RetryPolicy(max_attempts=2000)
    waits = [policy.wait_after(attempt, requested_wait=None, jitter=0.0) for attempt in (1, 2, 3, 6, 7, 1999)]
    assert waits == [0.5, 1, 2, 16, 30, 30]
    assert policy.wait_after(1, requested_wait=None, jitter=1.0) == 0.75


def test_requested_wait_lengthens_but_never_shortens_the_backoff():
    policy = RetryPolicy()
    assert policy.wait_after(1, requested_wait=17.0, jitter=0.0) == 17
    assert policy.wait_after(7, requested_wait=1.0, jitter=0.0) == 30


@pytest.mark.parametrize(
    ("attempts", "waits"), [(2, [60]), (4, [15, 30, 60]), (8, [60 / 64, 60 / 32, 3.75, 7.5, 15, 30, 60])]
)
def test_default_rate_limit_wait_covers_the_window_before_the_last_attempt(attempts, waits):
    policy = RetryPolicy(max_attempts=attempts)
    assert [policy.default_rate_limit_wait(attempt, window_seconds=60) for attempt in range(1, attempts)] == waits


def test_no_default_rate_limit_wait_is_long_enough_to_give_up():
    policy = RetryPolicy()
    waits = [policy.default_rate_limit_wait(attempt, window_seconds=3600) for attempt in range(1, policy.max_attempts)]
    assert waits == [3600 / 64, 3600 / 32, 3600 / 16, 300, 300, 300, 300]
    assert None not in [
        policy.wait_after(attempt, requested_wait=wait, jitter=0.0) for attempt, wait in enumerate(waits, start=1)
    ]


def test_policy_gives_up_if_the_requested_wait_is_too_long():
    policy = RetryPolicy(max_wait_seconds=300)
    assert policy.wait_after(1, requested_wait=300.0, jitter=0.0) == 300
    assert policy.wait_after(1, requested_wait=301.0, jitter=0.0) is None
