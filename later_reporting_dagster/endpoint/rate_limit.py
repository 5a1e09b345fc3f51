"""Middleware that limits the requests of an IP address, and states the limit in every response."""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit of the requests of an IP address in a sliding window (docs/api.md, "Rate limit").

    Attributes:
        requests: Requests in any window.
        window_seconds: Length of the window.
        is_enforced: Whether requests beyond the limit are rejected.
    """

    requests: int
    window_seconds: float
    is_enforced: bool = True

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every response."""
        return {"X-Ratelimit-Limit": str(self.requests), "X-Ratelimit-Window": f"{self.window_seconds:g}"}


class RateLimitMiddleware:
    """Rejects requests beyond a rate limit, and adds the rate-limit headers to every response.

    Token requests count; rejected requests do not, so that a client that waits for the window is always admitted.

    Args:
        app: ASGI application.
        limit: The limit.
        clock: Return seconds since the epoch.
        delay: Awaited before each admitted request; None: no delay.
        unlimited_paths: Routes whose requests neither count nor wait.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: RateLimit,
        clock: Callable[[], float],
        delay: Callable[[], Awaitable[None]] | None = None,
        unlimited_paths: Collection[str] = (),
    ) -> None:
        self._unlimited_paths = unlimited_paths
        self._app, self._limit, self._clock, self._delay = app, limit, clock, delay
        self._headers = [(name.lower().encode(), value.encode()) for name, value in limit.headers.items()]
        self._admitted: defaultdict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, unless it exceeds the limit."""
        if scope["type"] != "http" or scope["path"] in self._unlimited_paths:
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        if self._limit.is_enforced and not self._admit(scope):
            await PlainTextResponse("Too Many Requests", status_code=429)(scope, receive, send_with_headers)
            return
        if self._delay is not None:
            await self._delay()
        await self._app(scope, receive, send_with_headers)

    def _admit(self, scope: Scope) -> bool:
        """Count a request if the window has room for it; return whether it has."""
        client = scope.get("client")
        admitted, now = self._admitted[client[0] if client else ""], self._clock()
        while admitted and admitted[0] <= now - self._limit.window_seconds:
            admitted.popleft()
        if len(admitted) >= self._limit.requests:
            return False
        admitted.append(now)
        return True
