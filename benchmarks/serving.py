"""Workload: pages of a lake from `later-reporting serve`, whose first page is compared with DuckDB's sort."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from http.client import HTTPConnection
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode, urlsplit

import duckdb

from benchmarks.markdown_table import Table
from benchmarks.synthetic_lake import DAYS, FIRST_DAY, write_published_posts
from later_reporting_dagster.contract.parameters import MAX_PAGE_SIZE, SortDirection
from later_reporting_dagster.lake import Lake, partition_path
from later_reporting_dagster.server.routes import SORT_PROPERTIES
from tests.services import running_api

LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
MEMORY_GB = 1.0
FIRST_SORTS = {"impressions": "impressions", "postDate": "post_date"}
CLIENTS, PAGES_PER_CLIENT = 8, 50
MAX_FIRST_PAGE_RATIO, MAX_PAGE_MILLISECONDS, MAX_MEGABYTES = 4.0, 4.0, 1_000
CREDENTIALS = {"clientId": "benchmark", "clientSecret": "benchmark-secret"}


class Client:
    """A client with a token and a connection of its own: a library for HTTP would take longer than the server."""

    def __init__(self, base_url: str) -> None:
        self._connection = HTTPConnection(urlsplit(base_url).netloc, timeout=600)
        token = json.loads(self._request("POST", "/oauth/token", json.dumps(CREDENTIALS), {}))["jwt"]
        self._headers = {"Authorization": f"Bearer {token}"}

    def close(self) -> None:
        self._connection.close()

    def page(self, number: int, sort_property: str, direction: SortDirection) -> bytes:
        """Return a page of the posts of all instances and days, by publication day."""
        query = {
            "startDate": FIRST_DAY, "endDate": LAST_DAY, "dateBasis": "post_date",
            "pageSize": MAX_PAGE_SIZE, "pageNumber": number,
            "sortProperty": sort_property, "sortDirection": direction,
        }  # fmt: skip
        return self._request("GET", f"/v2/posts/performance?{urlencode(query)}", None, self._headers)

    def _request(self, method: str, target: str, body: str | None, headers: Mapping[str, str]) -> bytes:
        self._connection.request(method, target, body, dict(headers))
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(f"{target}: {response.status} {content[:500].decode()}")
        return content


@contextmanager
def running_serve(root: str, log: Path) -> Iterator[tuple[int, str]]:
    """Run `later-reporting serve` over a lake while the block runs; yield its process id and its base URL."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_"))}
    environment |= {
        "LATER_LAKE_ROOT": root,
        "LATER_SERVE_CLIENT_ID": CREDENTIALS["clientId"],
        "LATER_SERVE_CLIENT_SECRET": CREDENTIALS["clientSecret"],
    }
    command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "serve", "--port", "0"]
    command += ["--memory-gb", f"{MEMORY_GB:g}"]
    with (
        log.open("a", encoding="utf-8") as errors,
        running_api(command, stderr=errors, env=environment) as (process, base_url, _),
    ):
        yield process.pid, base_url


def duckdb_sort_seconds(root: str, column: str) -> float:
    """Return the seconds in which DuckDB sorts the rows of `posts_published` by a column, into a table."""
    lake = Lake(root)
    paths = [f"{lake.root}/{partition_path('posts_published', each)}" for each in lake.partitions("posts_published")]
    with (
        TemporaryDirectory() as spill,
        duckdb.connect(config={"memory_limit": f"{MEMORY_GB}GB", "temp_directory": spill}) as connection,
    ):
        connection.execute("SET VARIABLE paths = ?", [paths])
        scan = "read_parquet(getvariable('paths'), hive_partitioning = false)"
        started = time.perf_counter()
        connection.execute(f"CREATE TABLE sorted AS SELECT * FROM {scan} ORDER BY {column} DESC NULLS LAST")
        return time.perf_counter() - started


