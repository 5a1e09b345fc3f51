"""Runs the workloads against the sandbox in its own process, and prints one table. `make bench`."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import ceil

import httpx

from tests.bench.land import SOURCES
from tests.bench.workload import Box, Figures

DAYS, INSTANCES, POSTS_PER_DAY = 365, 8, 20
LATENCIES_SECONDS = (0.0, 0.08)


@contextmanager
def sandbox(*, latency: float) -> Iterator[str]:
    """A sandbox in a process of its own, without a rate limit to speak of."""
    options = ["--port", "0", "--instances", str(INSTANCES), "--posts-per-day", str(POSTS_PER_DAY)]
    limits = ["--latency", str(latency), "--requests-per-window", str(10**9)]
    command = [sys.executable, "-m", "later_reporting_dagster.cli", "sandbox", *options, *limits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield next(line.partition("=")[2].strip() for line in server.stdout if "LATER_BASE_URL=" in line)
        finally:
            server.terminate()


def landed(means: str, box: Box, *, base_url: str, date_basis: str) -> Figures:
    """The figures of a fresh process that lands the box into an empty folder."""
    with tempfile.TemporaryDirectory() as root:
        arguments = [means, base_url, date_basis, root, str(box.start), str(box.end), ",".join(box.instance_ids)]
        command = [sys.executable, "-m", "tests.bench.land", *arguments]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Figures(**json.loads(output.splitlines()[-1]))


def least_requests(box: Box, *, base_url: str, date_basis: str) -> int:
    """The fewest data requests that hold all rows of the box, by the service's own totals."""
    days = [box.start + timedelta(days=offset) for offset in range((box.end - box.start).days + 1)]
    ranges = [(box.start, box.end)] if date_basis == "post_date" else [(day, day) for day in days]
    with httpx.Client(base_url=base_url) as client:
        token = client.post("/oauth/token", json=dict(box.credentials)).json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"
        totals = [
            client.get(
                "/v2/posts/performance",
                params={
                    "startDate": str(start),
                    "endDate": str(end),
                    "dateBasis": date_basis,
                    "instanceIds": list(box.instance_ids),
                    "pageSize": 1,
                },
            ).json()["pagination"]["totalItems"]
            for start, end in ranges
        ]
    return sum(max(1, ceil(total / 100)) for total in totals)


def main() -> None:
    """Measures, and prints Markdown."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    box = Box(
        start=yesterday - timedelta(days=DAYS - 1),
        end=yesterday,
        instance_ids=tuple(f"instance_{index:03}" for index in range(INSTANCES)),
    )
    print(f"{DAYS} days × {INSTANCES} instances × {POSTS_PER_DAY} posts a day.\n")
    print(
        "| asset | latency ms | by | requests | requests / least | rows | wall s | / plain | CPU s | / plain | peak MB |"
    )
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for latency in LATENCIES_SECONDS:
        with sandbox(latency=latency) as base_url:
            for date_basis, asset in SOURCES.items():
                least = least_requests(box, base_url=base_url, date_basis=date_basis)
                plain = landed("plain", box, base_url=base_url, date_basis=date_basis)
                for means in ("plain", "library", "dagster"):
                    figures = (
                        plain if means == "plain" else landed(means, box, base_url=base_url, date_basis=date_basis)
                    )
                    print(
                        f"| {asset} | {latency * 1000:.0f} | {means} | {figures.requests}"
                        f" | {figures.requests / least:.3f} | {figures.rows}"
                        f" | {figures.seconds:.1f} | {figures.seconds / plain.seconds:.2f}"
                        f" | {figures.cpu_seconds:.1f} | {figures.cpu_seconds / plain.cpu_seconds:.2f}"
                        f" | {figures.peak_megabytes:.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
