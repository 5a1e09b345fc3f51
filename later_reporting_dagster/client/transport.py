"""Requests with authentication, rate limit and retries, and limits on how much of a response is read and quoted."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

import httpx

from later_reporting_dagster.client.auth import (
    AccessToken,
    ClientCredentials,
    Token,
    decode_json,
    is_header_safe,
    is_loopback,
    token_expiry,
    validate_base_url,
)
from later_reporting_dagster.client.errors import CredentialsRejected, LaterError, RequestsUsedUp, RetriesExhausted
from later_reporting_dagster.client.rate_limiter import RateLimiter
from later_reporting_dagster.client.retries import (
    MAX_WAIT_SECONDS,
    Request,
    Response,
    RetryPolicy,
    TemporaryFailure,
    classify_error,
    classify_failure,
    classify_unreadable_body,
    stated_rate_limit,
)
from later_reporting_dagster.contract.page import UnreadableBody
from later_reporting_dagster.contract.parameters import TOKEN_PATH

# After so many, a retry is worth a warning.
SERIOUS_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """What happened to a request or a query.

    `page`: a page has been fetched, which is not verified yet. `rate limit`: a request starts to wait for it.
    `retry`: a request failed temporarily and starts to wait. `refetch`: the pages of a query were inconsistent, so all
    of them are fetched again.

    Attributes:
        attempts: how often the request has failed, if it is sent again.
        host: to which it was sent.
    """

    kind: Literal["page", "rate limit", "retry", "refetch"]
    reason: str = ""
    seconds: float = 0.0
    attempts: int = 0
    host: str = ""

    @property
    def is_serious(self) -> bool:
        """Whether it is more than what passes by itself: a request has failed three times."""
        return self.attempts >= SERIOUS_ATTEMPTS


# A page of 100 posts has about 70 KB. A parsed body may take 30 times its size in memory, because an empty object
# (`{}`, 2 bytes) takes 64 bytes.
MAX_BODY_BYTES = 4 * 2**20
MIN_ECHO_LENGTH = 16  # a shorter token may be in a page by chance
# Common servers close idle connections after 5 seconds. We close them earlier, so that the server cannot close one just
# as a request is sent.
KEEPALIVE_SECONDS = 4.0
# A shared token may be revoked after it was fetched and before it is used, so one 401 does not show that the client is
# disabled. A disabled client gets 401 for every token.
MAX_TOKENS = 3

_Result = TypeVar("_Result")


@dataclass(kw_only=True, repr=False, eq=False)
class Transport:
    """The connections to the API, with the token and the rate limit that all requests share (see `LaterClient`)."""

    base_url: str
    credentials: ClientCredentials | AccessToken
    limiter: RateLimiter
    concurrency: int
    timeout_seconds: float
    retry: RetryPolicy
    on_event: Callable[[ClientEvent], None]
    max_requests: int | None
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    random: Callable[[], float]

    def __post_init__(self) -> None:
        self.base_url = validate_base_url(self.base_url)
        self.requests = 0  # with those that wait for the rate limit
        # Since when every response is a 429, and why no more requests are sent.
        self._refused_since = math.inf
        self._refusal = ""
        self._in_flight = asyncio.Semaphore(self.concurrency)
        # None before the first token is fetched, and after it was rejected.
        given = self.credentials
        self._token = Token(given.token, math.inf) if isinstance(given, AccessToken) else None
        self._renewal = asyncio.Lock()
        self._http = httpx.AsyncClient(
            timeout=None,  # noqa: S113 - `request` has one deadline for the whole response, which is stricter
            # One more than `concurrency`, for the token request, which is sent without a place in `_in_flight`.
            limits=httpx.Limits(max_connections=self.concurrency + 1, keepalive_expiry=KEEPALIVE_SECONDS),
            headers={"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "later-reporting-dagster"},
            follow_redirects=False,
            trust_env=not is_loopback(httpx.URL(self.base_url).host),  # requests to loopback use no proxy
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def request(self, request: Request, *, parse: Callable[[Response], _Result]) -> _Result:
        """Send a request, with a token and retries, and parse its response with a status of 200 to 299.

        The request is retried if `parse` raises `UnreadableBody`.
        """
        max_attempts = min(self.retry.max_attempts, request.max_attempts or self.retry.max_attempts)
        attempt, rejected_tokens, refusals, refused_since = 1, 0, 0, math.inf
        host = self.base_url.partition("://")[2]
        while True:
            if self._refusal:
                raise RetriesExhausted(f"{request.description}: not sent. {self._refusal}")
            # A token request takes no place in `_in_flight`. It could wait for one forever, because data requests keep
            # their places while they wait for the token.
            async with nullcontext() if request.is_for_token else self._in_flight:
                token = None if request.is_for_token else await self._valid_token(request.max_attempts)
                await self._acquire_slot()
                result = self._result_of(await self._send(request, token), request, token, parse=parse)
            if not isinstance(result, TemporaryFailure):
                return result
            if result.is_token_rejected:
                rejected_tokens += 1
                if rejected_tokens == MAX_TOKENS:
                    raise CredentialsRejected(
                        f"{request.description}: {MAX_TOKENS} tokens were rejected, the last one just after it was"
                        " fetched. Ask your account manager whether the client is enabled and has an instance."
                    )
                continue
            wait: float | None
            if result.is_429:
                refusals, refused_since = refusals + 1, min(refused_since, self.clock())
                wait = await self._pause(result, refusals=refusals, refused_since=refused_since)
            else:
                refusals, refused_since = 0, math.inf
                wait = self.retry.wait_after(attempt, requested_wait=result.wait_seconds, jitter=self.random())
                if wait is None or attempt >= max_attempts:
                    failed = f"Failed in {attempt} attempts at {host}: try again later."
                    raise RetriesExhausted(f"{result.message}. {failed}")
                attempt += 1
            self.on_event(ClientEvent("retry", result.message, wait, attempts=refusals or attempt - 1, host=host))
            await self.sleep(wait)
            rejected_tokens = 0  # the next token may have expired during the wait

    async def _send(self, request: Request, token: Token | None) -> Response | Exception:
        """Return the response, or the error of the connection.

        It is not raised: as the context of another error, it would expose the request and the response.
        """
        method = "POST" if request.is_for_token else "GET"
        headers = {"Authorization": f"Bearer {token.value}"} if token else {"Content-Type": "application/json"}
        url = f"{self.base_url}{request.path}"
        sent = self._http.stream(method, url, content=request.content, headers=headers, auth=None)
        requested_at = datetime.fromtimestamp(self.clock(), UTC)
        try:
            # One deadline from connecting to the end of the body.
            async with asyncio.timeout(self.timeout_seconds), sent as response:
                return Response(response.status_code, response.headers, await _read_body(response), requested_at)
        except TimeoutError:
            return TimeoutError(f"no complete response within {self.timeout_seconds:g} s")
        # Besides its own errors, HTTPX raises those of encodings, such as for a redirect to an invalid host.
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return error

    async def _pause(self, failure: TemporaryFailure, *, refusals: int, refused_since: float) -> float:
        """Pause all requests after a 429, and return the seconds until this one is sent again.

        Raises:
            RetriesExhausted: it got nothing but 429 for too long. If all requests did, none is sent any more.
        """
        wait = self.retry.wait_after_429(
            refusals,
            requested_wait=failure.wait_seconds,
            window_seconds=self.limiter.window_seconds,
            jitter=self.random(),
        )
        since = min(refused_since, self._refused_since)
        seconds = self.clock() - since
        if seconds + wait <= self.retry.max_refused_seconds:
            await self.limiter.pause(wait)
            return wait
        # Shorter, so that this run and those that begin now learn soon that they are refused.
        await self.limiter.pause(min(wait, MAX_WAIT_SECONDS))
        refusal = (
            f"Nothing but 429 for {seconds / 60:.0f} minutes, and the next try would be in {wait:.0f} s: run again"
            " later, and see what else sends requests from this IP address."
        )
        if self._refused_since == since:
            self._refusal = refusal
        raise RetriesExhausted(f"{failure.message}. {refusal}")

    def _result_of(
        self,
        received: Response | Exception,
        request: Request,
        token: Token | None,
        *,
        parse: Callable[[Response], _Result],
    ) -> _Result | TemporaryFailure:
        """Return the parsed response or a temporary failure; raise a permanent failure."""
        # What messages must not quote, because the server may echo it.
        secrets = [token.value] if token else []
        if isinstance(self.credentials, ClientCredentials):
            secrets += [self.credentials.client_secret, self.credentials.client_id]
        if isinstance(received, Exception):
            return classify_error(received, request, base_url=self.base_url, secrets=secrets)
        if limit := stated_rate_limit(received.headers):
            self.limiter.set_stated_limit(limit=limit[0], window_seconds=limit[1])
        self._refused_since = min(self._refused_since, self.clock()) if received.status == 429 else math.inf
        if received.status == 401 and token is not None:
            if isinstance(self.credentials, AccessToken):
                raise CredentialsRejected(
                    f"{request.description}: the access token was rejected or has expired. Set a new one"
                    " (LATER_ACCESS_TOKEN), or use a client id and secret to have tokens renewed."
                )
            if self._token is token:  # else another request has renewed it
                self._token = None
            return TemporaryFailure(f"{request.description}: the token was rejected", is_token_rejected=True)
        if not 200 <= received.status < 300:
            return classify_failure(received, request, secrets=secrets, now=self.clock())
        if token is not None and len(token.value) >= MIN_ECHO_LENGTH and token.value.encode() in received.body:
            return TemporaryFailure(
                f"{request.description}: HTTP {received.status}, but the response contains the token, which must not"
                " be stored"
            )
        try:
            return parse(received)
        except UnreadableBody as error:
            unreadable = error
        return classify_unreadable_body(unreadable, received, request, secrets=secrets)

    @property
    def token_seconds(self) -> float | None:
        """For how long the token is valid from now on; None if it does not state it, or there is none yet."""
        expiry = token_expiry(self._token.value) if self._token else None
        return None if expiry is None else expiry - self.clock()

    async def _valid_token(self, max_attempts: int | None) -> Token:
        """Return the token, which is renewed first if it has expired or was rejected."""
        async with self._renewal:
            if self._token is None or self._token.valid_until <= self.clock():
                self._token = Token.received(await self._fetch_token(max_attempts), now=self.clock())
            return self._token

    async def _fetch_token(self, max_attempts: int | None) -> str:
        credentials = self.credentials
        assert isinstance(credentials, ClientCredentials), "an access token is valid until it is rejected"
        content = json.dumps({"clientId": credentials.client_id, "clientSecret": credentials.client_secret}).encode()
        request = Request(TOKEN_PATH, "token", content, max_attempts)
        try:
            with suppress(CredentialsRejected):  # a second refusal shows that it was no mistake
                return await self.request(request, parse=_parse_token)
            return await self.request(request, parse=_parse_token)
        except LaterError as error:
            error.is_of_token = True
            raise

    async def _acquire_slot(self) -> None:
        if self.requests == self.max_requests:
            raise RequestsUsedUp(f"All {self.requests} requests are used up.")
        self.requests += 1
        await self.limiter.acquire(on_wait=lambda seconds: self.on_event(ClientEvent("rate limit", seconds=seconds)))


async def _read_body(response: httpx.Response) -> bytes:
    """Read a body of at most `MAX_BODY_BYTES`, in chunks, because gzip can make a thousand times its size of each."""
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("identity", "gzip"):
        raise httpx.DecodingError("a Content-Encoding other than gzip, which was not requested")
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if max(len(body), response.num_bytes_downloaded) > MAX_BODY_BYTES:
            raise httpx.ReadError(f"the body has more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


def _parse_token(response: Response) -> str:
    members = decode_json(response.body, dict)
    if members is None:
        members = {"jwt": None}
    token = members.get("jwt")
    if not isinstance(token, str) or not is_header_safe(token):
        # Without the body, which may contain a token.
        names = "" if "jwt" in members else f", but an object with {', '.join(members) or 'nothing'}"
        raise UnreadableBody(f"not a token{names}", is_envelope="jwt" not in members)
    return token
