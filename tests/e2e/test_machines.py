"""Four machines, two of them Celery workers, share one rate limit through a real Redis server."""

import pytest

from benchmarks.machines import DAYS_OF_A_MACHINE, KILLED, MACHINES, run_machines
from tests.services import running_redis

pytestmark = pytest.mark.services

# More than the 1 % of the benchmark, because a test makes few requests, and CI runs other tests on the same cores: a
# process that gets no core for half a second sends too late. Without a shared store, about 30 % are refused.
MAX_REFUSED_PERCENT = 2


def test_machines_share_one_limit_write_the_truth_and_none_starves_although_one_is_killed() -> None:
    with running_redis() as redis:
        result = run_machines(redis, broker=redis, days=DAYS_OF_A_MACHINE, kill=True)
    assert result.differences == []
    assert result.refused_percent <= MAX_REFUSED_PERCENT
    survivors = [machine for machine in range(len(MACHINES)) if machine != KILLED]
    smallest_share, _ = result.fairness(machines=survivors)
    assert smallest_share >= 100 / len(survivors) / 2
