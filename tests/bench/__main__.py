"""Runs the workloads against the sandbox in its own process, and prints one table. `make bench`."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from math import ceil

import httpx

from tests.bench.workload import CREDENTIALS, SOURCES, Box, Figures

LATENCIES_SECONDS = (0.0, 0.08)
LIMIT, WINDOW_SECONDS = 40, 5.0
LOADS = 5

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@contextmanager
def sandbox(*, first_day: date, instances: int, posts_per_day: int, **options: float) -> Iterator[str]:
    """A sandbox in a process of its own; gives its base URL."""
    command = [sys.executable, "-m", "tests.bench.serve", "--first-day", str(first_day), "--last-day", str(YESTERDAY)]
    command += ["--instances", str(instances), "--posts-per-day", str(posts_per_day)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def box_of(days: int, instances: Sequence[int]) -> Box:
    """The newest days × instances, by number."""
    return Box(
        start=YESTERDAY - timedelta(days=days - 1),
        end=YESTERDAY,
        instance_ids=tuple(f"instance_{number:03}" for number in instances),
    )


@contextmanager
def landing(
    means: str, box: Box, *, base_url: str, date_basis: str, cache: str | None = None
) -> Iterator[list[Figures]]:
    """Starts a fresh process that lands the box into an empty folder; its figures are there when the block ends."""
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as root:
        arguments = [means, base_url, date_basis, root, str(box.start), str(box.end), ",".join(box.instance_ids)]
        command = [sys.executable, "-m", "tests.bench.land", *arguments]
        environment = os.environ | ({"XDG_CACHE_HOME": cache} if cache else {})
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
            yield figures
            output, _ = child.communicate()
        if child.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
        figures.append(Figures(**json.loads(output.splitlines()[-1])))


def landed(means: str, box: Box, *, base_url: str, date_basis: str) -> Figures:
    """The figures of one such process."""
    with landing(means, box, base_url=base_url, date_basis=date_basis) as figures:
        pass
    return figures[0]


def totals(ranges: Sequence[tuple[date, date]], box: Box, *, base_url: str, date_basis: str) -> list[int]:
    """How many rows each range of days has, by the service's own totals."""
    with httpx.Client(base_url=base_url, timeout=60) as client:
        token = client.post("/oauth/token", json=CREDENTIALS).json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"
        answers = [
            client.get(
                "/v2/posts/performance",
                params={
                    "startDate": str(start),
                    "endDate": str(end),
                    "dateBasis": date_basis,
                    "instanceIds": list(box.instance_ids),
                    "pageSize": 1,
                },
            )
            for start, end in ranges
        ]
    return [answer.json()["pagination"]["totalItems"] for answer in answers]


def least_requests(box: Box, *, base_url: str, date_basis: str) -> int:
    """The fewest data requests that hold all rows of the box: full pages of the fewest queries."""
    ranges = [(box.start, box.end)] if date_basis == "post_date" else [(day, day) for day in box.days]
    return sum(max(1, ceil(total / 100)) for total in totals(ranges, box, base_url=base_url, date_basis=date_basis))


def row(*cells: object) -> None:
    """Prints one row of a table."""
    shown = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
    print(f"| {' | '.join(shown)} |", flush=True)


def heading(title: str, *columns: str) -> None:
    """Begins a table."""
    print(f"\n## {title}\n")
    row(*columns)
    row(*["---"] * len(columns))


def year() -> None:
    """A year by each means, side by side."""
    box = box_of(365, range(8))
    heading(
        f"365 days × 8 instances × 20 posts a day: {len(box.days) * 8} partitions",
        *("table", "latency ms", "by", "requests", "/ least", "wall s", "/ plain", "CPU s", "/ plain", "peak MB"),
        "ms a partition over the library",
    )
    for latency in LATENCIES_SECONDS:
        with sandbox(first_day=box.start - timedelta(days=30), instances=8, posts_per_day=20, latency=latency) as url:
            for date_basis, table in SOURCES.items():
                least = least_requests(box, base_url=url, date_basis=date_basis)
                by = {
                    means: landed(means, box, base_url=url, date_basis=date_basis)
                    for means in ("plain script", "library", "Dagster range run")
                }
                yardstick = by["plain script"]
                for means, found in by.items():
                    over = (found.seconds - by["library"].seconds) / (len(box.days) * 8) * 1000
                    row(
                        *(table, f"{latency * 1000:.0f}", means, found.requests, f"{found.requests / least:.3f}"),
                        *(found.seconds, found.seconds / yardstick.seconds),
                        *(found.cpu_seconds, found.cpu_seconds / yardstick.cpu_seconds, f"{found.peak_megabytes:.0f}"),
                        f"{over:.1f}" if means.startswith("Dagster") else "",
                    )


