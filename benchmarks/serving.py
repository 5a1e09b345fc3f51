"""Workload: pages of a lake from `later-reporting serve`, compared with a bare application and with DuckDB.

The command runs in its own process, and so does the bare application, which returns the same bytes from memory through
the same server with the same options. Both are read by `Connection`, which does little more than read from a socket: a
library for HTTP takes about as long as the bare application itself, and would hide a difference.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from urllib.parse import urlencode, urlsplit

import duckdb
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.markdown_table import Table
from benchmarks.synthetic_lake import DAYS, FIRST_DAY, write_published_posts
from later_reporting_dagster.contract.parameters import MAX_PAGE_SIZE, SortDirection, SortProperty
from later_reporting_dagster.lake import Lake, partition_path
from later_reporting_dagster.server import listen, serve
from tests.services import running_api

POSTS_PERFORMANCE_PATH, TOKEN_PATH = "/v2/posts/performance", "/oauth/token"
LAST_DAY = FIRST_DAY + timedelta(days=DAYS - 1)
MEMORY_GB = 1.0
FIRST_SORTS = (SortProperty.IMPRESSIONS, SortProperty.POST_DATE, SortProperty.PAID_CPE)
PAGE_SORTS = (*FIRST_SORTS, SortProperty.ENGAGEMENT_RATE, SortProperty.CPM, SortProperty.PAID_ENGAGEMENTS)
CLIENTS, PAGES_PER_CLIENT = 16, 50

MAX_FIRST_PAGE_RATIO, MAX_CLIENTS_RATIO, MAX_GB = 3.0, 6.0, 1.0

_CREDENTIALS = {"clientId": "benchmark", "clientSecret": "benchmark-secret"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """A query for the posts of all instances and days, by publication day."""

    property: SortProperty
    direction: SortDirection = SortDirection.DESC

    def target(self, page: int) -> str:
        """Return the target of the request for a page."""
        parameters = {
            "startDate": FIRST_DAY, "endDate": LAST_DAY, "dateBasis": "post_date",
            "pageSize": MAX_PAGE_SIZE, "pageNumber": page,
            "sortProperty": self.property.value, "sortDirection": self.direction.value,
        }  # fmt: skip
        return f"{POSTS_PERFORMANCE_PATH}?{urlencode(parameters)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A measurement, what it is compared with, and the limit of its ratio, or of itself if there is no comparison."""

    what: str
    value: float
    compared_with: str = ""
    reference: float | None = None
    limit: float | None = None
    digits: int = 2

    @property
    def judged(self) -> float:
        """The number that the limit is for."""
        return self.value if self.reference is None else self.value / self.reference

    @property
    def cells(self) -> tuple[object, ...]:
        """The cells of a row of the table."""
        reference = "" if self.reference is None else f"{self.reference:,.{self.digits}f}"
        ratio = "" if self.reference is None else self.judged
        limit = "" if self.limit is None else f"≤ {self.limit:,g}"
        return self.what, f"{self.value:,.{self.digits}f}", self.compared_with, reference, ratio, limit

    @property
    def failure(self) -> str | None:
        """What is out of its limit."""
        if self.limit is None or self.judged <= self.limit:
            return None
        return (
            f"{self.what}: {self.judged:.2f}{f' × {self.compared_with}' if self.compared_with else ''} > {self.limit:g}"
        )


