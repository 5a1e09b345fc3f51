"""Pure functions: the meaning of responses and errors, the values of headers, and when a request is retried."""

import math
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from later_reporting_dagster.client.auth import decode_json
from later_reporting_dagster.client.errors import CredentialsRejected, LaterError, QueryRejected, UnexpectedResponse
from later_reporting_dagster.contract.page import UnreadableBody
from later_reporting_dagster.contract.safe_line import safe_line

MAX_BACKOFF_SECONDS = 30.0  # before jitter
# The longest wait that a response other than 429 may ask for; if it asks for a longer one, retries end at once. Also
# the longest wait after a 429 without `Retry-After`.
MAX_WAIT_SECONDS = 300.0
# Of the detail of a refusal, which may list all valid metrics.
MAX_DETAIL_LENGTH = 2000
FRACTIONS_OF_A_WINDOW = 7  # the first wait after a 429 is 1/64 of the window
# Beside 5xx. A conflict, a lock and a replay pass, as a timeout and the rate limit do.
RETRIED = frozenset({408, 409, 423, 425, 429})


class ProblemDetails(msgspec.Struct, frozen=True):
    """Body of an error response. `detail` is written for people and may change, so no decision depends on it."""

    type: str | None = None
    title: str | None = None
    detail: str | None = None

    @property
    def is_forbidden(self) -> bool:
        """Whether this is about the query: some forbidden paths are an internal error with this title."""
        return (self.title or "").casefold() == "forbidden"

    @classmethod
    def from_body(cls, body: bytes) -> "ProblemDetails":
        return decode_json(body, cls) or cls()

    def text(self, request: "Request") -> str:
        """Return what messages quote; of a token request only the type, because the others are likely to quote it."""
        if request.is_for_token:
            return self.type or ""
        return " ".join(part for part in (self.type, self.title, self.detail) if part) or "without problem details"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The default waits add up to 61.5 to 92 seconds, more than the API's rate limit window of 60 seconds
    (docs/api.md, "Rate limit").

    Attributes:
        max_refused_seconds: how long a request is sent again that gets nothing but 429, which costs no attempt.
    """

    max_attempts: int = 8
    initial_backoff_seconds: float = 0.5
    max_refused_seconds: float = 1800.0

    def wait_after(self, attempt: int, *, requested_wait: float | None, jitter: float) -> float | None:
        """Return the seconds to wait after an attempt, counted from 1; None if the response asks for too many.

        `jitter`, 0 to 1, lengthens the wait by up to half, and never shortens it.
        """
        if (requested_wait or 0.0) > MAX_WAIT_SECONDS:
            return None
        return max(requested_wait or 0.0, self._backoff(attempt, jitter))

    def wait_after_429(
        self, refusals: int, *, requested_wait: float | None, window_seconds: float, jitter: float
    ) -> float:
        """Return the seconds to wait after that many 429 in a row.

        The window slides, so a short wait usually suffices without `Retry-After`: a fraction of the window, which
        doubles up to the whole window, after which no earlier request counts.
        """
        if requested_wait is None:
            fraction = 2.0 ** max(FRACTIONS_OF_A_WINDOW - refusals, 0)
            requested_wait = min(window_seconds / fraction, MAX_WAIT_SECONDS)
        return max(requested_wait, self._backoff(refusals, jitter))

    def _backoff(self, attempt: int, jitter: float) -> float:
        # The exponent is bounded so that no policy can overflow a float.
        seconds = self.initial_backoff_seconds * 2.0 ** min(attempt - 1, 60)
        return min(MAX_BACKOFF_SECONDS, seconds) * (1 + jitter / 2)


@dataclass(frozen=True, slots=True)
class Request:
    """A request, by its description in messages. That for a token has a body, `content`, with the credentials."""

    path: str
    description: str
    content: bytes | None = field(default=None, repr=False)
    max_attempts: int | None = None

    @property
    def is_for_token(self) -> bool:
        return self.content is not None


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response. `headers` is case-insensitive; `requested_at` is when its request was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """A failed attempt that is worth a retry, with the wait that the response asks for, if any."""

    message: str
    wait_seconds: float | None = None
    is_429: bool = False
    is_token_rejected: bool = False


def classify_failure(response: Response, request: Request, *, secrets: Collection[str], now: float) -> TemporaryFailure:
    """Return a response other than a success as a failure to retry, or raise what else it means.

    See docs/api.md, "Errors", "Rate limit" and "What is accepted". Messages do not quote `secrets`, which the server
    may echo.
    """
    status, problem = response.status, ProblemDetails.from_body(response.body)
    text = problem.text(request)
    detail = safe_line(text, secrets, limit=MAX_DETAIL_LENGTH)
    summary = f"{request.description}: HTTP {status} {safe_line(text, secrets)}".rstrip()
    if 300 <= status < 400:
        raise UnexpectedResponse(
            f"{request.description}: HTTP {status}, a redirect, which is not followed because it would expose the "
            "token. Check the base URL."
        )
    is_temporary = status in RETRIED or status >= 500 or "retry-after" in response.headers
    if is_temporary and not (status >= 500 and problem.is_forbidden):
        return TemporaryFailure(summary, retry_after_seconds(response.headers, now=now), is_429=status == 429)
    raise _refusal(summary, request, status, detail, is_forbidden=problem.is_forbidden)


def _refusal(summary: str, request: Request, status: int, detail: str, *, is_forbidden: bool) -> LaterError:
    # Whatever is wrong with a token request, no other query would succeed.
    if request.is_for_token and (is_forbidden or status in (400, 401, 403)):
        return CredentialsRejected(
            f"{summary}. Check the client id and secret (LATER_CLIENT_ID, LATER_CLIENT_SECRET); if they are correct,"
            " the client is disabled or has no instance."
        )
    if request.is_for_token:
        return UnexpectedResponse(f"{summary}. Unexpected response: check the base URL.")
    next_step = "Check the parameters, and whether the base URL is correct."
    if status == 403:
        next_step = (
            "The credentials have no access to one of these instances, or to the route: leave it out, or ask your"
            " account manager for access."
        )
    return QueryRejected(f"{summary}. {next_step}", status=status, detail=detail)


def classify_unreadable_body(
    error: UnreadableBody, response: Response, request: Request, *, secrets: Collection[str]
) -> TemporaryFailure:
    """Return a success without a valid body as a failure to retry; raise a refusal, or that it has another form."""
    problem = ProblemDetails.from_body(response.body)
    text = safe_line(problem.text(request) if problem != ProblemDetails() else str(error), secrets)
    summary = f"{request.description}: HTTP {response.status}, but {text}"
    if problem.is_forbidden:
        raise _refusal(summary, request, response.status, text, is_forbidden=True)
    if error.is_envelope:
        raise UnexpectedResponse(f"{summary}. The API has changed, or the base URL is wrong.")
    return TemporaryFailure(summary)


def classify_error(error: Exception, request: Request, *, base_url: str, secrets: Collection[str]) -> TemporaryFailure:
    """Return an error of the connection as a failure to retry; raise if the certificate is at fault."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UnexpectedResponse(
                f"{request.description}: {base_url} has a certificate that this machine does not trust:"
                f" {safe_line(cause.verify_message, secrets)}. Check the base URL; if a proxy decrypts TLS, set"
                " SSL_CERT_FILE to its certificate."
            )
        cause = cause.__cause__ or cause.__context__
    summary = f"{request.description}: {type(error).__name__}"
    if request.is_for_token and not isinstance(error, httpx.ConnectError | TimeoutError):
        return TemporaryFailure(summary)  # the text may quote a response that echoes the secret in an escaped form
    return TemporaryFailure(f"{summary} {safe_line(str(error), secrets)}".rstrip())


def retry_after_seconds(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return how many seconds `Retry-After` asks to wait, as a number or an HTTP date; None without it."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        if (until := http_date(value)) is None:
            return None
        # The local clock may be wrong.
        sent = http_date(headers.get("date", ""))
        seconds = until.timestamp() - (now if sent is None else sent.timestamp())
    return max(0.0, seconds) if math.isfinite(seconds) else None


def stated_rate_limit(headers: Mapping[str, str]) -> tuple[int, float] | None:
    """Return the limit and the window in seconds from the headers (docs/api.md, "Rate limit"); None without them."""
    try:
        return int(headers["x-ratelimit-limit"]), float(headers["x-ratelimit-window"])
    except (KeyError, ValueError):
        return None


def http_date(value: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
