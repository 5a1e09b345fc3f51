"""Runs the workloads against the sandbox in its own process, and prints a table of each. `make bench`."""

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.compaction import compaction
from tests.bench.files import files
from tests.bench.land import landed
from tests.bench.rollup import RollupFigures
from tests.bench.serve import sandbox
from tests.bench.tables import Table, with_section
from tests.bench.workload import SCATTERED_CELLS, SOURCES, Box, Figures, scattered_cells

# How many days are landed at which latency: what a page or a partition costs shows in fewer of them too.
DAYS_AT_LATENCY_SECONDS = {0.0: 365, 0.08: 120}
# What a backfill costs in requests is the same for each day of `performance_date`.
DAYS_OF_A_BACKFILL = {"post_date": 365, "performance_date": 90}
LIMIT, WINDOW_SECONDS = 40, 5.0
LOADS = 5

YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


def box_of(days: int, instances: Sequence[int]) -> Box:
    """The newest days × instances, by number."""
    return Box(
        start=YESTERDAY - timedelta(days=days - 1),
        end=YESTERDAY,
        instance_ids=tuple(f"instance_{number:03}" for number in instances),
    )


def loading() -> Table:
    """How long the code location takes to load, beside Dagster itself."""
    ways = {
        "import dagster": "import dagster",
        "import later_reporting_dagster.definitions": "import later_reporting_dagster.definitions",
        "the same, resolved as a code server does": (
            "from later_reporting_dagster.definitions import defs; defs.get_repository_def()"
        ),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(LOADS):
        for way, statement in ways.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            times[way].append(time.perf_counter() - started)
    medians = {way: statistics.median(seconds) for way, seconds in times.items()}
    return Table(
        title=f"Loading, median of {LOADS} processes",
        columns=("process", "wall s", "/ import dagster"),
        rows=[(way, seconds, seconds / medians["import dagster"]) for way, seconds in medians.items()],
    )


def rollup() -> Table:
    """Ten million raw rows."""
    command = [sys.executable, "-m", "tests.bench.rollup"]
    found = msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout, type=RollupFigures)
    return Table(
        title="organic_paid_daily, beside pyarrow's bare group_by over the same columns",
        columns=("rows", "wall s", "bare wall s", "/ bare", "peak MB"),
        rows=[(f"{found.rows:,}", found.seconds, found.bare_seconds, found.ratio, f"{found.peak_megabytes:.0f}")],
    )


def scattered() -> Table:
    """Cells here and there, of a lake that holds all of them already."""
    box, rows = box_of(30, range(8)), []
    with sandbox(first_day=YESTERDAY - timedelta(days=60), last_day=YESTERDAY, instances=8, posts_per_day=20) as served:
        for date_basis, table in SOURCES.items():
            one_by_one = served.least(scattered_cells(box), date_basis=date_basis).requests
            with tempfile.TemporaryDirectory() as root:
                landed("library", box, sandbox=served, date_basis=date_basis, root=root)
                found = landed("library, scattered", box, sandbox=served, date_basis=date_basis, root=root)
            # One of them was the token's.
            fewer = 1 - (found.requests - 1) / one_by_one
            rows.append((table, found.requests - 1, one_by_one, f"{fewer:.0%}"))
    return Table(
        title=f"{SCATTERED_CELLS} random cells of 30 days × 8 instances",
        columns=("table", "requests", "one query a cell", "fewer by"),
        rows=rows,
    )


