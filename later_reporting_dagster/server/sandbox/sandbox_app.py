"""The sandbox application: the routes of the API over a synthetic world, and the same with faults."""

import asyncio
import atexit
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import date
from functools import cache
from http import HTTPStatus
from random import Random
from typing import Any, cast

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS
from later_reporting_dagster.contract.parameters import PAGED, ApiVersion
from later_reporting_dagster.server.app import Caller, RateLimit, api_app
from later_reporting_dagster.server.http_server import running_server
from later_reporting_dagster.server.query_parameters import PostsQuery
from later_reporting_dagster.server.responses import PageQuery, json_response, unsupported_metrics
from later_reporting_dagster.server.sandbox.campaigns import CampaignStore
from later_reporting_dagster.server.sandbox.cursor_metrics import find_unsupported_metrics
from later_reporting_dagster.server.sandbox.faults import (
    CLOSE_BEFORE_STATUS_LINE,
    FAULTS,
    Fault,
    FaultContext,
    FaultResponse,
    FaultSettings,
    FaultState,
)
from later_reporting_dagster.server.sandbox.malformed_rows import MalformedRows, draw, validate_rates
from later_reporting_dagster.server.sandbox.served_posts import ServedPosts, included_content_types
from later_reporting_dagster.server.sandbox.synthetic_world import World, two_years_before
from later_reporting_dagster.server.tokens import Client, Tokens

FAULTS_HEADER = "X-Sandbox-Faults"
"""With the value `off`, a request gets the current data without a fault. Malformed rows stay malformed."""