class Connection:
    """A keep-alive connection of a client without a parser of HTTP: it reads the status and the length of the body."""

    def __init__(self, base_url: str) -> None:
        address = urlsplit(base_url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=600)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = f"Host: {address.netloc}\r\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def log_in(self) -> None:
        """Send a token with all further requests."""
        token = json.loads(self.request("POST", TOKEN_PATH, json.dumps(_CREDENTIALS).encode()))["jwt"]
        self._headers += f"Authorization: Bearer {token}\r\n"

    def get(self, target: str) -> bytes:
        """Return the body of a response."""
        return self.request("GET", target)

    def timed_get(self, target: str) -> tuple[float, bytes]:
        """Return the seconds until the body was there, and the body."""
        started = time.perf_counter()
        body = self.get(target)
        return time.perf_counter() - started, body

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        """Return the body of the response to a request; raise RuntimeError if its status is not 200."""
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self._socket.sendall(f"{method} {target} HTTP/1.1\r\n{self._headers}{content}\r\n".encode() + body)
        received = self._receive(b"")
        while (end := received.find(b"\r\n\r\n")) < 0:
            received = self._receive(received)
        header = received[:end].lower()
        _, found, rest = header.partition(b"\r\ncontent-length: ")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        parts, missing = [received[end + 4 :]], length - (len(received) - end - 4)
        while missing > 0:
            parts.append(self._receive(b""))
            missing -= len(parts[-1])
        response = b"".join(parts)
        if not header.startswith(b"http/1.1 200 ") or not found:
            raise RuntimeError(f"{method} {target}: {header.decode()}\n{response[:500].decode()}")
        return response

    def _receive(self, received: bytes) -> bytes:
        part = self._socket.recv(1 << 20)
        if not part:
            raise RuntimeError("the server closed the connection")
        return received + part


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server in a process of its own."""

    process_id: int
    base_url: str

    def peak_megabytes(self) -> float:
        """Return the peak memory of the process so far."""
        status = Path(f"/proc/{self.process_id}/status").read_text(encoding="utf-8")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


@contextmanager
def running_serve(root: str, log: Path) -> Iterator[ServerProcess]:
    """Run `later-reporting serve` over a lake while the block runs; its access log goes to `log`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_"))}
    environment |= {
        "LATER_LAKE_ROOT": root,
        "LATER_SERVE_CLIENT_ID": _CREDENTIALS["clientId"],
        "LATER_SERVE_CLIENT_SECRET": _CREDENTIALS["clientSecret"],
    }
    command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "serve"]
    command += ["--port", "0", "--memory-gb", f"{MEMORY_GB:g}"]
    with _running(command, environment, log) as server:
        yield server


@contextmanager
def running_bare_app(log: Path) -> Iterator[ServerProcess]:
    """Run the application that returns bytes from memory while the block runs."""
    with _running([sys.executable, "-m", "benchmarks.serving", "bare"], os.environ, log) as server:
        yield server


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[ServerProcess]:
    with (
        log.open("a", encoding="utf-8") as errors,
        running_api(command, stderr=errors, env=environment) as (process, base_url, _),
    ):
        yield ServerProcess(process.pid, base_url)


def bare_app() -> Starlette:
    """Return an application that keeps the body of a POST request, and returns it to GET requests for its target."""
    bodies: dict[str, bytes] = {}

    async def keep(request: Request) -> Response:
        bodies[request.url.query] = await request.body()
        return Response(b"{}", media_type="application/json")

    async def page(request: Request) -> Response:
        return Response(bodies[request.url.query], media_type="application/json")

    return Starlette(
        routes=[
            Route(POSTS_PERFORMANCE_PATH, page, methods=["GET"]),
            Route(POSTS_PERFORMANCE_PATH, keep, methods=["POST"]),
        ]
    )


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


def _duckdb_seconds(root: str, sort_property: SortProperty) -> float:
    """Run `duckdb_sort_seconds` in a fresh process."""
    column = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in sort_property)
    command = [sys.executable, "-m", "benchmarks.serving", "duckdb", root, column]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def measure_first_pages(root: str, log: Path, *, rounds: int) -> tuple[list[Result], float]:
    """Measure first pages of new servers, and of other orders of the same rows; also return the peak memory."""
    fresh: dict[SortProperty, list[float]] = {each: [] for each in FIRST_SORTS}
    sorts: dict[SortProperty, list[float]] = {each: [] for each in FIRST_SORTS}
    others: list[float] = []
    peaks: list[float] = []
    for _, first in product(range(rounds), FIRST_SORTS):
        sorts[first].append(_duckdb_seconds(root, first))
        with running_serve(root, log) as server, Connection(server.base_url) as client:
            client.log_in()
            fresh[first].append(client.timed_get(PageQuery(property=first).target(1))[0])
            resorted = [PageQuery(property=other) for other in PAGE_SORTS if other is not first]
            others += [client.timed_get(query.target(1))[0] for query in resorted]
            peaks.append(server.peak_megabytes())
    return [
        *(_first_page_result(f"by {each}", fresh[each], sorts[each]) for each in FIRST_SORTS),
        _first_page_result("in another order", others, [seconds for each in sorts.values() for seconds in each]),
    ], max(peaks)


def _first_page_result(what: str, seconds: Sequence[float], duckdb_seconds: Sequence[float]) -> Result:
    return Result(
        what=f"first page {what}, s", value=statistics.median(seconds), compared_with="DuckDB's sort",
        reference=statistics.median(duckdb_seconds), limit=MAX_FIRST_PAGE_RATIO,
    )  # fmt: skip


