"""What a response means for the caller, decided from status, headers and body alone."""

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from later_reporting_dagster.client.errors import (
    ContractBroken,
    CredentialsRejected,
    InstanceForbidden,
    LaterError,
    QueryRefused,
    Retriable,
)
from later_reporting_dagster.contract import PostPerformanceQuery, Problem, excerpt

SHOWN_INSTANCES = 5


@dataclass(frozen=True, slots=True)
class Question:
    """What a request is for, without secrets, and the instances that its refusal would concern."""

    text: str
    instance_ids: tuple[str, ...] = ()
    is_for_token: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end. `headers` finds names in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def describe(query: PostPerformanceQuery) -> str:
    """Describe a query for people: its days, their basis, and the first of its instances."""
    shown = ", ".join(map(repr, query.instance_ids[:SHOWN_INSTANCES])) or "all"
    more = len(query.instance_ids) - SHOWN_INSTANCES
    instances = f"{shown} and {more} more" if more > 0 else shown
    return f"posts of {query.start_date} to {query.end_date} by {query.date_basis.value}, instances {instances}"


def question_of(query: PostPerformanceQuery, *, page: int | None = None) -> Question:
    """One page of a query, counted from 1; by default the one of its number."""
    return Question(f"{describe(query)}, page {page or query.page_number}", instance_ids=query.instance_ids)


def error_in(answer: Answer, question: Question, *, now: float, unsaid_wait_seconds: float) -> LaterError:
    """Return what a response other than HTTP 200 means.

    Args:
        answer: the response, without secrets.
        question: what was asked.
        now: seconds since the epoch, for a `Retry-After` that is a date.
        unsaid_wait_seconds: how long to wait after a 429 without `Retry-After`.
    """
    status, problem = answer.status, Problem.from_body(answer.body)
    said = f"HTTP {status} {excerpt(str(problem))}"
    if status in (408, 429) or status >= 500:
        wait = retry_after(answer.headers, now=now)
        if wait is None and status == 429:
            wait = unsaid_wait_seconds
        return Retriable(f"{question.text}: {said}", wait_seconds=wait)
    if question.is_for_token and status in (401, 403):
        return CredentialsRejected(
            f"{question.text}: HTTP {status} {excerpt(problem.type)}".rstrip() + ". Check the client id and secret "
            "(LATER_CLIENT_ID, LATER_CLIENT_SECRET); if they are right, the client is disabled or reaches no instance."
        )
    if status == 401:
        return CredentialsRejected(f"{question.text}: {said}. Check the credentials.")
    if status == 403:
        return InstanceForbidden(
            f"{question.text}: {said}. The credentials do not reach one of these instances: "
            "leave it out, or ask your account manager for access.",
            instance_ids=question.instance_ids,
        )
    if status in (400, 404, 414, 422):
        return QueryRefused(
            f"{question.text}: {said}. Check the parameters, and whether the base URL is right.",
            status=status,
            detail=str(problem),
        )
    if 300 <= status < 400:
        return ContractBroken(
            f"{question.text}: HTTP {status}, a redirect, which is not followed because the token would go with it. "
            "Check the base URL."
        )
    return ContractBroken(f"{question.text}: {said}. The document foresees no such answer: check the base URL.")


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds that `Retry-After` asks to wait, given as seconds or as an HTTP date; None if it does not say.

    A date is read against the answer's own `Date`, when there is one, so that our clock does not matter.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        until = _http_date(value)
        if until is None:
            return None
        answered = _http_date(headers.get("date", ""))
        seconds = until.timestamp() - (now if answered is None else answered.timestamp())
    return max(0.0, seconds) if math.isfinite(seconds) else None


def why_untrusted(error: BaseException) -> str | None:
    """Why a server's certificate was not trusted, when that is at the root of an error; None when it is not."""
    root: BaseException | None = error
    while root is not None:
        if isinstance(root, ssl.SSLCertVerificationError):
            return root.verify_message
        root = root.__cause__ or root.__context__
    return None


def rate_limit_in(headers: Mapping[str, str]) -> tuple[int, float] | None:
    """Return the limit and its window in seconds from the headers of a response [D]; None without them."""
    try:
        return int(headers["x-ratelimit-limit"]), float(headers["x-ratelimit-window"])
    except (KeyError, ValueError):
        return None


def server_time_in(headers: Mapping[str, str]) -> datetime | None:
    """The service's clock when it answered."""
    return _http_date(headers.get("date", ""))


def _http_date(value: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(value)
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
