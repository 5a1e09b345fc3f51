"""What can go wrong with the service, named for what the caller can do next.

Every message names the query, without secrets, and the next step.
"""

# ruff: noqa: N818 - a name says what happened; that it is an error, `except` says


class LaterError(Exception):
    """Anything that keeps the client from a good answer."""


class Retriable(LaterError):
    """It may work later: 429, 5xx, a broken connection, an unreadable body. Raised once retries are used up.

    `wait_seconds` is what the service asked for, None when it did not say.
    """

    def __init__(self, message: str, *, wait_seconds: float | None = None) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class CredentialsRejected(LaterError):
    """The client id and secret, or the ready token, are not accepted. Fatal for every query."""


class InstanceForbidden(LaterError):
    """The credentials do not reach one of `instance_ids`, the instances of the query. The others may be fine."""

    def __init__(self, message: str, *, instance_ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.instance_ids = instance_ids


class QueryRefused(LaterError):
    """The service does not accept the query: a parameter of the user, or a bug here.

    `status` is HTTP's, `detail` all that the service said.
    """

    def __init__(self, message: str, *, status: int = 400, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class MetricsRefused(QueryRefused):
    """Not all metrics of the query can be asked for with its filters: ask by platform for those that each has."""


class ContractBroken(LaterError):
    """The answer is outside the contract, as a redirect is: the base URL is wrong or the service has changed."""


class WalkInconsistent(LaterError):
    """Walked twice, and still the pages do not add up to one answer. Nothing of it may be used."""


class TooManyPosts(LaterError):
    """The query holds `total_items` posts, more than its pages reach or the caller wants: split it.

    Where there are no totals, `total_items` is how many had come by then.
    """

    def __init__(self, message: str, *, total_items: int) -> None:
        super().__init__(message)
        self.total_items = total_items