def measure_clients(server: ServerProcess, bare: ServerProcess) -> Result:
    """Let all clients read their pages at once, each in its own order."""
    queries = [
        PageQuery(property=each, direction=direction)
        for each, direction in islice(product(SortProperty, SortDirection), CLIENTS)
    ]
    later_pages = range(2, PAGES_PER_CLIENT + 1)
    with ExitStack() as stack:
        # Connected when it is used: the server closes a connection whose first request is late.
        def connect(process: ServerProcess) -> Connection:
            return stack.enter_context(Connection(process.base_url))

        clients: list[Connection] = []
        for _ in queries:
            clients.append(connect(server))
            clients[-1].log_in()
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))

        def read(connections: Sequence[Connection], pages: Sequence[int]) -> tuple[float, list[list[bytes]]]:
            def read_pages(connection: Connection, query: PageQuery) -> list[bytes]:
                return [connection.get(query.target(page)) for page in pages]

            started = time.perf_counter()
            bodies = [*pool.map(read_pages, connections, queries)]
            return time.perf_counter() - started, bodies

        read(clients, [1])
        seconds, later = read(clients, later_pages)
        bare_clients: list[Connection] = []
        for query, bodies in zip(queries, later, strict=True):
            bare_clients.append(connect(bare))
            for page, body in zip(later_pages, bodies, strict=True):
                bare_clients[-1].request("POST", query.target(page), body)
        bare_seconds, bare_bodies = read(bare_clients, later_pages)
    assert bare_bodies == later
    count = CLIENTS * len(later_pages)
    return Result(
        what=f"{CLIENTS} clients at once, ms for each later page", value=1000 * seconds / count,
        compared_with="bare app", reference=1000 * bare_seconds / count, limit=MAX_CLIENTS_RATIO,
    )  # fmt: skip


def measure_lake(root: str, folder: Path, *, rounds: int) -> list[Result]:
    """Return all results for a lake."""
    log = folder / "log"
    results, peak = measure_first_pages(root, log, rounds=rounds)
    with ExitStack() as stack:
        server, bare = stack.enter_context(running_serve(root, log)), stack.enter_context(running_bare_app(log))
        results.append(measure_clients(server, bare))
        peak = max(peak, server.peak_megabytes())
    return [*results, Result(what="peak MB", value=peak, limit=1000 * MAX_GB, digits=0)]


def serving(*, lakes: Sequence[tuple[int, int]] = ((8, 20), (10, 548)), rounds: int = 3) -> Table:
    """Pages and first pages of `later-reporting serve`, compared with a bare application and with DuckDB's sort.

    Args:
        lakes: Instances, and posts of each a day for a year: by default 58,400 and 2,000,200 posts.
        rounds: How often times are measured, of which the median counts.
    """
    rows: list[tuple[object, ...]] = []
    failures: list[str] = []
    for instances, posts_per_day in lakes:
        with TemporaryDirectory() as folder:
            root = f"{folder}/lake"
            posts = write_published_posts(Lake(root), instances=instances, posts_per_day=posts_per_day)
            print(f"  {posts:,} posts", file=sys.stderr, flush=True)
            results = measure_lake(root, Path(folder), rounds=rounds)
        rows += [(f"{posts:,}", *result.cells) for result in results]
        failures += [f"{posts:,} posts: {result.failure}" for result in results if result.failure]
    return Table(
        title="Pages of a lake from `later-reporting serve`",
        columns=("posts", "what", "serve", "compared with", "its value", "ratio", "goal"),
        rows=rows,
        note=f"First pages are medians of {rounds} rounds. {_NOTE}",
        failures=failures,
    )


_NOTE = (
    f"A year of `posts_published`, by `post_date`, {MAX_PAGE_SIZE} posts a page; keep-alive connections, read from a"
    " plain socket. First pages: new servers for each property, which have read nothing of the lake;"
    " DuckDB sorts all columns of the same files into a table, in a new process that takes turns with the"
    f" server, both with a memory limit of {MEMORY_GB:g} GB. *Another order*: the server has already sorted the same"
    f" rows by another property. {CLIENTS} clients: threads of one process, which read {PAGES_PER_CLIENT} pages each in"
    " an order of their own, then those after the first once more from a bare Starlette application: a process that"
    " returns the same bytes from memory through the same server."
    " Peak memory is that of the server's process at the end of all this."
)


def main(command: str, *arguments: str) -> None:
    """Serve the bare application until terminated, or print the seconds of DuckDB's sort."""
    if command == "bare":
        serve(bare_app(), listen(), on_ready=lambda base_url: print(f"LATER_BASE_URL={base_url}", flush=True))
    else:
        print(duckdb_sort_seconds(*arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
