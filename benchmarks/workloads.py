"""Workloads that fetch posts from a sandbox by the library, Dagster and scripts, and the loading of the definitions."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from math import ceil
from typing import Any

from benchmarks.in_dagster import DEFAULT_REQUESTS_PER_MINUTE
from benchmarks.markdown_table import Table
from benchmarks.measure import measure
from benchmarks.measurement import TABLE_NAMES, Measurement, PartitionRange
from benchmarks.sandbox_server import Sandbox, running_sandbox_process

YEAR, ROUNDS = 365, 3
MAX_RATIO, MAX_RATIO_OF_MACHINES, MAX_REJECTED_PERCENT = 1.2, 2.0, 2

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def newest_partitions(days: int, instances: Sequence[int]) -> PartitionRange:
    """Return the newest days of some instances, given by number."""
    return PartitionRange(
        start=YESTERDAY - timedelta(days=days - 1),
        end=YESTERDAY,
        instance_ids=tuple(f"instance_{number:03}" for number in instances),
    )


def eight_instances(first_day: Any) -> dict[str, Any]:
    """Return the options of a world with 8 instances and 20 posts a day."""
    return {"first_day": first_day, "last_day": YESTERDAY, "instances": 8, "posts_per_day": 20}


def loading(*, loads: int = 5) -> Table:
    """Time to import the definitions, compared with `import dagster`."""
    statements = {
        "import dagster": "import dagster",
        "import later_reporting_dagster.definitions": "import later_reporting_dagster.definitions",
        "the same, resolved as by a code server": (
            "from later_reporting_dagster.definitions import defs; defs.get_repository_def()"
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(loads):
        for name, statement in statements.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return Table(
        title=f"Loading, median of {loads} processes",
        columns=("process", "wall s", "/ import dagster"),
        rows=[(name, seconds, seconds / medians["import dagster"]) for name, seconds in medians.items()],
    )


Limited = tuple[int, int, float]
"""Days to fetch, and the requests and the seconds of the rate limit."""


def rate(*, short: Limited = (255, 40, 5.0), real: Limited = (120, DEFAULT_REQUESTS_PER_MINUTE, 60.0)) -> Table:
    """Wall time under a rate limit, by several processes and machines, compared with the smallest possible time.

    Args:
        short: A limit with so short a window that a fetch takes many.
        real: The limit of the API.
    """
    rows: list[tuple[object, ...]] = []
    failures = []
    for method, machines, processes, (days, limit, window) in (
        ("library, paced", 1, 1, short),
        ("library, paced", 1, 2, short),
        ("library, paced", 1, 4, short),
        ("library, paced", 2, 2, short),
        ("library, paced", 1, 1, real),
        ("Dagster, paced", 1, 1, real),
    ):
        world = eight_instances(YESTERDAY - timedelta(days=days + 30))
        ranges = [newest_partitions(days, range(first, 8, processes)) for first in range(processes)]
        with running_sandbox_process(**world, requests=limit, window=window) as sandbox:
            result = measure(method, *ranges, sandbox=sandbox, date_basis="post_date", machines=machines)
        least = (ceil((result.requests - result.rejected) / limit) - 1) * window
        ratio, rejected = result.seconds / least, 100 * result.rejected / result.requests
        what = (method, machines, processes, f"{limit} in {window:g} s", days)
        rows.append((*what, result.requests, result.seconds, least, ratio, rejected))
        if ratio > (MAX_RATIO if machines == 1 else MAX_RATIO_OF_MACHINES):
            failures.append(f"rate, {method}, {machines} machines, {processes} processes: {ratio:.2f} / least")
        if machines == 1 and rejected > MAX_REJECTED_PERCENT:
            failures.append(f"rate, {method}, {processes} processes: {rejected:.1f} % rejected")
    return Table(
        title="posts_published under the rate limit, 8 instances × 20 posts a day",
        columns=(
            *("by", "machines", "processes", "limit", "days", "requests"),
            *("wall s", "least s", "/ least", "rejected %"),
        ),
        rows=rows,
        note="The limit is a sliding window: all requests of the first window can start at once, and all those of the"
        " last window can start when that window begins. The least time is therefore (⌈requests / limit⌉ - 1) windows,"
        " without those that are rejected. A machine is a cache folder. The wall time of Dagster includes imports and"
        f" the start of the run. Goals: / least ≤ {MAX_RATIO}, on two machines ≤ {MAX_RATIO_OF_MACHINES}; on one,"
        f" rejected ≤ {MAX_REJECTED_PERCENT} %.",
        failures=failures,
    )


def cursor(*, sizes: Sequence[tuple[float, int]] = ((0.0, YEAR), (0.08, 120))) -> Table:
    """Requests, time and memory of the cursor version, compared with the paged version.

    Args:
        sizes: Latencies in seconds, and the days for each. With latency, fewer suffice to show the cost of a page.
    """
    rows = []
    for latency, days in sizes:
        partitions = newest_partitions(days, range(8))
        world = eight_instances(partitions.start - timedelta(days=30))
        for date_basis, table in TABLE_NAMES.items():
            with running_sandbox_process(**world, latency=latency) as sandbox:
                least = sandbox.least([partitions], date_basis=date_basis)
                paged = measure("library", partitions, sandbox=sandbox, date_basis=date_basis)
            with running_sandbox_process(**world, latency=latency, api_version="cursor") as sandbox:
                result = measure("library, by cursor", partitions, sandbox=sandbox, date_basis=date_basis)
            for name, each in (("numbered pages", paged), ("cursor", result)):
                assert each.rows == least.rows, f"{name}: {each.rows} rows of {least.rows} written"
                ratio = f"{each.requests / least.requests:.3f}"
                compared = (each.seconds, each.seconds / paged.seconds, f"{each.peak_megabytes:.0f}")
                rows.append((table, days, f"{latency * 1000:.0f}", name, each.requests, ratio, *compared))
    return Table(
        title="By cursor, compared with numbered pages: days × 8 instances × 20 posts a day",
        columns=("table", "days", "latency ms", "by", "requests", "/ least", "wall s", "/ numbered", "peak MB"),
        rows=rows,
        note="The least is that of full pages and the fewest queries. By cursor, a page is needed to request the next:"
        " days are split into several queries that run at once, and the last page of each is seldom full.",
    )


def large(*, sizes: Sequence[tuple[int, int, int]] = ((1, 1, 124_000), (730, 8, 17), (730, 8, 86))) -> Table:
    """Requests and peak memory for more posts than one query can return, and for two years.

    Args:
        sizes: Days, instances, and posts of an instance a day.
    """
    rows = []
    for days, instances, posts_per_day in sizes:
        partitions = newest_partitions(days, range(instances))
        with running_sandbox_process(
            first_day=partitions.start, last_day=YESTERDAY, instances=instances, posts_per_day=posts_per_day
        ) as sandbox:
            least = sandbox.least([partitions], date_basis="post_date").requests
            result = measure("library", partitions, sandbox=sandbox, date_basis="post_date")
        ratio, megabytes = f"{result.requests / least:.3f}", f"{result.peak_megabytes:.0f}"
        rows.append((days, instances, result.rows, result.requests, ratio, megabytes))
    return Table(
        title="Large responses, written by the library",
        columns=("days", "instances", "rows", "requests", "/ least", "peak MB"),
        rows=rows,
    )


def backfill(*, days: int = YEAR) -> Table:
    """Requests, wall time and events of a backfill as launched by the Dagster UI."""
    rows = []
    partitions = newest_partitions(days, range(8))
    world = eight_instances(partitions.start - timedelta(days=30))
    with running_sandbox_process(**world) as sandbox:
        for date_basis, table in TABLE_NAMES.items():
            least = sandbox.least([partitions], date_basis=date_basis)
            result = measure("Dagster backfill", partitions, sandbox=sandbox, date_basis=date_basis)
            assert result.rows == least.rows, f"{result.rows} rows of {least.rows} written"
            ratio = f"{result.requests / least.requests:.3f}"
            requests = (result.runs, result.requests, least.requests, ratio)
            events = f"{result.events / days:.2f}"
            rows.append((table, days, *requests, result.seconds, events))
    return Table(
        title="A backfill from the UI, 8 instances × 20 posts a day",
        columns=("table", "days", "runs", "requests", "least", "/ least", "wall s", "events a day"),
        rows=rows,
        note="The wall time is from the start of Dagster's daemon, with its default settings, to the end of the last"
        " run. Automation of other assets runs at the same time; its requests are included.",
    )


def automation(*, instances: int = 200, days: int = 1060, written_days: int = 28) -> Table:
    """CPU time of ticks of the sensor of rollups with many instances and days."""
    partitions, written = (newest_partitions(number, range(instances)) for number in (days, written_days))
    first_day = written.start - timedelta(days=30)
    with (
        running_sandbox_process(
            first_day=first_day, last_day=YESTERDAY, instances=instances, posts_per_day=1
        ) as sandbox,
        tempfile.TemporaryDirectory() as root,
    ):
        measure("home", written, sandbox=sandbox, date_basis="post_date", root=root)
        result = measure("ticks", partitions, sandbox=sandbox, date_basis="post_date", root=root)
    rows = [(f"tick, {name}", seconds, f"{result.peak_megabytes:.0f}") for name, seconds in result.ticks.items()]
    return Table(
        title=f"{instances} instances × {days:,} days, {written_days} days written",
        columns=("what", "s", "peak MB"),
        rows=rows,
        note="The ticks run in a process that does nothing else; idle is the median of several.",
    )


def year(*, days: int = YEAR, latencies: Sequence[float] = (0.0, 0.08), rounds: int = ROUNDS) -> Table:
    """Requests, time and memory for a year, by each method."""
    scripts = ["plain script", "dlt rest_api"]
    if is_without_dlt := find_spec("dlt") is None:
        scripts.remove("dlt rest_api")
    partitions = newest_partitions(days, range(8))
    rows: list[tuple[object, ...]] = []
    for latency in latencies:
        world = eight_instances(partitions.start - timedelta(days=30))
        with running_sandbox_process(**world, latency=latency) as sandbox:
            for date_basis in TABLE_NAMES:
                rows += _rows_of_year(
                    sandbox, partitions, scripts=scripts, latency=latency, date_basis=date_basis, rounds=rounds
                )
    return Table(
        title=f"{days} days × 8 instances × 20 posts a day, by each method",
        columns=(
            *("table", "latency ms", "by", "requests", "/ least", "wall s", "/ plain", "/ library", "CPU s", "peak MB"),
            *("less one day's run, / library", "s before the run starts"),
        ),
        rows=rows,
        note="Plain script is the shortest script that makes the fewest requests and writes the same files, with"
        " asyncio and httpx. It has no verification, retries or rate limit. dlt rest_api is dlt's source, configured as"
        " in its documentation, with one query over all instances per month or day. It writes one table without"
        " partitions. Less one day's run subtracts a run of a single day."
        f" Library and Dagster are medians of {rounds} rounds in which they take turns."
        + " dlt is not installed: `pip install dlt` adds its rows."
        * is_without_dlt,
    )


def _rows_of_year(
    sandbox: Sandbox,
    partitions: PartitionRange,
    *,
    scripts: Sequence[str],
    latency: float,
    date_basis: str,
    rounds: int,
) -> list[tuple[object, ...]]:
    """Measure all methods for one table and latency."""
    one_day = newest_partitions(1, range(8))
    least = sandbox.least([partitions], date_basis=date_basis)
    results = {method: measure(method, partitions, sandbox=sandbox, date_basis=date_basis) for method in scripts}
    library, dagster, without_start = [], [], []
    for _ in range(rounds):
        library.append(measure("library", partitions, sandbox=sandbox, date_basis=date_basis))
        dagster.append(measure("Dagster", partitions, sandbox=sandbox, date_basis=date_basis))
        start_seconds = measure("Dagster", one_day, sandbox=sandbox, date_basis=date_basis).seconds
        without_start.append((dagster[-1].seconds - start_seconds) / library[-1].seconds)
    results["library"], results["Dagster"] = _median(library), _median(dagster)
    rows: list[tuple[object, ...]] = []
    for method, result in results.items():
        assert result.rows == least.rows, f"{method}: {result.rows} rows of {least.rows} written"
        only_dagster: tuple[object, object] = ("", "")
        if method == "Dagster":
            only_dagster = (statistics.median(without_start), result.creating_seconds)
        rows.append(
            (
                *(TABLE_NAMES[date_basis], f"{latency * 1000:.0f}", method),
                *(result.requests, f"{result.requests / least.requests:.3f}", result.seconds),
                *(result.seconds / results[other].seconds for other in ("plain script", "library")),
                *(result.cpu_seconds, f"{result.peak_megabytes:.0f}", *only_dagster),
            )
        )
    return rows


def _median(results: Sequence[Measurement]) -> Measurement:
    """Return the measurement with the median wall time."""
    return sorted(results, key=lambda result: result.seconds)[len(results) // 2]
