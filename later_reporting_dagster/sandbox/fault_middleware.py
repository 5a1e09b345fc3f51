"""The sandbox application with faults: draw a fault for each request, apply it and send the response."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from random import Random
from typing import Any, cast

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.sandbox.faults import (
    CLOSE_BEFORE_STATUS_LINE,
    FAULTS,
    Fault,
    FaultContext,
    FaultResponse,
    FaultSettings,
    FaultState,
)
from later_reporting_dagster.sandbox.malformed_rows import MalformedRows, draw, validate_rates
from later_reporting_dagster.sandbox.sandbox_app import SandboxOptions, create_app
from later_reporting_dagster.sandbox.served_posts import ServedPosts
from later_reporting_dagster.sandbox.synthetic_world import World

FAULTS_HEADER = "X-Sandbox-Faults"
"""With the value `off`, a request gets the current data without a fault. Malformed rows stay malformed."""

_POST_ADDING_FAULTS = {"post-inserted", "post-exchanged"}


class FaultMiddleware:
    """The sandbox application with faults, as an ASGI application. It must be the outermost one.

    The fault of a request depends on the seed, the method and URL, and the number of earlier requests with these: not
    on concurrent requests. If a fault is impossible for a request, such as a repeated page for the first page, the
    response is correct. Faults that close a connection require uvicorn.

    Attributes:
        faults: Probabilities by name in `FAULTS`; tests empty it while the sandbox runs.
        injected: Number of injected faults, by fault.
        altered: By malformation, the original keys of the altered rows that were served.

    Args:
        faults: Probabilities by name in `FAULTS`; their sum is at most 1.
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
        await _wait(response.delay, receive)
    is_cut = response.close_after is not None
    if response.close_after != CLOSE_BEFORE_STATUS_LINE:
        headers = Response(response.body, headers=response.headers).raw_headers
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        sent = response.body[: response.close_after]
        await send({"type": "http.response.body", "body": sent, "more_body": is_cut})
    if is_cut:
        await _close_connection(receive, send)


async def _wait(seconds: float, receive: Receive) -> None:
    """Wait, but only while the client is connected, so that a slow response does not delay a shutdown."""
    waits = [asyncio.ensure_future(wait) for wait in (asyncio.sleep(seconds), _disconnected(receive))]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close_connection(receive: Receive, send: Send) -> None:
    """Close the connection of a request. ASGI has no message for it: use the transport of uvicorn's `send`."""
    cast(Any, send).__self__.transport.close()
    await _disconnected(receive)
