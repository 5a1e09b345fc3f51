"""The sandbox with faults: which request has which, and how it goes over the wire."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from random import Random

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.api_version import REVISIONS
from later_reporting_dagster.contract.limits import TOKEN_PATH
from later_reporting_dagster.sandbox.app import SandboxOptions, create_app
from later_reporting_dagster.sandbox.fault_rates import checked_chances, drawn
from later_reporting_dagster.sandbox.faults import (
    BEFORE_ANYTHING,
    FAULTS,
    Answer,
    AskedPage,
    Circumstances,
    Fault,
    FaultSettings,
    PageFault,
    RevisionFault,
    WireFault,
)
from later_reporting_dagster.sandbox.malformed_rows import HostileRows
from later_reporting_dagster.sandbox.post_store import Document, ServedPosts
from later_reporting_dagster.sandbox.problem_responses import Refusal
from later_reporting_dagster.sandbox.query_parameters import PageRequest, Question
from later_reporting_dagster.sandbox.synthetic_world import World

FAULTS_HEADER = "X-Sandbox-Faults"
"""With `off`, a request is answered by what is true now: the data as it is, hostile rows included, and no fault."""

_CHUNK = b" " * 2**20


class FaultySandbox:
    """The service over `world` with faults, as an ASGI application. It has to be the outermost one.

    A request's fault depends on the seed, on its method and URL, and on how often these were asked for: not on what
    runs beside it. A fault that is not possible with a request, as a repeated page with the first, leaves it alone.
    Closing a connection needs uvicorn.

    Attributes:
        injected: how many faults of each kind were injected.
        altered: by the kind of malformed row, the true keys of the rows that were altered and served.

    Args:
        world: all instances and posts.
        faults: probabilities by the names of `FAULTS`; together at most 1.
        hostile: shares of all rows by the names of `HOSTILE`; together at most 1.
        seed: another seed draws other faults.
        settings: how bad the faults are.
        options: how the service behaves otherwise.
        clock: seconds since the epoch.
        sleep: waits for latency and for slow responses.

    Raises:
        ValueError: a name or a probability is wrong, or the options are.
    """

    def __init__(
        self,
        world: World,
        *,
        faults: Mapping[str, float] | None = None,
        hostile: Mapping[str, float] | None = None,
        seed: int = 0,
        settings: FaultSettings | None = None,
        options: SandboxOptions | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._faults = checked_chances(faults or {}, known=FAULTS, what="fault")
        self._seed = seed
        self._settings = settings or FaultSettings()
        self._options = options or SandboxOptions()
        self._revision = self._options.revision
        self._clock = clock
        self._sleep = sleep
        self._hostile = HostileRows(hostile or {}, seed=seed)
        late_seed = seed if {"post-inserted", "post-exchanged"} & self._faults.keys() else None
        self._posts = ServedPosts(world, alter=self._hostile, late_seed=late_seed)
        self._app: ASGIApp = create_app(
            world,
            options=self._options,
            clock=clock,
            sleep=sleep,
            answer=self._answer_page,
            revision=lambda: self._revision,
        )
        self._times_asked: Counter[str] = Counter()
        self._revoked: set[str] = set()
        self.injected = Counter(dict.fromkeys(self._faults, 0))
        self.altered = self._hostile.altered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or inject the fault that it has drawn."""
        headers = Headers(scope=scope)
        authorization = headers.get("authorization", "")
        if authorization in self._revoked:
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)["authorization"] = "Bearer revoked"
        path = scope["path"]
        fault, random = self._drawn(scope) if headers.get(FAULTS_HEADER) != "off" else (None, Random(0))
        _drawn_page_fault.set((fault, random) if isinstance(fault, PageFault) else None)
        if isinstance(fault, RevisionFault) and path != TOKEN_PATH:
            self._switch(fault)
        befallen = isinstance(fault, WireFault) and path in fault.routes
        if not befallen and path != TOKEN_PATH:
            await self._app(scope, receive, send)
            return
        if isinstance(fault, WireFault) and fault.refuses:
            answer = Answer(200, {name.lower(): value for name, value in self._options.rate_limit_headers.items()})
        else:
            answer = await self._asked(scope, receive)
        if isinstance(fault, WireFault) and befallen and answer.status == HTTPStatus.OK:
            answer = fault.change(answer, Circumstances(random, self._settings, self._clock()))
            self.injected[fault.name] += 1
            if answer.revokes:
                self._revoked.add(authorization)
        await self._deliver(answer, receive, send)

    def _drawn(self, scope: Scope) -> tuple[Fault | None, Random]:
        asked = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}"
        self._times_asked[asked] += 1
        random = Random(f"{self._seed} {asked} {self._times_asked[asked]}")
        name = drawn(self._faults, random)
        return FAULTS[name] if name else None, random

    def _switch(self, fault: RevisionFault) -> None:
        if self._revision is self._options.revision:
            self._revision = next(each for each in REVISIONS.values() if each is not self._revision)
            self.injected[fault.name] += 1

    def _answer_page(self, question: Question, page: PageRequest) -> Document:
        if (drawn_fault := _drawn_page_fault.get()) and page.revision in drawn_fault[0].revisions:
            fault, random = drawn_fault
            try:
                answer = fault.change(AskedPage(self._posts, question, page, random, self._settings))
            except Refusal:
                self.injected[fault.name] += 1
                raise
            if answer is not None:
                self.injected[fault.name] += 1
                return answer
        return self._posts.page(question, page)

    async def _asked(self, scope: Scope, receive: Receive) -> Answer:
        """Return the service's own response."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in messages[0]["headers"]}
        headers.pop("content-length", None)
        body = b"".join(message["body"] for message in messages[1:])
        if scope["path"] == TOKEN_PATH and messages[0]["status"] == HTTPStatus.OK:
            # Tokens of one second are equal: this one is good again.
            self._revoked.discard(f"Bearer {msgspec.json.decode(body)['jwt']}")
        return Answer(messages[0]["status"], headers, body)

    async def _deliver(self, answer: Answer, receive: Receive, send: Send) -> None:
        if answer.delay:
            await self._wait(answer.delay, receive)
        if answer.closes_at == BEFORE_ANYTHING:
            await _hang_up(receive, send)
            return
        headers = {**answer.headers} if answer.padding else {**answer.headers, "content-length": str(len(answer.body))}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        if answer.closes_at is not None:
            await send({"type": "http.response.body", "body": answer.body[: answer.closes_at], "more_body": True})
            await _hang_up(receive, send)
            return
        body = answer.body
        if answer.padding:
            await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
            for start in range(0, answer.padding, len(_CHUNK)):
                chunk = _CHUNK[: answer.padding - start]
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            body = body[-1:]
        await send({"type": "http.response.body", "body": body})

    async def _wait(self, seconds: float, receive: Receive) -> None:
        """Wait, but no longer than the client does, so that the sandbox can be ended."""
        waits = [asyncio.ensure_future(wait) for wait in (self._sleep(seconds), _disconnected(receive))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


_drawn_page_fault: ContextVar[tuple[PageFault, Random] | None] = ContextVar("drawn page fault", default=None)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hang_up(receive: Receive, send: Send) -> None:
    """Close the connection under a response, which ASGI has no message for: uvicorn's `send` knows its transport."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionError("this server does not let an application close a connection: use uvicorn, and no wrapper")
    transport.close()
    await _disconnected(receive)
