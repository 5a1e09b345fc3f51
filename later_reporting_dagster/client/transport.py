"""One request until it has a good response: rate limit, token, retries, and what may be quoted of a refusal."""

import asyncio
import itertools
import json
import logging
import re
import zlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing, nullcontext
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx
import msgspec

from later_reporting_dagster.client.auth import AccessToken, BearerAuth, ClientCredentials, is_header_safe
from later_reporting_dagster.client.base_url import checked_base_url, is_loopback
from later_reporting_dagster.client.client_events import ClientEvent, Retried, Waited
from later_reporting_dagster.client.errors import ContractBroken, QueryRefused, Retriable
from later_reporting_dagster.client.rate_limiter import RateLimiter
from later_reporting_dagster.client.responses import Answer, Question, error_in, rate_limit_in, why_untrusted
from later_reporting_dagster.client.retry_policy import RetryPolicy
from later_reporting_dagster.contract import TOKEN_PATH, OtherRevision, Problem, UnreadablePage, excerpt

logger = logging.getLogger(__name__)


# These log reason phrases, heads and errors that quote them, and a service that echoes a request has the token there.
HTTP_LOGGERS = ["httpx", "h11", "httpcore"]
HTTP_LOGGERS += [f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")]
_SAID_BY_US = re.compile(r'HTTP Request: \S+ \S+ "\S+ \d+|\S*')


def _without_server_text(record: logging.LogRecord) -> bool:
    """Leave of a record its event, for a request also its URL and status."""
    record.msg = _SAID_BY_US.findall(record.getMessage())[0].replace('"', "")
    record.args = record.exc_info = None
    return True


for _name in HTTP_LOGGERS:
    logging.getLogger(_name).addFilter(_without_server_text)

# A page of 100 posts has about 70 KB. Parsed, a body may take thirty times its size: `{}` takes 64 bytes.
MAXIMUM_BODY_BYTES = 4 * 2**20
NOTABLE_WAIT_SECONDS = 1.0
SHORTEST_ECHO = 16  # what is shorter may be in a page by chance
# Shorter than the five seconds after which common servers close an idle connection under a request.
KEEPALIVE_SECONDS = 4.0

_Result = TypeVar("_Result")


class _TokenAnswer(msgspec.Struct):
    jwt: str


class Exchange:
    """The connections to the service, with the token and the rate limit that all requests share.

    `tell` is called for each wait and retry; all other arguments are as for `LaterClient`.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: ClientCredentials | AccessToken,
        limiter: RateLimiter,
        concurrency: int,
        timeout_seconds: float,
        retry: RetryPolicy,
        tell: Callable[[ClientEvent], None],
        transport: httpx.AsyncBaseTransport | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        random: Callable[[], float],
    ) -> None:
        self._base_url = checked_base_url(base_url)
        self._credentials = credentials
        self._limiter = limiter
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._in_flight = asyncio.Semaphore(concurrency)
        if isinstance(credentials, AccessToken):
            self._auth = BearerAuth(take_turn=self._take_turn, token=credentials, clock=clock)
        else:
            self._auth = BearerAuth(take_turn=self._take_turn, fetch_token=self._fetch_token, clock=clock)
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=None,  # noqa: S113 - a deadline for the whole response is stricter, see `_respond`
            # One more than for the data: a request that waits for its token keeps its own place.
            limits=httpx.Limits(max_connections=concurrency + 1, keepalive_expiry=KEEPALIVE_SECONDS),
            headers={"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "later-reporting-dagster"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none are kept: their number has no bound
            event_hooks={"response": [_drop_location]},
            follow_redirects=False,
            trust_env=not is_loopback(httpx.URL(self._base_url).host),  # no proxy stands before loopback
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get(self, path: str, *, question: Question, read: Callable[[Answer], _Result]) -> _Result:
        """Send a request for data until its response is good.

        Args:
            path: of the route, with its query string.
            question: what is asked, for messages.
            read: parses a response of status 200; one that it cannot read is requested again.

        Raises:
            LaterError: no retry changes it, or it lasted for longer than the retry policy covers.
            OtherRevision: as `read`.
        """
        try:
            request = self._http.build_request("GET", f"{self._base_url}{path}")
        except httpx.InvalidURL as error:
            raise QueryRefused(f"{question.text}: {error}. Ask for fewer instances at once.") from None
        return await self._ask(request, question=question, read=read, auth=self._auth)

    async def _fetch_token(self) -> str:
        credentials = self._credentials
        assert isinstance(credentials, ClientCredentials)
        body = {"clientId": credentials.client_id, "clientSecret": credentials.client_secret}
        request = self._http.build_request(
            "POST",
            f"{self._base_url}{TOKEN_PATH}",
            content=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        question = Question("token", is_for_token=True)
        return await self._ask(request, question=question, read=_token_in, auth=None)

    async def _ask(
        self, request: httpx.Request, *, question: Question, read: Callable[[Answer], _Result], auth: BearerAuth | None
    ) -> _Result:
        for attempt in itertools.count(1):
            # The token request has no place among the data requests: they hold theirs while they wait for it.
            async with self._in_flight if auth else nullcontext():
                outcome = await self._attempt(request, attempt=attempt, question=question, read=read, auth=auth)
            if not isinstance(outcome, Retriable):
                return outcome
            wait = self._retry.wait_after(attempt, asked_for=outcome.wait_seconds, jitter=self._random())
            if wait is None:
                raise Retriable(
                    f"{outcome}. Given up after {attempt} attempts: try again later.", wait_seconds=outcome.wait_seconds
                )
            logger.info("%s; again in %.1f s", outcome, wait)
            self._tell(Retried(str(outcome), wait))
            await self._sleep(wait)
            if auth is None:  # which would take a turn for each sending
                await self._take_turn()
        raise AssertionError("unreachable")

    async def _attempt(
        self,
        request: httpx.Request,
        *,
        attempt: int,
        question: Question,
        read: Callable[[Answer], _Result],
        auth: BearerAuth | None,
    ) -> _Result | Retriable:
        """Send a request once. Return what may pass, raise what is final."""
        answer = None
        try:
            answer = await self._send(request, auth=auth)
        except (httpx.RequestError, TimeoutError) as error:
            reason = why_untrusted(error)
            said = excerpt(reason or str(error), self._secrets(request))
            if reason is None:
                return Retriable(f"{question.text}: {type(error).__name__} {said}".rstrip())
        # Raised here and not above, where its context would be an error that holds the request and quotes its response.
        if answer is None:
            # No trust comes from asking again, and nothing was sent yet.
            raise ContractBroken(
                f"{question.text}: {self._base_url} has a certificate that this machine does not trust: {said}. "
                "Check the base URL; where a proxy opens TLS, name its certificate by SSL_CERT_FILE."
            )
        if answer.status == 200:
            # The client id, the last one, may be in a page anyway, and the response for a token has to hold one.
            echoed = [each for each in self._secrets(request)[:3] if len(each) >= SHORTEST_ECHO and auth]
            if any(each.encode() in answer.body for each in echoed):
                return Retriable(f"{question.text}: HTTP 200, but it repeats the credentials, which no lake may keep")
            try:
                return read(answer)
            except OtherRevision:
                raise
            except UnreadablePage as error:
                return Retriable(f"{question.text}: HTTP 200, but {excerpt(str(error), self._secrets(request))}")
        unsaid_wait = self._retry.unsaid_wait_after(attempt, window_seconds=self._limiter.window_seconds)
        failure = error_in(answer, question, now=self._clock(), unsaid_wait_seconds=unsaid_wait)
        if not isinstance(failure, Retriable):
            raise failure
        if answer.status == 429 and failure.wait_seconds is not None:
            self._limiter.penalize(min(failure.wait_seconds, self._retry.longest_wait_seconds))
        return failure

    async def _send(self, request: httpx.Request, *, auth: BearerAuth | None) -> Answer:
        """Send a request, and again while `auth` puts another token on it."""
        if auth is None:
            return await self._respond(request)
        # Not by httpx, which would read the body of a refusal without bounds, and count waiting as part of sending.
        async with aclosing(auth.async_auth_flow(request)) as flow:
            await anext(flow)
            while True:
                answer = await self._respond(request)
                try:
                    await flow.asend(httpx.Response(answer.status))
                except StopAsyncIteration:
                    return answer

    async def _respond(self, request: httpx.Request) -> Answer:
        """Connect, send the request, and read head and body of its response, all within one deadline."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._http.send(request, auth=None, stream=True)
                try:
                    body = await _body_of(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TimeoutError(f"no whole response within {self._timeout_seconds:g} s") from None
        if limit := rate_limit_in(response.headers):
            self._limiter.learn(limit=limit[0], window_seconds=limit[1])
        if response.status_code != 200:  # only such bodies are quoted
            body = self._quotable(body, sent=response.request)
        return Answer(response.status_code, response.headers, body)

    async def _take_turn(self) -> None:
        await self._limiter.acquire(on_wait=self._tell_of_wait)

    def _tell_of_wait(self, seconds: float) -> None:
        if seconds >= NOTABLE_WAIT_SECONDS:
            logger.info("%.1f s until the rate limit has room for the next request", seconds)
        self._tell(Waited(seconds, "rate limit"))

    def _quotable(self, body: bytes, *, sent: httpx.Request) -> bytes:
        """Return the problem in a refusal without secrets, even if the service echoes what it was sent."""
        return msgspec.json.encode(Problem.from_body(body).excerpt(self._secrets(sent)))

    def _secrets(self, sent: httpx.Request) -> list[str]:
        # The token that was sent may be another than the one that is in use by now.
        secrets = [self._auth.secret or "", sent.headers.get("Authorization", "").removeprefix("Bearer ")]
        if isinstance(self._credentials, ClientCredentials):
            secrets += [self._credentials.client_secret, self._credentials.client_id]
        return secrets


async def _drop_location(response: httpx.Response) -> None:
    # httpx reads it even where redirects are not followed, and raises errors of any kind that quote it.
    response.headers.pop("Location", None)


async def _body_of(response: httpx.Response) -> bytes:
    """Read and unpack a body piece by piece, so that no piece grows beyond what a body may have."""
    if response.is_stream_consumed:  # by a transport that has no network, such as `httpx.MockTransport`
        return response.content
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise httpx.DecodingError("a Content-Encoding other than gzip, or several, that nobody asked for")
    unpacker = None if coding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)
    body, packed_bytes = bytearray(), 0
    async for chunk in response.aiter_raw():
        packed_bytes += len(chunk)
        try:
            body += unpacker.decompress(chunk, MAXIMUM_BODY_BYTES + 1 - len(body)) if unpacker else chunk
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None
        if unpacker and unpacker.unused_data:
            raise httpx.DecodingError("the gzip body goes on after its end")
        if max(len(body), packed_bytes) > MAXIMUM_BODY_BYTES:
            raise httpx.ReadError(f"more than {MAXIMUM_BODY_BYTES} bytes, which no page or token has")
    return bytes(body)


def _token_in(answer: Answer) -> str:
    try:
        token = msgspec.json.decode(answer.body, type=_TokenAnswer).jwt
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        token = ""
    if not is_header_safe(token):
        raise UnreadablePage("not a token")  # and no more: the body may hold one
    return token