def rate() -> None:
    """A service that limits, asked by one process and by two at once."""
    heading(
        f"A service that allows {LIMIT} requests in {WINDOW_SECONDS:g} s",
        *("processes", "requests", "wall s", "least s", "/ least", "refused %"),
    )
    for shares in ([range(8)], [range(4), range(4, 8)]):
        with (
            tempfile.TemporaryDirectory() as cache,
            sandbox(
                first_day=YESTERDAY - timedelta(days=400),
                instances=8,
                posts_per_day=20,
                requests=LIMIT,
                window=WINDOW_SECONDS,
            ) as url,
        ):
            children = [
                landing("library, paced", box_of(255, share), base_url=url, date_basis="post_date", cache=cache)
                for share in shares
            ]
            figures = [child.__enter__() for child in children]
            for child in children:
                child.__exit__(None, None, None)
        seconds = max(found[0].seconds for found in figures)
        requests = sum(found[0].requests + found[0].refused for found in figures)
        refused = sum(found[0].refused for found in figures)
        # The last window's requests may all start at its beginning.
        least = (ceil(requests / LIMIT) - 1) * WINDOW_SECONDS
        row(len(shares), requests, seconds, least, seconds / least, 100 * refused / requests)


def large() -> None:
    """A day that no single query reaches, and memory that must not grow with the range."""
    heading("Large answers", "workload", "rows", "requests", "/ least", "peak MB")
    with sandbox(first_day=YESTERDAY, instances=1, posts_per_day=124_000) as url:
        box = box_of(1, [0])
        least = least_requests(box, base_url=url, date_basis="post_date")
        found = landed("library", box, base_url=url, date_basis="post_date")
        row(
            "one day of one instance", found.rows, found.requests, found.requests / least, f"{found.peak_megabytes:.0f}"
        )
    for posts_per_day in (17, 86):
        with sandbox(first_day=YESTERDAY - timedelta(days=729), instances=8, posts_per_day=posts_per_day) as url:
            box = box_of(730, range(8))
            least = least_requests(box, base_url=url, date_basis="post_date")
            found = landed("library", box, base_url=url, date_basis="post_date")
            row(
                "two years of 8 instances",
                found.rows,
                found.requests,
                found.requests / least,
                f"{found.peak_megabytes:.0f}",
            )


def scattered() -> None:
    """Cells here and there."""
    heading("60 random cells of 30 days × 8 instances", "table", "requests", "one query a cell", "fewer by")
    box = box_of(30, range(8))
    with sandbox(first_day=YESTERDAY - timedelta(days=60), instances=8, posts_per_day=20) as url:
        for date_basis, table in SOURCES.items():
            found = landed("library, scattered", box, base_url=url, date_basis=date_basis)
            row(table, found.requests - 1, found.one_by_one, f"{1 - (found.requests - 1) / found.one_by_one:.0%}")


def loading() -> None:
    """How long the code location takes to load, beside Dagster itself."""
    heading(f"Loading, median of {LOADS} processes", "import", "wall s", "/ import dagster")
    modules = ("dagster", "later_reporting_dagster.definitions")
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(LOADS):
        for module in modules:
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            times[module].append(time.perf_counter() - started)
    for module in modules:
        seconds = statistics.median(times[module])
        row(module, seconds, seconds / statistics.median(times["dagster"]))


def rollup() -> None:
    """Ten million raw rows."""
    heading("organic_paid_daily", "rows", "wall s", "bare group_by s", "/ bare", "peak MB")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "tests.bench.rollup"], check=True)


WORKLOADS = {
    "loading": loading,
    "rollup": rollup,
    "scattered": scattered,
    "large": large,
    "rate": rate,
    "year": year,
}


def main(names: Sequence[str]) -> None:
    """Runs the named workloads, or all."""
    for name in names or WORKLOADS:
        WORKLOADS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