def measure_lake(root: str, log: Path, *, rounds: int) -> tuple[list[float], list[float], float, float]:
    """Return the seconds of first pages and of DuckDB's sorts, the milliseconds of a later page, and the peak MB."""
    first_pages: list[float] = []
    sorts: list[float] = []
    for _, (sort_property, column) in product(range(rounds), FIRST_SORTS.items()):
        command = [sys.executable, "-m", "benchmarks.serving", root, column]
        sorts.append(float(subprocess.run(command, check=True, capture_output=True).stdout))
        with running_serve(root, log) as (_, base_url), closing(Client(base_url)) as client:
            started = time.perf_counter()
            client.page(1, sort_property, SortDirection.DESC)
            first_pages.append(time.perf_counter() - started)
    orders = [*islice(product(SORT_PROPERTIES, SortDirection), CLIENTS)]
    with ExitStack() as stack:
        process_id, base_url = stack.enter_context(running_serve(root, log))
        clients = [stack.enter_context(closing(Client(base_url))) for _ in orders]
        threads = stack.enter_context(ThreadPoolExecutor(CLIENTS))

        def read(pages: Sequence[int]) -> float:
            """Return the seconds in which all clients read pages at once, each in its own order."""
            started = time.perf_counter()
            [*threads.map(lambda client, order: [client.page(each, *order) for each in pages], clients, orders)]
            return time.perf_counter() - started

        read([1])
        for client in clients:
            client.close()  # the server closes idle connections, and the next request opens it again
        milliseconds = 1000 * read(range(2, PAGES_PER_CLIENT + 1)) / (CLIENTS * (PAGES_PER_CLIENT - 1))
        status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))
    return first_pages, sorts, milliseconds, peak


def serving(*, lakes: Sequence[tuple[int, int]] = ((8, 20), (10, 548)), rounds: int = 3) -> Table:
    """Pages of `later-reporting serve`, and first pages compared with DuckDB's sort.

    Args:
        lakes: Instances, and posts of each a day for a year: by default 58,400 and 2,000,200 posts.
        rounds: How often first pages are measured, of which the median counts.
    """
    rows: list[tuple[object, ...]] = []
    failures: list[str] = []
    for instances, posts_per_day in lakes:
        with TemporaryDirectory() as folder:
            posts = write_published_posts(Lake(f"{folder}/lake"), instances=instances, posts_per_day=posts_per_day)
            print(f"  {posts:,} posts", file=sys.stderr, flush=True)
            first_pages, sorts, milliseconds, peak = measure_lake(f"{folder}/lake", Path(folder, "log"), rounds=rounds)
        seconds, sort_seconds = statistics.median(first_pages), statistics.median(sorts)
        rows.append((f"{posts:,}", seconds, sort_seconds, seconds / sort_seconds, milliseconds, f"{peak:,.0f}"))
        goals = (
            ("first page / DuckDB's sort", seconds / sort_seconds, MAX_FIRST_PAGE_RATIO),
            ("ms for a later page", milliseconds, MAX_PAGE_MILLISECONDS),
            ("peak MB", peak, MAX_MEGABYTES),
        )
        failures += [f"{posts:,} posts: {what} {value:.1f} > {goal:g}" for what, value, goal in goals if value > goal]
    return Table(
        title="Pages of a lake from `later-reporting serve`",
        columns=("posts", "first page, s", "DuckDB's sort, s", "ratio", "later page, ms", "peak MB"),
        rows=rows,
        note=(
            f"A year of `posts_published`, {MAX_PAGE_SIZE} posts a page. First pages: medians of new servers, in turns"
            " with new processes in which DuckDB sorts the same files into a table, with the same memory limit. Later"
            f" pages: {CLIENTS} clients at once, each of which reads {PAGES_PER_CLIENT} pages in an order of its own."
        ),
        failures=failures,
    )


if __name__ == "__main__":
    print(duckdb_sort_seconds(*sys.argv[1:]))
