"""One sandbox per process for the demo mode, which replaces the API."""

import atexit
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import cache

from later_reporting_dagster.endpoint.http_server import running_server
from later_reporting_dagster.sandbox.sandbox_app import SandboxOptions, create_app
from later_reporting_dagster.sandbox.synthetic_world import World, two_years_before

INSTANCES = 4
POSTS_PER_DAY = 8
# A rate limit would only slow the demo down.
REQUESTS_PER_WINDOW = 1_000_000


@dataclass(frozen=True, slots=True)
class DemoSandbox:
    """A running sandbox and its credentials."""

    base_url: str
    client_id: str
    client_secret: str


@cache
def demo_sandbox(last_day: date) -> DemoSandbox:
    """Start a sandbox in this process, once per last day, and return it. It stops when the process ends.

    Args:
        last_day: the newest day with posts. Every sandbox returns the same posts for the days that it covers.

    Raises:
        OSError: no loopback port is free.
    """
    options = SandboxOptions(requests_per_window=REQUESTS_PER_WINDOW)
    world = World(
        first_day=two_years_before(last_day),
        last_day=last_day,
        seed=0,
        instances=INSTANCES,
        posts_per_day=POSTS_PER_DAY,
    )
    stack = ExitStack()
    atexit.register(stack.close)
    base_url = stack.enter_context(running_server(create_app(world, options=options)))
    return DemoSandbox(base_url, options.client_id, options.client_secret)