_POST_ADDING_FAULTS = {"post-inserted", "post-exchanged"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Options of the sandbox that do not depend on its data; the default limits are those of docs/api.md.

    Attributes:
        instance_scope: Instances that the credentials can access; None: all of the world.
    """

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - valid in the sandbox only
    instance_scope: tuple[str, ...] | None = None
    requests_per_window: int = 120
    window_seconds: float = 60.0
    api_version: ApiVersion = PAGED


def create_app(
    world: World,
    *,
    options: SandboxOptions | None = None,
    clock: Callable[[], float] = time.time,
    posts: ServedPosts | None = None,
    api_version: Callable[[], ApiVersion] | None = None,
) -> Starlette:
    """Return the sandbox as an ASGI application.

    Args:
        clock: Return seconds since the epoch, for tokens and the rate limit.
        posts: The posts to serve; None: all posts of the world.
        api_version: Return the API version of a request when it arrives; None: that of the options.
    """
    options = options or SandboxOptions()
    scope = world.instance_ids if options.instance_scope is None else options.instance_scope
    client = Client(options.client_id, options.client_secret, scope)
    posts = posts or ServedPosts(world)
    return api_app(
        _SyntheticStore(posts, CampaignStore(world, posts)),
        tokens=Tokens([client]),
        rate_limit=RateLimit(options.requests_per_window, options.window_seconds),
        api_version=lambda _: api_version() if api_version else options.api_version,
        clock=clock,
    )


@dataclass(frozen=True, slots=True)
class _SyntheticStore:
    """The `PostStore` of a world. Its clients name the instances that they can access."""

    posts: ServedPosts
    campaigns: CampaignStore

    async def instance_ids(self, caller: Caller) -> Sequence[str]:
        return caller.instance_ids or ()

    async def posts_page(self, query: PostsQuery, page: PageQuery, caller: Caller) -> Response:
        if names := find_unsupported_metrics(query.metrics or (), included_content_types(query)):
            raise unsupported_metrics(names)
        return json_response(self.posts.page(query, page))

    async def campaigns_page(self, instance_ids: tuple[str, ...] | None, page: PageQuery, caller: Caller) -> Response:
        return json_response(self.campaigns.page(instance_ids or (), page))

    async def campaign_performance_page(self, query: PostsQuery, page: PageQuery, caller: Caller) -> Response:
        """Return a page. All metrics are supported: a campaign may have posts of any content type."""
        supported = {metric.api_name for metric in CAMPAIGN_METRICS}
        if names := [name for name in query.metrics or () if name not in supported]:
            raise unsupported_metrics(names)
        return json_response(self.campaigns.performance_page(query, page))


class FaultMiddleware:
    """The sandbox application with faults, as an ASGI application. It must be the outermost one.

    The fault of a request depends on the seed, the method and URL, and the number of earlier requests with these: not
    on concurrent requests. If a fault is impossible for a request, such as a repeated page for the first page, the
    response is correct. Faults that close a connection require uvicorn.

    Attributes:
        faults: Probabilities by name in `FAULTS`, with a sum of at most 1; tests empty it while the sandbox runs.
        injected: Number of injected faults, by fault.
        altered: By malformation, the original keys of the altered rows that were served.

    Args:
        malformed_rows: Shares of all rows by name in `MALFORMATIONS`; their sum is at most 1.
        seed: Selects the requests with faults and the malformed rows.
    """

    def __init__(
        self,
        world: World,
        *,
        faults: Mapping[str, float] | None = None,
        malformed_rows: Mapping[str, float] | None = None,
        seed: int = 0,
        settings: FaultSettings | None = None,
        options: SandboxOptions | None = None,
    ) -> None:
        options = options or SandboxOptions()
        self.faults = validate_rates(faults or {}, known=FAULTS, kind="fault")
        self.injected = Counter(dict.fromkeys(self.faults, 0))
        alter = MalformedRows(malformed_rows or {}, seed=seed)
        self.altered = alter.altered
        pending_seed = seed if _POST_ADDING_FAULTS & self.faults.keys() else None
        posts = ServedPosts(world, alter=alter, pending_seed=pending_seed)
        self._state = state = FaultState(posts, options.api_version)
        self._app: ASGIApp = create_app(world, options=options, posts=posts, api_version=lambda: state.api_version)
        self._settings = settings or FaultSettings()
        self._seed = seed
        self._request_counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, api_version = Headers(scope=scope), self._state.api_version
        authorization = headers.get("authorization", "")
        if authorization in self._state.revoked:
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"authorization"]}
        fault, random = self._draw(scope) if headers.get(FAULTS_HEADER) != "off" else (None, Random(0))
        if fault is None or scope["path"] not in fault.paths or api_version not in fault.api_versions:
            await self._app(scope, receive, send)
            return
        response = await self._app_response(scope, receive)
        if response.status == HTTPStatus.OK:
            context = FaultContext(
                random=random,
                settings=self._settings,
                state=self._state,
                query_string=scope["query_string"].decode("latin-1"),
                authorization=authorization,
            )
            if faulty := fault.apply(response, context):
                self.injected[fault.name] += 1
                response = faulty
        await _send(response, receive, send)

    def _draw(self, scope: Scope) -> tuple[Fault | None, Random]:
        request = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}"
        self._request_counts[request] += 1
        random = Random(f"{self._seed} {request} {self._request_counts[request]}")
        name = draw(self.faults, random)
        return FAULTS[name] if name else None, random

    async def _app_response(self, scope: Scope, receive: Receive) -> FaultResponse:
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, collect)
        headers = dict(Headers(raw=messages[0]["headers"]))
        del headers["content-length"]
        return FaultResponse(messages[0]["status"], headers, b"".join(message["body"] for message in messages[1:]))


async def _send(response: FaultResponse, receive: Receive, send: Send) -> None:
    if response.delay:
        # Only while the client is connected, so that a slow response does not delay a shutdown.
        with suppress(TimeoutError):
            await asyncio.wait_for(_disconnected(receive), response.delay)
    is_cut = response.close_after is not None
    if response.close_after != CLOSE_BEFORE_STATUS_LINE:
        headers = Response(response.body, headers=response.headers).raw_headers
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        sent = response.body[: response.close_after]
        await send({"type": "http.response.body", "body": sent, "more_body": is_cut})
    if is_cut:
        # ASGI has no message that closes the connection: use the transport of uvicorn's `send`.
        cast(Any, send).__self__.transport.close()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@cache
def demo_sandbox(last_day: date, api_version: ApiVersion) -> str:
    """Return the URL of the sandbox of the demo mode, which replaces the API and accepts the default credentials.

    There is one per process, last day and API version. Each returns the same posts for the days that it covers.
    """
    # A rate limit would only slow the demo down.
    options = SandboxOptions(requests_per_window=1_000_000, api_version=api_version)
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_server(create_app(demo_world(last_day), options=options)))


def demo_world(last_day: date) -> World:
    return World(first_day=two_years_before(last_day), last_day=last_day, seed=0, instances=4, posts_per_day=8)