def rate() -> Table:
    """A service that limits, asked by one process and by two at once."""
    rows = []
    for shares in ([range(8)], [range(4), range(4, 8)]):
        with sandbox(
            first_day=YESTERDAY - timedelta(days=400),
            last_day=YESTERDAY,
            instances=8,
            posts_per_day=20,
            requests=LIMIT,
            window=WINDOW_SECONDS,
        ) as served:
            boxes = [box_of(255, share) for share in shares]
            found = landed("library, paced", *boxes, sandbox=served, date_basis="post_date")
        # The last window's requests may all start at its beginning.
        least = (ceil(found.requests / LIMIT) - 1) * WINDOW_SECONDS
        refused = 100 * found.refused / found.requests
        rows.append((len(shares), found.requests, found.seconds, least, found.seconds / least, refused))
    return Table(
        title=f"A service that allows {LIMIT} requests in {WINDOW_SECONDS:g} s",
        columns=("processes", "requests", "wall s", "least s", "/ least", "refused %"),
        rows=rows,
    )


def cursor() -> Table:
    """The same days by numbered pages and by cursor."""
    rows = []
    for latency, days in DAYS_AT_LATENCY_SECONDS.items():
        box = box_of(days, range(8))
        world: dict[str, Any] = {
            "first_day": box.start - timedelta(days=30), "last_day": YESTERDAY, "instances": 8, "posts_per_day": 20,
        }  # fmt: skip
        for date_basis, table in SOURCES.items():
            with sandbox(**world, latency=latency) as served:
                least = served.least([box], date_basis=date_basis)
                numbered = landed("library", box, sandbox=served, date_basis=date_basis)
            with sandbox(**world, latency=latency, revision="cursor") as served:
                found = landed("library, by cursor", box, sandbox=served, date_basis=date_basis)
            for each, figures in (("numbered pages", numbered), ("cursor", found)):
                assert figures.rows == least.rows, f"{each}: {figures.rows} rows of {least.rows} landed"
                ratio = f"{figures.requests / least.requests:.3f}"
                compared = (figures.seconds, figures.seconds / numbered.seconds, f"{figures.peak_megabytes:.0f}")
                rows.append((table, days, f"{latency * 1000:.0f}", each, figures.requests, ratio, *compared))
    return Table(
        title="By cursor, beside numbered pages: days × 8 instances × 20 posts a day",
        columns=("table", "days", "latency ms", "by", "requests", "/ least", "wall s", "/ numbered", "peak MB"),
        rows=rows,
        note="The least is that of full pages and the fewest queries. By cursor a page has to come before the next can"
        " be asked for, so that days are shared out among several walks, each of which ends in a page that is seldom"
        " full.",
    )


def large() -> Table:
    """A day that no single query reaches, and memory that must not grow with the range."""
    rows = []
    for named, days, instances, posts_per_day in (
        ("one day of one instance", 1, 1, 124_000),
        ("two years of 8 instances", 730, 8, 17),
        ("two years of 8 instances", 730, 8, 86),
    ):
        box = box_of(days, range(instances))
        with sandbox(
            first_day=box.start, last_day=YESTERDAY, instances=instances, posts_per_day=posts_per_day
        ) as served:
            least = served.least([box], date_basis="post_date").requests
            found = landed("library", box, sandbox=served, date_basis="post_date")
        rows.append((named, found.rows, found.requests, f"{found.requests / least:.3f}", f"{found.peak_megabytes:.0f}"))
    return Table(
        title="Large answers, landed by the library",
        columns=("posts", "rows", "requests", "/ least", "peak MB"),
        rows=rows,
    )


def backfill() -> Table:
    """A backfill as the UI launches it, which becomes a run for each instance or day, all at once."""
    rows = []
    first_day = YESTERDAY - timedelta(days=395)
    with sandbox(first_day=first_day, last_day=YESTERDAY, instances=8, posts_per_day=20) as served:
        for date_basis, table in SOURCES.items():
            box = box_of(DAYS_OF_A_BACKFILL[date_basis], range(8))
            found = landed("Dagster backfill", box, sandbox=served, date_basis=date_basis)
            least = served.least(found.runs, date_basis=date_basis)
            assert found.rows == least.rows, f"{found.rows} rows of {least.rows} landed"
            ratio = f"{found.requests / least.requests:.3f}"
            rows.append((table, len(box.days), len(found.runs), found.requests, least.requests, ratio, found.seconds))
    return Table(
        title="A backfill from the UI, 8 instances × 20 posts a day",
        columns=("table", "days", "runs", "requests", "least of the runs' boxes", "/ least", "wall s"),
        rows=rows,
        note="The wall time is from the start of Dagster's daemon, which has its default settings, to the end of the"
        " last run; the rollups that follow by themselves run beside.",
    )


