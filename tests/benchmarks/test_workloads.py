"""Each workload of the benchmarks runs, with tiny sizes."""

from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.__main__ import WORKLOADS
from benchmarks.completeness import completeness
from benchmarks.markdown_table import Table
from benchmarks.serving import serving
from benchmarks.windows import windows_workload
from benchmarks.workloads import automation, backfill, cursor, large, loading, rate, year

TINY: dict[str, Callable[[], Table]] = {
    "year": partial(year, days=2, latencies=(0.0,), rounds=1),
    "backfill": partial(backfill, days=2),
    "automation": partial(automation, instances=2, days=20, written_days=3),
    "large": partial(large, sizes=((2, 1, 120),)),
    "cursor": partial(cursor, sizes=((0.0, 2),)),
    "completeness": partial(completeness, days=4, changes=2, pages=2),
    "rate": partial(rate, short=(4, 4, 0.5), real=(4, 4, 0.5)),
    "windows": partial(windows_workload, shapes=[(1_000, 1.5, 30, 1.4)], days=4, rounds=1),
    "serving": partial(serving, lakes=((2, 30),), rounds=1),
    "loading": partial(loading, loads=1),
}


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.e2e
def test_workload_runs(name: str) -> None:
    assert TINY[name]().rows
