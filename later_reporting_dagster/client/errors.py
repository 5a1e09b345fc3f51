"""Errors of the client, by what the caller can do about them. Messages name the query and the next step."""

# ruff: noqa: N818 - named for what happened

import re

_PAGE = re.compile(r"^(, page \d+( from the end)?)?: ")


class LaterError(Exception):
    """Base class of all errors of the client.

    Attributes:
        query: what was fetched, with which the message may begin.
        is_of_token: whether no token could be fetched, which says nothing about the query.
    """

    query: str = ""
    is_of_token: bool = False

    @property
    def reason(self) -> str:
        """The message without the query and its page."""
        return _PAGE.sub("", str(self).removeprefix(self.query))


class RetriesExhausted(LaterError):
    """The request failed temporarily in every attempt: 429, 5xx, a connection error, or an unreadable body."""


class CredentialsRejected(LaterError):
    """The client id and secret, or the access token, are rejected: every query will fail."""


class QueryRejected(LaterError):
    """The API refuses this query, and may accept others: split it by instances and days.

    Attributes:
        status: of the response: a 4xx that is not retried, or a 5xx whose title is *Forbidden*.
        detail: the text of the response.
    """

    def __init__(self, message: str, *, status: int = 400, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail

    @property
    def is_forbidden(self) -> bool:
        """Whether the credentials cannot read the route, or an instance of the query; nothing says which one."""
        return self.status == 403


class UnexpectedResponse(LaterError):
    """The response is not one that the API reference lists: the base URL is wrong, or the API has changed."""


class RequestsUsedUp(LaterError):
    """The client has sent as many requests as it may."""


class ApiVersionChanged(LaterError):
    """The service responds in another API version than before, or than is set: every query will fail."""


class InconsistentPages(LaterError):
    """The pages were inconsistent, and again after a refetch. None of their rows may be used."""


class TooManyRows(LaterError):
    """The list has more rows than its pages can return or than the caller accepts: split the query.

    Attributes:
        total_items: the number of its rows; None if it is unknown, as in the cursor version.
        content_types: those of the posts that were fetched before the limit was reached; empty if the total is known.
    """

    def __init__(self, message: str, *, total_items: int | None = None) -> None:
        super().__init__(message)
        self.total_items = total_items
        self.content_types: frozenset[str | None] = frozenset()
