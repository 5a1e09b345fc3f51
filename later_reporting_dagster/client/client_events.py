"""Events that the client emits while it works, for logs and progress displays."""

from dataclasses import dataclass


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
