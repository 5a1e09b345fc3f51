"""What the client tells a progress display while it works."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageFetched:
    """A page of posts has arrived. It is not verified yet: the walk may still be walked again."""

    page: int
    rows: int


@dataclass(frozen=True, slots=True)
class Waited:
    """A request has to wait for its turn under the rate limit; told as the wait begins."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Retried:
    """A request failed in a way that may pass, and is made again in `wait_seconds`; told as the wait begins."""

    reason: str
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class WalkRepeated:
    """The pages did not add up, so all of them are asked for again."""

    reason: str


@dataclass(frozen=True, slots=True)
class RevisionChanged:
    """The service answers in another revision of the API than it did: told once, and nothing is lost by it."""

    before: str
    now: str

    def __str__(self) -> str:
        return (
            f"the service speaks the revision {self.now} of the API now, and no longer {self.before}:"
            " what was under way is asked for again"
        )


ClientEvent = PageFetched | Waited | Retried | WalkRepeated | RevisionChanged
