"""The sandbox application with faults: draw a fault for each request, apply it and send the response."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from random import Random

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.parameters import API_VERSIONS, TOKEN_PATH
from later_reporting_dagster.endpoint.responses import JsonObject, ProblemError
from later_reporting_dagster.sandbox.faults import (
    CLOSE_BEFORE_STATUS_LINE,
    FAULTS,
    ApiVersionFault,
    Fault,
    FaultContext,
    FaultResponse,
    FaultSettings,
    PageFault,
    ResponseFault,
)
from later_reporting_dagster.sandbox.malformed_rows import MalformedRows, draw, validate_rates
from later_reporting_dagster.sandbox.sandbox_app import SandboxOptions, create_app
from later_reporting_dagster.sandbox.served_posts import RequestedPage, ServedPosts
from later_reporting_dagster.sandbox.synthetic_world import World

FAULTS_HEADER = "X-Sandbox-Faults"
"""With the value `off`, a request gets the current data without a fault. Malformed rows stay malformed."""

_POST_ADDING_FAULTS = {"post-inserted", "post-exchanged"}
_PADDING = b" " * 2**20


class FaultMiddleware:
    """The sandbox application with faults, as an ASGI application. It must be the outermost one.

    The fault of a request depends on the seed, the method and URL, and the number of earlier requests with these: not
    on concurrent requests. If a fault is impossible for a request, such as a repeated page for the first page, the
    response is correct. Faults that close a connection require uvicorn.

    Attributes:
        injected: Number of injected faults, by fault.
        altered: By malformation, the original keys of the altered rows that were served.

    Args:
        faults: Probabilities by name in `FAULTS`; their sum is at most 1.
        malformed_rows: Shares of all rows by name in `MALFORMATIONS`; their sum is at most 1.
        seed: Selects the requests with faults and the malformed rows.
        sleep: Wait for latency and slow responses.
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
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._faults = validate_rates(faults or {}, known=FAULTS, kind="fault")
        self._seed = seed
        self._settings = settings or FaultSettings()
        self._options = options or SandboxOptions()
        self._api_version = self._options.api_version
        self._clock = clock
        self._sleep = sleep
        alter = MalformedRows(malformed_rows or {}, seed=seed)
        pending_seed = seed if _POST_ADDING_FAULTS & self._faults.keys() else None
        self._posts = ServedPosts(world, alter=alter, pending_seed=pending_seed)
        self._app: ASGIApp = create_app(
            world,
            options=self._options,
            clock=clock,
            sleep=sleep,
            posts=self._posts,
            page_response=self._page_response,
            api_version=lambda: self._api_version,
        )
        self._request_counts: Counter[str] = Counter()
        self._revoked: set[str] = set()
        self.injected = Counter(dict.fromkeys(self._faults, 0))
        self.altered = alter.altered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        authorization = headers.get("authorization", "")
        if authorization in self._revoked:
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)["authorization"] = "Bearer revoked"
        path = scope["path"]
        fault, random = self._draw(scope) if headers.get(FAULTS_HEADER) != "off" else (None, Random(0))
        _drawn_page_fault.set((fault, random) if isinstance(fault, PageFault) else None)
        if isinstance(fault, ApiVersionFault) and path != TOKEN_PATH:
            self._switch_api_version(fault)
        if not isinstance(fault, ResponseFault) or path not in fault.paths:
            await self._app(scope, receive, send)
            return
        if fault.skips_app:
            rate_limit_headers = self._options.rate_limit.headers.items()
            response = FaultResponse(200, {name.lower(): value for name, value in rate_limit_headers})
        else:
            response = await self._app_response(scope, receive)
        if response.status == HTTPStatus.OK:
            response = fault.apply(response, FaultContext(random, self._settings, self._clock()))
            self.injected[fault.name] += 1
            if response.revokes_token:
                self._revoked.add(authorization)
        await self._send(response, receive, send)

    def _draw(self, scope: Scope) -> tuple[Fault | None, Random]:
        request = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}"
        self._request_counts[request] += 1
        random = Random(f"{self._seed} {request} {self._request_counts[request]}")
        name = draw(self._faults, random)
        return FAULTS[name] if name else None, random

    def _switch_api_version(self, fault: ApiVersionFault) -> None:
        if self._api_version is self._options.api_version:
            self._api_version = next(each for each in API_VERSIONS.values() if each is not self._api_version)
            self.injected[fault.name] += 1

    def _page_response(self, requested: RequestedPage) -> JsonObject:
        """Return the body of a page, with the drawn page fault if it is possible for the page."""
        if (drawn_fault := _drawn_page_fault.get()) and requested.page.api_version in drawn_fault[0].api_versions:
            fault, random = drawn_fault
            try:
                body = fault.apply(requested, FaultContext(random, self._settings, self._clock()))
            except ProblemError:
                self.injected[fault.name] += 1
                raise
            if body is not None:
                self.injected[fault.name] += 1
                return body
        return requested.body()

    async def _app_response(self, scope: Scope, receive: Receive) -> FaultResponse:
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, collect)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in messages[0]["headers"]}
        headers.pop("content-length", None)
        body = b"".join(message["body"] for message in messages[1:])
        return FaultResponse(messages[0]["status"], headers, body)

    async def _send(self, response: FaultResponse, receive: Receive, send: Send) -> None:
        if response.delay:
            await self._wait(response.delay, receive)
        if response.close_after == CLOSE_BEFORE_STATUS_LINE:
            await _close_connection(receive, send)
            return
        headers = dict(response.headers)
        if not response.padding:
            headers["content-length"] = str(len(response.body))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": encoded})
        if response.close_after is not None:
            await send(_body_message(response.body[: response.close_after], more=True))
            await _close_connection(receive, send)
            return
        body = response.body
        if response.padding:
            await send(_body_message(body[:-1], more=True))
            for start in range(0, response.padding, len(_PADDING)):
                await send(_body_message(_PADDING[: response.padding - start], more=True))
            body = body[-1:]
        await send(_body_message(body, more=False))

    async def _wait(self, seconds: float, receive: Receive) -> None:
        """Wait, but only while the client is connected, so that a slow response does not delay a shutdown."""
        waits = [asyncio.ensure_future(wait) for wait in (self._sleep(seconds), _disconnected(receive))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


_drawn_page_fault: ContextVar[tuple[PageFault, Random] | None] = ContextVar("drawn page fault", default=None)


def _body_message(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close_connection(receive: Receive, send: Send) -> None:
    """Close the connection of a request. ASGI has no message for it: use the transport of uvicorn's `send`."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionError(
            "cannot close the connection: serve FaultMiddleware by uvicorn, without other middleware around it"
        )
    transport.close()
    await _disconnected(receive)
