"""A world of any days for a benchmark, served by a process of its own that counts its answers."""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from math import ceil

import httpx
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.workload import CREDENTIALS, Box
from later_reporting_dagster.contract import REVISIONS
from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, serve

ANSWERED_PATH = "/answered"


@dataclass(frozen=True, slots=True)
class Least:
    """The least that holds all rows of some boxes: full pages of the fewest queries."""

    rows: int
    requests: int


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The sandbox as the benchmark asks it."""

    base_url: str

    def answered(self) -> Counter[str]:
        """How many requests it has answered until now, by status."""
        return Counter(httpx.get(f"{self.base_url}{ANSWERED_PATH}").raise_for_status().json())

    def least(self, boxes: Iterable[Box], *, date_basis: str) -> Least:
        """The fewest requests for posts that hold all rows of the boxes, each box for itself, by its own totals."""
        with httpx.Client(base_url=self.base_url, timeout=60) as client:
            token = client.post("/oauth/token", json=CREDENTIALS).json()["jwt"]
            client.headers["Authorization"] = f"Bearer {token}"
            answers = [
                client.get(
                    "/v2/posts/performance",
                    params={
                        "startDate": str(query.start),
                        "endDate": str(query.end),
                        "dateBasis": date_basis,
                        "instanceIds": list(query.instance_ids),
                        "pageSize": 1,
                    },
                )
                for box in boxes
                for query in box.queries(date_basis)
            ]
        totals = [answer.json()["pagination"]["totalItems"] for answer in answers]
        return Least(rows=sum(totals), requests=sum(max(1, ceil(total / 100)) for total in totals))


@contextmanager
def sandbox(
    *, first_day: date, last_day: date, instances: int, posts_per_day: int, **options: float | str
) -> Iterator[Sandbox]:
    """Serves a world while the block runs; `options` are those of the command line."""
    command = [sys.executable, "-m", "benchmarks.serve", "--first-day", str(first_day), "--last-day", str(last_day)]
    command += ["--instances", str(instances), "--posts-per-day", str(posts_per_day)]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield Sandbox(server.stdout.readline().strip())
        finally:
            server.terminate()


class _Tally:
    """Counts the answers by their status, and tells them at a path of its own, which neither counts nor is limited."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answered: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered[message["status"]] += 1
            await send(message)

        if scope["path"] == ANSWERED_PATH:
            await JSONResponse(self._answered)(scope, receive, send)
        else:
            await self._app(scope, receive, counted_send)


def main() -> None:
    """Prints the base URL once connections are accepted, and serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--last-day", type=date.fromisoformat, required=True)
    parser.add_argument("--instances", type=int, required=True)
    parser.add_argument("--posts-per-day", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--requests", type=int, default=10**9)
    parser.add_argument("--window", type=float, default=60.0)
    parser.add_argument("--revision", choices=list(REVISIONS), default="paged")
    given = parser.parse_args()
    world = World(
        first_day=given.first_day, last_day=given.last_day, instances=given.instances, posts_per_day=given.posts_per_day
    )
    options = SandboxOptions(
        latency_seconds=given.latency,
        requests_per_window=given.requests,
        window_seconds=given.window,
        revision=REVISIONS[given.revision],
    )
    app = _Tally(create_app(world, options=options))
    serve(app, port=0, on_ready=lambda base_url: print(base_url, flush=True))


if __name__ == "__main__":
    main()