def year() -> Table:
    """A year by each means, side by side."""
    means = ["plain script", "fast script", "dlt rest_api", "library", "Dagster range run"]
    if is_without_dlt := find_spec("dlt") is None:
        means.remove("dlt rest_api")
    rows = []
    for latency, days in DAYS_AT_LATENCY_SECONDS.items():
        box = box_of(days, range(8))
        first_day = box.start - timedelta(days=30)
        with sandbox(first_day=first_day, last_day=YESTERDAY, instances=8, posts_per_day=20, latency=latency) as served:
            for date_basis, table in SOURCES.items():
                least = served.least([box], date_basis=date_basis)
                by = {each: landed(each, box, sandbox=served, date_basis=date_basis) for each in means}
                for each, found in by.items():
                    assert found.rows == least.rows, f"{each}: {found.rows} rows of {least.rows} landed"
                    ratio = f"{found.requests / least.requests:.3f}"
                    compared = _compared(found, plain=by["plain script"], library=by["library"], cells=len(box.cells))
                    rows.append((table, days, f"{latency * 1000:.0f}", each, found.requests, ratio, *compared))
    return Table(
        title="Days × 8 instances × 20 posts a day, by each means",
        columns=(
            *("table", "days", "latency ms", "by", "requests", "/ least"),
            *("wall s", "/ plain", "/ library", "CPU s", "/ plain", "peak MB"),
            *("ms a partition over the library", "s before the run starts"),
        ),
        rows=rows,
        note="Without dlt, which is not installed: `pip install dlt` adds its rows." if is_without_dlt else "",
    )


def _compared(found: Figures, *, plain: Figures, library: Figures, cells: int) -> Sequence[object]:
    """What one means took beside two others; the last two columns are Dagster's alone."""
    over_library = (found.seconds - library.seconds) * 1000 / cells
    of_dagster = (f"{over_library:.1f}", found.creating_seconds) if found.creating_seconds else ("", "")
    return (
        *(found.seconds, found.seconds / plain.seconds, found.seconds / library.seconds),
        *(found.cpu_seconds, found.cpu_seconds / plain.cpu_seconds, f"{found.peak_megabytes:.0f}"),
        *of_dagster,
    )


WORKLOADS = {
    "year": year,
    "backfill": backfill,
    "scattered": scattered,
    "large": large,
    "cursor": cursor,
    "rate": rate,
    "rollup": rollup,
    "loading": loading,
    "files": files,
    "compaction": compaction,
}


def main() -> None:
    """Runs the named workloads, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"of {', '.join(WORKLOADS)}; all by default")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="replaces the workloads' sections in it")
    given = parser.parse_args()
    if strangers := set(given.workloads) - set(WORKLOADS):
        parser.error(f"no such workload: {', '.join(sorted(strangers))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what it started ends with it
    began = time.perf_counter()
    for name in given.workloads or WORKLOADS:
        print(f"{name}:", file=sys.stderr, flush=True)
        started = time.perf_counter()
        section = WORKLOADS[name]().markdown()
        section += (
            f"\n\nMeasured by `python -m tests.bench {name}` in {time.perf_counter() - started:.0f} s:"
            f" {os.cpu_count()} cores, Python {platform.python_version()}, dagster {version('dagster')}."
        )
        print(f"\n{section}\n", flush=True)
        if given.write:
            document = given.write.read_text(encoding="utf-8")
            given.write.write_text(with_section(document, name, section, order=WORKLOADS), encoding="utf-8")
    print(f"{time.perf_counter() - began:.0f} s in all", file=sys.stderr)


if __name__ == "__main__":
    main()
