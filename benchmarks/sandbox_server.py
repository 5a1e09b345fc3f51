"""Serve a synthetic world in its own process, and count the responses by status."""

import argparse
import asyncio
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

from benchmarks.changing_posts import APPEAR, KEYS_PATH, VANISH, Changes, Key, changing_app
from benchmarks.measurement import CREDENTIALS, PartitionRange
from later_reporting_dagster.contract import API_VERSIONS
from later_reporting_dagster.server import listen, serve
from later_reporting_dagster.server.sandbox import SandboxOptions, World, create_app

# The number of days with metrics of a post: 5 in the mean, so that results compare with those of earlier releases.
LIFETIME_SCALE, LONGEST_LIFETIME = 1.48, 28
COUNTS_PATH = "/responses-by-status"


@dataclass(frozen=True, slots=True)
class Least:
    """Lower bound for some partitions: their rows, and the requests for full pages of the fewest queries."""

    rows: int
    requests: int


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox process."""

    base_url: str

    def responses_by_status(self) -> Counter[str]:
        """Return the number of responses so far, by status."""
        return Counter(httpx.get(f"{self.base_url}{COUNTS_PATH}").raise_for_status().json())

    def keys_of_posts(self) -> set[Key]:
        """Return the keys of the posts that there are now, of a server whose posts change."""
        rows = httpx.get(f"{self.base_url}{KEYS_PATH}", timeout=60).raise_for_status().json()
        return {(instance_id, campaign_id, post_id) for instance_id, campaign_id, post_id in rows}

    def least(self, ranges: Iterable[PartitionRange], *, date_basis: str) -> Least:
        """Return the lower bound for the posts of all ranges, from the totals of the sandbox."""
        with httpx.Client(base_url=self.base_url, timeout=60) as client:
            token = client.post("/oauth/token", json=CREDENTIALS).json()["jwt"]
            client.headers["Authorization"] = f"Bearer {token}"
            responses = [
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
                for partitions in ranges
                for query in partitions.queries(date_basis)
            ]
        totals = [response.json()["pagination"]["totalItems"] for response in responses]
        return Least(rows=sum(totals), requests=sum(max(1, ceil(total / 100)) for total in totals))


@contextmanager
def running_sandbox_process(
    *, first_day: date, last_day: date, instances: int, posts_per_day: int, **options: float | str
) -> Iterator[Sandbox]:
    """Serve a world in another process while the block runs.

    Args:
        first_day: First day of the world.
        last_day: Last day of the world.
        instances: Number of instances.
        posts_per_day: Posts of an instance a day.
        **options: Options of this module's command line: `latency`, `requests`, `window`, `api_version`, or `change`,
            `changes`, `pages`.

    Yields:
        The sandbox.
    """
    command = [sys.executable, "-m", "benchmarks.sandbox_server"]
    command += ["--first-day", str(first_day), "--last-day", str(last_day)]
    command += ["--instances", str(instances), "--posts-per-day", str(posts_per_day)]
    command += [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield Sandbox(server.stdout.readline().strip())
        finally:
            server.terminate()


class _CountResponses:
    """Delays and counts responses, and serves the counts outside of both and of the rate limit."""

    def __init__(self, app: ASGIApp, *, latency_seconds: float) -> None:
        self._app = app
        self._latency_seconds = latency_seconds
        self._counts: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts[message["status"]] += 1
            await send(message)

        if scope["path"] == COUNTS_PATH:
            await JSONResponse(self._counts)(scope, receive, send)
        else:
            await asyncio.sleep(self._latency_seconds)
            await self._app(scope, receive, counting_send)


def main() -> None:
    """Serve until terminated; print the base URL when the server accepts connections."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sandbox_server", description=__doc__)
    parser.add_argument("--first-day", type=date.fromisoformat, required=True)
    parser.add_argument("--last-day", type=date.fromisoformat, required=True)
    parser.add_argument("--instances", type=int, required=True)
    parser.add_argument("--posts-per-day", type=int, required=True, help="mean number of posts of an instance")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--requests", type=int, default=10**9, help="requests in a rate-limit window")
    parser.add_argument("--window", type=float, default=60.0, help="seconds")
    parser.add_argument("--api-version", choices=list(API_VERSIONS), default="paged")
    parser.add_argument("--change", choices=[APPEAR, VANISH], help="what posts do while pages are read")
    parser.add_argument("--changes", type=int, default=0, help="number of posts that do so, one at a time")
    parser.add_argument("--pages", type=int, default=1, help="pages of posts that are read before each change")
    arguments = parser.parse_args()
    world = World(
        first_day=arguments.first_day,
        last_day=arguments.last_day,
        instances=arguments.instances,
        posts_per_day=arguments.posts_per_day,
        lifetime_scale=LIFETIME_SCALE,
        longest_lifetime=LONGEST_LIFETIME,
    )
    options = SandboxOptions(
        requests_per_window=arguments.requests,
        window_seconds=arguments.window,
        api_version=API_VERSIONS[arguments.api_version],
    )
    app = create_app(world, options=options)
    if arguments.change:
        app = changing_app(world, Changes(kind=arguments.change, number=arguments.changes, pages=arguments.pages))
    counting = _CountResponses(app, latency_seconds=arguments.latency)
    serve(counting, listen(), on_ready=lambda base_url: print(base_url, flush=True))


if __name__ == "__main__":
    main()
