"""Requests with authentication, rate limit and retries, and limits on how much of a response is read and quoted."""

import asyncio
import json
import logging
import math
import re
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx
import msgspec

from later_reporting_dagster.client.auth import (
    AccessToken,
    ClientCredentials,
    Token,
    is_header_safe,
    is_loopback,
    validate_base_url,
)
from later_reporting_dagster.client.errors import (
    CredentialsRejected,
    QueryRejected,
    RetriesExhausted,
    UnexpectedResponse,
)
from later_reporting_dagster.client.rate_limiter import RateLimiter
from later_reporting_dagster.client.retries import (
    ProblemDetails,
    RequestContext,
    Response,
    RetryPolicy,
    TemporaryFailure,
    certificate_error,
    classify_failure,
    stated_rate_limit,
)
from later_reporting_dagster.contract.page import UnreadableBody
from later_reporting_dagster.contract.parameters import TOKEN_PATH
from later_reporting_dagster.contract.redaction import redact


@dataclass(frozen=True, slots=True)
class PageFetched:
    """A page of posts or of campaign performance has been fetched.

    It is not verified yet: all pages may still be fetched again.
    """

    page: int
    rows: int


@dataclass(frozen=True, slots=True)
class RateLimitWait:
    """A request starts to wait for the rate limit."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RequestRetried:
    """A request failed temporarily and starts to wait for its retry."""

    reason: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class PagesRefetched:
    """The pages of a query were inconsistent, so all of them are fetched again."""

    reason: str


ClientEvent = PageFetched | RateLimitWait | RequestRetried | PagesRefetched


logger = logging.getLogger(__name__)


# These loggers log text from the server (reason phrases, headers), which contains the token if the server echoes the
# request.
HTTP_LOGGERS = ["httpx", "h11", "httpcore"]
HTTP_LOGGERS += [f"httpcore.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")]
_CLIENT_TEXT = re.compile(r'HTTP Request: \S+ \S+ "\S+ \d+|\S*')


def _remove_server_text(record: logging.LogRecord) -> bool:
    """Reduce a log record to its event name or, for a request, to method, URL and status."""
    record.msg = _CLIENT_TEXT.findall(record.getMessage())[0].replace('"', "")
    record.args = record.exc_info = None
    return True


for _name in HTTP_LOGGERS:
    logging.getLogger(_name).addFilter(_remove_server_text)

# A page of 100 posts has about 70 KB. A parsed body may take 30 times its size in memory, because an empty object
# (`{}`, 2 bytes) takes 64 bytes.
MAX_BODY_BYTES = 4 * 2**20
LOGGED_WAIT_SECONDS = 1.0  # shorter waits for the rate limit are not logged
MIN_ECHO_LENGTH = 16  # a shorter secret may be in a page by chance
# Common servers close idle connections after 5 seconds. We close them earlier, so that the server cannot close one just
# as a request is sent.
KEEPALIVE_SECONDS = 4.0
MAX_RENEWALS = 3  # maximum number of renewals in a row before one request is sent
# A shared token may be revoked after it was fetched and before it is used, so one 401 does not show that the client is
# disabled. A disabled client gets 401 for every token.
MAX_TOKENS = 3

_Result = TypeVar("_Result")


class _TokenBody(msgspec.Struct):
    jwt: str


class _TokenRejected:
    """The token of a request was rejected; the next attempt needs another one."""


class Transport:
    """The connections to the API, with the token and the rate limit that all requests share.

    For the arguments, see `LaterClient`.
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
        on_event: Callable[[ClientEvent], None],
        http_transport: httpx.AsyncBaseTransport | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        random: Callable[[], float],
    ) -> None:
        self._base_url = validate_base_url(base_url)
        self._credentials = credentials
        self._limiter = limiter
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._on_event = on_event
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._in_flight = asyncio.Semaphore(concurrency)
        # None before the first token is fetched, and after it was rejected.
        self._token = Token(credentials.token, math.inf) if isinstance(credentials, AccessToken) else None
        self._renewal = asyncio.Lock()
        self._http = httpx.AsyncClient(
            transport=http_transport,
            timeout=None,  # noqa: S113 - `_exchange` has one deadline for the whole response, which is stricter
            # One more than `concurrency`, for the token request, which is sent without a place in `_in_flight`.
            limits=httpx.Limits(max_connections=concurrency + 1, keepalive_expiry=KEEPALIVE_SECONDS),
            headers={"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "later-reporting-dagster"},
            # Stores no cookies, because a server could send any number of them.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            event_hooks={"response": [_drop_location]},
            follow_redirects=False,
            trust_env=not is_loopback(httpx.URL(self._base_url).host),  # requests to loopback use no proxy
        )

    async def close(self) -> None:
        await self._http.aclose()
        self._limiter.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        context: RequestContext,
        parse: Callable[[Response], _Result],
        content: bytes | None = None,
    ) -> _Result:
        """Send a request, with a token and retries, and parse its response with status 200.

        The request is retried if `parse` raises `UnreadableBody`.
        """
        try:
            headers = {"Content-Type": "application/json"} if content else None
            request = self._http.build_request(method, f"{self._base_url}{path}", content=content, headers=headers)
        except httpx.InvalidURL as error:
            raise QueryRejected(f"{context.description}: {error}. Query fewer instances at once.") from None
        attempt, rejected_tokens = 1, 0
        while True:
            # A token request takes no place in `_in_flight`. It could wait for one forever, because data requests keep
            # their places while they wait for the token.
            async with nullcontext() if context.is_token_request else self._in_flight:
                result = await self._attempt(request, attempt=attempt, context=context, parse=parse)
            if isinstance(result, _TokenRejected):
                rejected_tokens += 1
                if rejected_tokens == MAX_TOKENS:
                    raise CredentialsRejected(
                        f"{context.description}: {MAX_TOKENS} tokens were rejected, the last one just after it was"
                        " fetched. Ask your account manager whether the client is enabled and has an instance."
                    )
                continue
            if not isinstance(result, TemporaryFailure):
                return result
            wait = self._retry.wait_after(attempt, requested_wait=result.wait_seconds, jitter=self._random())
            if wait is None:
                raise RetriesExhausted(
                    f"{result.message}. Failed in {attempt} attempts: try again later.",
                    wait_seconds=result.wait_seconds,
                )
            logger.info("%s; retrying in %.1f s", result.message, wait)
            self._on_event(RequestRetried(result.message, wait))
            await self._sleep(wait)
            if context.is_token_request:  # its first attempt uses the slot of the data request that waits for it
                await self._limiter.acquire(on_wait=self._report_wait)
            attempt += 1

    async def _attempt(
        self, request: httpx.Request, *, attempt: int, context: RequestContext, parse: Callable[[Response], _Result]
    ) -> "_Result | TemporaryFailure | _TokenRejected":
        """Send a request once; return its parsed response or a temporary failure; raise a permanent failure."""
        token = None if context.is_token_request else await self._acquire_slot_and_token()
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token.value}"
        response, error_text = None, ""
        try:
            response = await self._exchange(request)
        except (httpx.RequestError, TimeoutError) as error:
            reason = certificate_error(error)
            error_text = redact(reason or str(error), self._secrets(request))
            if reason is None:
                return TemporaryFailure(f"{context.description}: {type(error).__name__} {error_text}".rstrip())
        # Raised after the `except` block, not inside it: inside, the handled error would become the context of this
        # one, and would expose the request and the response. Not retried, because the certificate would be the same.
        if response is None:
            raise UnexpectedResponse(
                f"{context.description}: {self._base_url} has a certificate that this machine does not trust: "
                f"{error_text}. Check the base URL; if a proxy decrypts TLS, set SSL_CERT_FILE to its certificate."
            )
        if response.status == 200:
            # The response to a token request has to contain a token.
            must_not_contain = self._tokens_and_client_secret(request) if token else []
            return _parse_success(
                response, context, parse=parse, must_not_contain=must_not_contain, secrets=self._secrets(request)
            )
        if response.status == 401 and token is not None:
            return self._reject(token, context)
        failure = classify_failure(
            response,
            context,
            now=self._clock(),
            default_wait_seconds=self._retry.default_rate_limit_wait(
                attempt, window_seconds=self._limiter.window_seconds
            ),
        )
        if not isinstance(failure, TemporaryFailure):
            raise failure
        if response.status == 429 and failure.wait_seconds is not None:
            await self._limiter.pause(min(failure.wait_seconds, self._retry.max_wait_seconds))
        return failure

    async def _exchange(self, request: httpx.Request) -> Response:
        """Connect, send a request, and read its whole response within one deadline."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._http.send(request, auth=None, stream=True)
                try:
                    body = await _read_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise TimeoutError(f"no complete response within {self._timeout_seconds:g} s") from None
        if limit := stated_rate_limit(response.headers):
            self._limiter.set_stated_limit(limit=limit[0], window_seconds=limit[1])
        if response.status_code != 200:  # messages quote the body, and the server may echo the request in it
            body = msgspec.json.encode(ProblemDetails.from_body(body).redact(self._secrets(response.request)))
        return Response(response.status_code, response.headers, body)

    async def _acquire_slot_and_token(self) -> Token:
        """Wait for a rate limit slot, then return a token that is valid after the wait.

        After `MAX_RENEWALS` renewals in a row, the last token is returned even if it is no longer valid.
        """
        await self._limiter.acquire(on_wait=self._report_wait)
        token = self._token or await self._renew_token(None)
        for _ in range(MAX_RENEWALS):
            if self._clock() < token.valid_until:
                break
            token = await self._renew_token(token)
        return token

    async def _renew_token(self, stale: Token | None) -> Token:
        """Return a token other than `stale`: one that another request has just fetched, or a new one."""
        async with self._renewal:
            if self._token is not None and self._token is not stale:
                return self._token
            credentials = self._credentials
            assert isinstance(credentials, ClientCredentials), "an access token is valid until it is rejected"
            value = await self.request(
                "POST",
                TOKEN_PATH,
                content=json.dumps(
                    {"clientId": credentials.client_id, "clientSecret": credentials.client_secret}
                ).encode(),
                context=RequestContext("token", is_token_request=True),
                parse=_parse_token,
            )
            token = self._token = Token.received(value, now=self._clock())
        # The token request used the slot of this request.
        await self._limiter.acquire(on_wait=self._report_wait)
        return token

    def _reject(self, token: Token, context: RequestContext) -> "_TokenRejected":
        if isinstance(self._credentials, AccessToken):
            raise CredentialsRejected(
                f"{context.description}: the access token was rejected or has expired. Set a new one"
                " (LATER_ACCESS_TOKEN), or use a client id and secret to have tokens renewed."
            )
        if self._token is token:  # else another request has renewed it
            self._token = None
        return _TokenRejected()

    def _report_wait(self, seconds: float) -> None:
        if seconds >= LOGGED_WAIT_SECONDS:
            logger.info("waiting %.1f s for the rate limit", seconds)
        self._on_event(RateLimitWait(seconds))

    def _tokens_and_client_secret(self, sent: httpx.Request) -> list[str]:
        # The request may have been sent with an older token than the current one.
        secrets = [
            self._token.value if self._token else "",
            sent.headers.get("Authorization", "").removeprefix("Bearer "),
        ]
        if isinstance(self._credentials, ClientCredentials):
            secrets.append(self._credentials.client_secret)
        return secrets

    def _secrets(self, sent: httpx.Request) -> list[str]:
        secrets = self._tokens_and_client_secret(sent)
        if isinstance(self._credentials, ClientCredentials):
            secrets.append(self._credentials.client_id)
        return secrets


def _parse_success(
    response: Response,
    context: RequestContext,
    *,
    parse: Callable[[Response], _Result],
    must_not_contain: Sequence[str],
    secrets: Sequence[str],
) -> _Result | TemporaryFailure:
    """Return the parsed response; a temporary failure if it is unreadable or contains a text of `must_not_contain`."""
    # JSON may have a backslash before each of some characters, such as the slash.
    body = response.body.replace(b"\\", b"")
    texts = [secret.encode().replace(b"\\", b"") for secret in must_not_contain if len(secret) >= MIN_ECHO_LENGTH]
    if any(text in body for text in texts):
        return TemporaryFailure(
            f"{context.description}: HTTP 200, but the response contains the credentials, which must not be stored"
        )
    try:
        return parse(response)
    except UnreadableBody as error:
        return TemporaryFailure(f"{context.description}: HTTP 200, but {redact(str(error), secrets)}")


async def _drop_location(response: httpx.Response) -> None:
    # httpx parses the header even if redirects are not followed, and raises errors that quote it.
    response.headers.pop("Location", None)


async def _read_body(response: httpx.Response) -> bytes:
    """Read and decompress a body in chunks, so that memory use stays within `MAX_BODY_BYTES`."""
    if response.is_stream_consumed:  # by a transport without a network, such as `httpx.MockTransport`
        return response.content
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise httpx.DecodingError("a Content-Encoding other than gzip, which was not requested")
    decompressor = None if coding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)
    body, received_bytes = bytearray(), 0
    async for chunk in response.aiter_raw():
        received_bytes += len(chunk)
        try:
            body += decompressor.decompress(chunk, MAX_BODY_BYTES + 1 - len(body)) if decompressor else chunk
        except zlib.error as error:
            raise httpx.DecodingError(str(error)) from None
        if decompressor and decompressor.unused_data:
            raise httpx.DecodingError("the gzip body has data after its end")
        if max(len(body), received_bytes) > MAX_BODY_BYTES:
            raise httpx.ReadError(f"the body has more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _parse_token(response: Response) -> str:
    try:
        token = msgspec.json.decode(response.body, type=_TokenBody).jwt
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        token = ""
    if not is_header_safe(token):
        raise UnreadableBody("not a token")  # without the body, which may contain a token
    return token
